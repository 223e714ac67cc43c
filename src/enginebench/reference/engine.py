"""A small decoder-only transformer with a KV cache: RMSNorm, rotary embedding, grouped-query attention, SwiGLU.

One forward pass takes any mix of prompt chunks and single decode tokens, packed without padding; attention runs per
sequence, so a sequence's result does not depend on what else is in the batch beyond the last bits of a matrix product.
Written against the array API: numpy by default, torch or CuPy when their (array_api_compat) namespace is passed.
Schedules nothing and samples nothing.

BLAS must run on one thread for speeds to be comparable: whoever starts the process sets ``OMP_NUM_THREADS=1`` and
``OPENBLAS_NUM_THREADS=1`` before numpy is imported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import to_device
from numpy.typing import NDArray

from enginebench.builds.build import Limits, read_config
from enginebench.reference.options import ReferenceOptions, options_from_config
from enginebench.reference.tokenizer import FIRST_CHARACTER_ID
from enginebench.reference.weights import Weights, read_weights

_EPSILON = 1e-6
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence to compute now: those from position ``start`` on, whose KV is not yet in ``slot``."""

    slot: int
    start: int
    token_ids: tuple[int, ...]


def load_engine(directory: Path, xp: Any = None) -> "Engine":
    """Load a reference build. Raises BuildError when ``directory`` is none or its weights are damaged."""
    options = options_from_config(read_config(directory))
    return Engine(options, read_weights(directory / "rank0.engine", options), xp)


