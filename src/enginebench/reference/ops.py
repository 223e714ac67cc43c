"""The operations that take the time of a forward pass, in the array API: numpy, or any library of its kind.

``reference.torch_ops`` has the same ones in fewer kernels; both compute the same function. They hold no weights and no
cache, and know nothing of requests.
"""

from typing import Any

import array_api_compat

EPSILON = 1e-6


class ArrayOps:
    """The operations on arrays of the namespace ``xp`` (array_api_compat's), in ``dtype``, on ``device``."""

    def __init__(self, xp: Any, dtype: str, device: str = "cpu") -> None:
        self.xp = xp
        self.dtype = getattr(xp, dtype)
        self.wide = xp.float64 if dtype == "float64" else xp.float32  # of logits
        self.device = device

    def array(self, values: Any, dtype: Any = None) -> Any:
        """Return ``values`` as an array on the device; ``dtype``: default the engine's."""
        return self.xp.asarray(values, dtype=dtype or self.dtype, device=self.device)

    def ids(self, values: Any) -> Any:
        """Return whole numbers as an array on the device."""
        return self.array(values, self.xp.int64)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Return zeros on the device."""
        return self.xp.zeros(shape, dtype=self.dtype, device=self.device)

    def widened(self, x: Any) -> Any:
        """Return ``x`` in the precision of logits."""
        return self.xp.astype(x, self.wide, copy=False)

    def norm(self, x: Any, weight: Any) -> Any:
        """RMSNorm (Zhang and Sennrich 2019) of ``x`` (tokens, hidden)."""
        return x / self.xp.sqrt(self.xp.mean(x * x, axis=-1, keepdims=True) + EPSILON) * weight

    def swiglu(self, gate_up: Any) -> Any:
        """SwiGLU (Shazeer 2020): silu(gate) * up, from both side by side: (tokens, 2 x ffn) → (tokens, ffn)."""
        half = gate_up.shape[-1] // 2
        gate, up = gate_up[:, :half], gate_up[:, half:]
        return gate / (1 + self.xp.exp(-gate)) * up

    def add_product(self, x: Any, y: Any, matrix: Any) -> Any:
        """Return ``x + y @ matrix``."""
        return x + y @ matrix

    def attend(self, queries: Any, keys: Any, values: Any) -> Any:
        """Causal attention of one sequence: its last n positions over all of them.

        ``queries`` (n, heads, dim), ``keys`` and ``values`` (kv_heads, context, dim). Returns the shape of ``queries``.
        """
        xp, (n, heads, dim), (kv_heads, context, _) = self.xp, queries.shape, keys.shape
        grouped = xp.reshape(xp.permute_dims(queries * dim**-0.5, (1, 0, 2)), (kv_heads, heads // kv_heads * n, dim))
        scores = grouped @ xp.permute_dims(keys, (0, 2, 1))
        if n > 1:
            future = xp.arange(context)[None, :] > context - n + xp.arange(n)[:, None]
            by_query = xp.reshape(scores, (kv_heads, heads // kv_heads, n, context))
            scores = xp.reshape(xp.where(future, self.array(-float("inf")), by_query), scores.shape)
        return xp.permute_dims(xp.reshape(self._mix(scores, values), (heads, n, dim)), (1, 0, 2))

    def attend_slots(self, queries: Any, keys: Any, values: Any, mask: Any) -> Any:
        """Attention of one token of each of several sequences, whose heads are folded into the first axis.

        ``queries`` (sequences x kv_heads, group, dim), ``keys`` and ``values`` (sequences x kv_heads, context, dim),
        ``mask`` (sequences x kv_heads, 1, context): 0, or minus infinity. Returns the shape of ``queries``.
        """
        scores = (queries * queries.shape[-1] ** -0.5) @ self.xp.permute_dims(keys, (0, 2, 1)) + mask
        return self._mix(scores, values)

    def on_host(self, x: Any) -> Any:
        """Return an array that numpy can read."""
        return array_api_compat.to_device(x, "cpu")

    def _mix(self, scores: Any, values: Any) -> Any:
        xp = self.xp
        weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        return weights @ values / xp.sum(weights, axis=-1, keepdims=True)
