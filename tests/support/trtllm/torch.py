"""The little of torch that static-batch runners need."""

import time
from types import ModuleType
from typing import Any

CARD_BYTES, CONTEXT_BYTES = 80 * 2**30, 500 * 2**20


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


class Event:
    """A moment; of the host's clock, since there is no GPU."""

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing
        self._moment_s: float | None = None

    def record(self) -> None:
        """Now."""
        self._moment_s = time.monotonic()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds from this moment to ``end``."""
        assert self._moment_s is not None
        assert end._moment_s is not None
        return (end._moment_s - self._moment_s) * 1e3


def module() -> ModuleType:
    """A module to be found as ``torch``."""
    torch = ModuleType("torch")
    torch.tensor = Tensor  # type: ignore[attr-defined]
    torch.int32 = "int32"  # type: ignore[attr-defined]
    torch.cuda = ModuleType("torch.cuda")  # type: ignore[attr-defined]
    torch.cuda.synchronize = lambda: None
    torch.cuda.Event = Event
    torch.cuda.current_device = lambda: 0
    torch.cuda.set_device = lambda _: None
    torch.cuda.used = CONTEXT_BYTES  # so far; who loads something adds to it
    torch.cuda.mem_get_info = lambda: (CARD_BYTES - torch.cuda.used, CARD_BYTES)
    return torch