class Engine:
    """Weights and KV cache; used by one thread."""

    def __init__(self, options: ReferenceOptions, weights: Weights, xp: Any = None) -> None:
        if xp is None:
            import array_api_compat.numpy as xp
        self.options = options
        self.limits = Limits(options.max_batch_size, options.max_input_len, options.max_seq_len)
        self._xp = xp
        self._dtype = getattr(xp, options.dtype)
        self._weights = {name: xp.asarray(tensor, dtype=self._dtype) for name, tensor in weights.items()}
        self._head_dim = options.hidden // options.heads
        cache_shape = (options.layers, options.max_batch_size, options.kv_heads, options.max_seq_len, self._head_dim)
        self._keys = xp.zeros(cache_shape, dtype=self._dtype)
        self._values = xp.zeros(cache_shape, dtype=self._dtype)
        self._cos, self._sin = self._rotary_tables()

    def forward(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Compute ``spans``, fill their KV, and return the logits after each span's last token: (spans, vocab_size).

        Ids below 258 (padding, end, bytes) get minus infinity: the engine only ever says CJK characters.
        """
        xp = self._xp
        positions = xp.asarray([span.start + i for span in spans for i in range(len(span.token_ids))])
        ids = xp.asarray([token_id for span in spans for token_id in span.token_ids])
        x = xp.take(self._weights["embedding"], ids, axis=0)
        for layer in range(self.options.layers):
            x = x + self._attention(layer, self._norm(x, f"layers.{layer}.attention_norm"), spans, positions)
            x = x + self._feed_forward(layer, self._norm(x, f"layers.{layer}.ffn_norm"))
        return np.asarray(to_device(self._logits(x, spans), "cpu"))

    def _attention(self, layer: int, x: Any, spans: Sequence[Span], positions: Any) -> Any:
        """Grouped-query attention (Ainslie et al. 2023) of ``x`` (tokens, hidden) over the slots of ``spans``."""
        xp, heads, kv_heads, dim = self._xp, self.options.heads, self.options.kv_heads, self._head_dim
        qkv = xp.reshape(x @ self._weights[f"layers.{layer}.qkv"], (x.shape[0], heads + 2 * kv_heads, dim))
        rotated = self._rotate(qkv[:, : heads + kv_heads, :], positions)
        queries, keys, values = rotated[:, :heads, :], rotated[:, heads:, :], qkv[:, heads + kv_heads :, :]
        parts, begin = [], 0
        for span in spans:
            end = begin + len(span.token_ids)
            self._remember(layer, span, keys[begin:end, ...], values[begin:end, ...])
            parts.append(self._attend(layer, span, queries[begin:end, ...]))
            begin = end
        return xp.concat(parts, axis=0) @ self._weights[f"layers.{layer}.out"]

    def _remember(self, layer: int, span: Span, keys: Any, values: Any) -> None:
        end = span.start + len(span.token_ids)
        self._keys[layer, span.slot, :, span.start : end, :] = self._xp.permute_dims(keys, (1, 0, 2))
        self._values[layer, span.slot, :, span.start : end, :] = self._xp.permute_dims(values, (1, 0, 2))

    def _attend(self, layer: int, span: Span, queries: Any) -> Any:
        """Causal attention of one sequence: (n, heads, dim) queries over ``start + n`` positions → (n, hidden)."""
        xp, kv_heads, dim = self._xp, self.options.kv_heads, self._head_dim
        n, context = len(span.token_ids), span.start + len(span.token_ids)
        group = self.options.heads // kv_heads
        grouped = xp.reshape(xp.permute_dims(queries * dim**-0.5, (1, 0, 2)), (kv_heads, group * n, dim))
        keys = self._keys[layer, span.slot, :, :context, :]
        scores = grouped @ xp.permute_dims(keys, (0, 2, 1))
        if n > 1:
            scores = self._mask_future(scores, span.start, (kv_heads, group, n, context))
        weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
        mixed = weights @ self._values[layer, span.slot, :, :context, :] / xp.sum(weights, axis=-1, keepdims=True)
        by_token = xp.permute_dims(xp.reshape(mixed, (kv_heads * group, n, dim)), (1, 0, 2))
        return xp.reshape(by_token, (n, self.options.hidden))

    def _mask_future(self, scores: Any, start: int, shape: tuple[int, int, int, int]) -> Any:
        xp, (_, _, n, context) = self._xp, shape
        future = xp.arange(context)[None, :] > start + xp.arange(n)[:, None]
        masked = xp.where(future, xp.asarray(-float("inf"), dtype=self._dtype), xp.reshape(scores, shape))
        return xp.reshape(masked, scores.shape)

    def _feed_forward(self, layer: int, x: Any) -> Any:
        """SwiGLU (Shazeer 2020): (silu(x·gate) * x·up)·down."""
        hidden = x @ self._weights[f"layers.{layer}.gate_up"]
        gate, up = hidden[:, : self.options.ffn], hidden[:, self.options.ffn :]
        return (gate / (1 + self._xp.exp(-gate)) * up) @ self._weights[f"layers.{layer}.down"]

    def _norm(self, x: Any, name: str) -> Any:
        """RMSNorm (Zhang and Sennrich 2019)."""
        xp = self._xp
        return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + _EPSILON) * self._weights[name]

    def _logits(self, x: Any, spans: Sequence[Span]) -> Any:
        xp = self._xp
        ends, end = [], 0
        for span in spans:
            end += len(span.token_ids)
            ends.append(end - 1)
        last = xp.take(x, xp.asarray(ends), axis=0)
        logits = self._norm(last, "norm") @ self._weights["head"]
        logits[:, :FIRST_CHARACTER_ID] = -float("inf")
        return logits

    def _rotary_tables(self) -> tuple[Any, Any]:
        """Cosines and sines (max_seq_len, 1, head_dim / 2) of the rotary embedding (Su et al. 2021)."""
        xp, half = self._xp, self._head_dim // 2
        frequencies = _ROTARY_BASE ** -(xp.arange(half, dtype=self._dtype) / half)
        angles = xp.arange(self.options.max_seq_len, dtype=self._dtype)[:, None, None] * frequencies
        return xp.cos(angles), xp.sin(angles)

    def _rotate(self, x: Any, positions: Any) -> Any:
        xp, half = self._xp, self._head_dim // 2
        cos, sin = xp.take(self._cos, positions, axis=0), xp.take(self._sin, positions, axis=0)
        low, high = x[..., :half], x[..., half:]
        return xp.concat([low * cos - high * sin, low * sin + high * cos], axis=-1)
