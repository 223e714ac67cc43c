"""The little of torch that static-batch runners need."""

from types import ModuleType
from typing import Any


class Tensor:
    """A nested list that can be indexed like a tensor."""

    def __init__(self, values: Any, dtype: str = "int32") -> None:
        self._values = values
        self.dtype = dtype

    def __getitem__(self, index: Any) -> "Tensor":
        return Tensor(self._values[index], self.dtype)

    def __int__(self) -> int:
        return int(self._values)

    def tolist(self) -> Any:
        """The values as they are."""
        return self._values


def module() -> ModuleType:
    """A module to be found as ``torch``."""
    torch = ModuleType("torch")
    torch.tensor = Tensor  # type: ignore[attr-defined]
    torch.int32 = "int32"  # type: ignore[attr-defined]
    torch.cuda = ModuleType("torch.cuda")  # type: ignore[attr-defined]
    torch.cuda.synchronize = lambda: None
    return torch
