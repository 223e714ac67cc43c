"""A small decoder-only transformer with a KV cache: RMSNorm, rotary embedding, grouped-query attention, SwiGLU.

One forward pass takes any mix of prompt chunks and single decode tokens, packed without padding; attention runs per
sequence, so a sequence's result does not depend on what else is in the batch beyond the last bits of a matrix product.
``decode`` is the same pass in arrays of fixed shapes, for engines that record it once (``reference.cuda``).
Written against the array API (``reference.ops``): numpy by default. Schedules nothing and samples nothing.

BLAS must run on one thread for speeds to be comparable: whoever starts the process sets ``OMP_NUM_THREADS=1`` and
``OPENBLAS_NUM_THREADS=1`` before numpy is imported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.builds.build import Limits, read_config
from enginebench.reference.ops import ArrayOps
from enginebench.reference.options import ReferenceOptions, options_from_config
from enginebench.reference.tokenizer import ReferenceTokenizer
from enginebench.reference.weights import read_weights

_ROTARY_BASE = 10_000.0

Attend: TypeAlias = Callable[[int, Any, Any, Any], Any]
"""Layer, queries (tokens, heads, dim), keys and values (tokens, kv_heads, dim) → attention's answer, as queries."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence to compute now: those from position ``start`` on, whose KV is not yet in ``slot``."""

    slot: int
    start: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """What a step says of the token after each span: valid until the next step."""

    best: Sequence[int]  # the likeliest id, by span
    logits: Sequence[Any]  # (vocab_size,) by span, where the engine computes
    on_host: Callable[[Any], Any]

    def row(self, index: int) -> NDArray[Any]:
        """Return the logits after the span ``index``."""
        return np.asarray(self.on_host(self.logits[index]))


def load_engine(directory: Path) -> "Engine":
    """Load a reference build. Raises BuildError when ``directory`` is none, is damaged, or cannot run here."""
    options = options_from_config(read_config(directory))
    if options.device == "cuda":
        from enginebench.reference.cuda import open_cuda_engine

        return open_cuda_engine(options)
    return Engine(options, read_weights(directory / "rank0.engine", options))


