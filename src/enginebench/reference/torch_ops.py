"""The operations of a forward pass in torch, a kernel or two each: small kernels cost a GPU as much as large ones.

Computes what ``reference.ops`` computes. Softmax and norms are taken in float32 whatever the type of their arguments.
"""

from typing import Any

from enginebench.reference.ops import EPSILON, ArrayOps


class TorchOps(ArrayOps):
    """The operations on torch tensors of ``dtype`` on ``device``. Raises ImportError without torch."""

    def __init__(self, dtype: str, device: str) -> None:
        import array_api_compat.torch
        import torch
        from torch.nn.attention.bias import causal_lower_right

        super().__init__(array_api_compat.torch, dtype, device)
        self._torch = torch
        self._functional = torch.nn.functional
        self._causal_lower_right = causal_lower_right

    def norm(self, x: Any, weight: Any) -> Any:
        """As in ArrayOps."""
        return self._functional.rms_norm(x, weight.shape, weight, EPSILON)

    def swiglu(self, gate_up: Any) -> Any:
        """As in ArrayOps."""
        gate, up = gate_up.chunk(2, dim=-1)
        return self._functional.silu(gate) * up

    def add_product(self, x: Any, y: Any, matrix: Any) -> Any:
        """As in ArrayOps."""
        return self._torch.addmm(x, y, matrix)

    def attend(self, queries: Any, keys: Any, values: Any) -> Any:
        """As in ArrayOps."""
        n, context = queries.shape[0], keys.shape[1]
        mixed = self._functional.scaled_dot_product_attention(
            queries.transpose(0, 1)[None],
            keys[None],
            values[None],
            attn_mask=None if n == context else self._causal_lower_right(n, context),
            is_causal=n == context,
            enable_gqa=True,
        )
        return mixed[0].transpose(0, 1)

    def attend_slots(self, queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        """As in ArrayOps."""
        scores = self._torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=queries.shape[-1] ** -0.5)
        return self._torch.softmax(scores, dim=-1) @ values