class Engine:
    """Weights and KV cache; used by one thread."""

    def __init__(self, options: ReferenceOptions, weights: Mapping[str, Any], ops: ArrayOps | None = None) -> None:
        self.options = options
        self.limits = Limits(options.max_batch_size, options.max_input_len, options.max_seq_len)
        self._ops = ops or _numpy_ops(options.dtype)
        self._weights = {name: self._ops.array(tensor) for name, tensor in weights.items()}
        self._head_dim = options.hidden // options.heads
        # One position more than a sequence may have: where ``decode`` puts the tokens of slots that compute nothing.
        positions = options.max_seq_len + 1
        shape = (options.layers, options.max_batch_size, options.kv_heads, positions, self._head_dim)
        self._keys, self._values = self._ops.zeros(shape), self._ops.zeros(shape)
        self._slots = self._ops.ids(np.arange(options.max_batch_size))
        self._cos, self._sin = map(self._ops.array, _rotary_tables(positions, self._head_dim))
        self._hidden, self._seen = self._ops.array(-float("inf")), self._ops.array(0.0)
        self._characters = ReferenceTokenizer(options.vocab_size).plain_ids

    def facts(self) -> dict[str, Any]:
        """Where and in what it computes, and the bytes that it holds: of weights, and of the KV pool, filled or not."""
        pool = self._keys.nbytes + self._values.nbytes
        positions = self._keys.shape[1] * self._keys.shape[3]
        return {
            "device": self.options.device,
            "dtype": self.options.dtype,
            "weight_bytes": sum(tensor.nbytes for tensor in self._weights.values()),
            "kv_pool_bytes": pool,
            "kv_pool_tokens": self.options.max_batch_size * self.options.max_seq_len,
            "kv_bytes_per_token": pool // positions,
        }

    def forward(self, spans: Sequence[Span]) -> Scores:
        """Compute ``spans``, fill their KV, and score the token after each span's last.

        Only CJK characters can be said: all other ids (padding, end, bytes, beyond the characters) get minus infinity.
        """
        ops = self._ops
        positions = ops.ids([span.start + i for span in spans for i in range(len(span.token_ids))])
        ids = ops.ids([token_id for span in spans for token_id in span.token_ids])
        x = self._run(ids, positions, partial(self._attend_spans, spans))
        ends = np.cumsum([len(span.token_ids) for span in spans]) - 1
        best, logits = self._score(ops.xp.take(x, ops.ids(ends), axis=0))
        return Scores(best.tolist(), logits, ops.on_host)

    def decode(self, ids: Any, positions: Any, context: int) -> tuple[Any, Any]:
        """Compute one token of each of the slots 0 to n - 1: ``ids`` and ``positions`` (n,), all below ``context``.

        A slot without a token has the position max_seq_len, and an answer that means nothing. Returns the best ids (n,)
        and the logits (n, vocab_size), on the device; reads nothing from it.
        """
        xp, kv_heads = self._ops.xp, self.options.kv_heads
        future = xp.arange(context, device=self._ops.device)[None, :] > positions[:, None]
        mask = xp.where(future, self._hidden, self._seen)
        by_head = xp.reshape(xp.repeat(mask, kv_heads, axis=0), (-1, 1, context))
        return self._score(self._run(ids, positions, partial(self._attend_slots, positions, by_head)))

    def _run(self, ids: Any, positions: Any, attend: Attend) -> Any:
        """The residual stream (tokens, hidden) after all layers."""
        ops, weights = self._ops, self._weights
        x = ops.xp.take(weights["embedding"], ids, axis=0)
        turn = (ops.xp.take(self._cos, positions, axis=0), ops.xp.take(self._sin, positions, axis=0))
        for layer in range(self.options.layers):
            name = f"layers.{layer}."
            qkv = ops.norm(x, weights[name + "attention_norm"]) @ weights[name + "qkv"]
            mixed = attend(layer, *self._split(qkv, turn))
            x = ops.add_product(x, ops.xp.reshape(mixed, x.shape), weights[name + "out"])
            gate_up = ops.norm(x, weights[name + "ffn_norm"]) @ weights[name + "gate_up"]
            x = ops.add_product(x, ops.swiglu(gate_up), weights[name + "down"])
        return x

    def _split(self, qkv: Any, turn: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        """Queries and keys, both turned by the rotary embedding (Su et al. 2021), and values."""
        xp, heads, kv_heads = self._ops.xp, self.options.heads, self.options.kv_heads
        by_head = xp.reshape(qkv, (qkv.shape[0], heads + 2 * kv_heads, self._head_dim))
        straight = by_head[:, : heads + kv_heads, :]
        cos, sin = turn
        turned = straight * cos + xp.roll(straight, self._head_dim // 2, axis=-1) * sin
        return turned[:, :heads, :], turned[:, heads:, :], by_head[:, heads + kv_heads :, :]

    def _attend_spans(self, spans: Sequence[Span], layer: int, queries: Any, keys: Any, values: Any) -> Any:
        """Grouped-query attention (Ainslie et al. 2023), sequence by sequence."""
        xp, parts, begin = self._ops.xp, [], 0
        for span in spans:
            end, context = begin + len(span.token_ids), span.start + len(span.token_ids)
            for cache, new in ((self._keys, keys), (self._values, values)):
                cache[layer, span.slot, :, span.start : context, :] = xp.permute_dims(new[begin:end, ...], (1, 0, 2))
            known = (cache[layer, span.slot, :, :context, :] for cache in (self._keys, self._values))
            parts.append(self._ops.attend(queries[begin:end, ...], *known))
            begin = end
        return xp.concat(parts, axis=0)

    def _attend_slots(self, positions: Any, mask: Any, layer: int, queries: Any, keys: Any, values: Any) -> Any:
        """Grouped-query attention of one token of each of the first slots, all at once."""
        xp, (n, kv_heads, dim), context = self._ops.xp, keys.shape, mask.shape[-1]
        known: list[Any] = []
        for cache, new in ((self._keys, keys), (self._values, values)):
            of_layer = cache[layer, ...]
            of_layer[self._slots[:n], :, positions, :] = new
            known.append(xp.reshape(of_layer[:n, :, :context, :], (n * kv_heads, context, dim)))
        return self._ops.attend_slots(xp.reshape(queries, (n * kv_heads, -1, dim)), known[0], known[1], mask)

    def _score(self, x: Any) -> tuple[Any, Any]:
        """The best id (n,) and the logits (n, vocab_size) of the residual stream (n, hidden) of last tokens."""
        logits = self._ops.widened(self._ops.norm(x, self._weights["norm"]) @ self._weights["head"])
        logits[:, : self._characters.start] = -float("inf")
        logits[:, self._characters.stop :] = -float("inf")
        return self._ops.xp.argmax(logits, axis=-1), logits


def _numpy_ops(dtype: str) -> ArrayOps:
    import array_api_compat.numpy

    return ArrayOps(array_api_compat.numpy, dtype)


def _rotary_tables(positions: int, dim: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines and sines (positions, 1, dim): x turns to x * cos + (x with its halves swapped) * sin."""
    half = dim // 2
    frequencies = _ROTARY_BASE ** -(np.arange(half) / half)
    angles = np.arange(positions)[:, None, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)
