"""Layers of a small decoder-only transformer with their KV cache: RMSNorm, rotary embedding, GQA, SwiGLU.

A stage of a pipeline, or all of a model. One forward pass takes any mix of prompt chunks and single decode tokens,
packed without padding; attention runs per sequence, so a sequence's result does not depend on what else is in the batch
beyond the last bits of a matrix product. ``decode`` is the same pass in arrays of fixed shapes, for engines that record
it once (``reference.cuda``). Written against the array API (``reference.ops``). Schedules nothing and samples nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.reference.ops import ArrayOps
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.tokenizer import ReferenceTokenizer

_ROTARY_BASE = 10_000.0

Attend: TypeAlias = Callable[[int, Any, Any, Any], Any]
"""Layer, queries (tokens, heads, dim), keys and values (tokens, kv_heads, dim) → attention's answer, as queries."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence to compute now: those from position ``start`` on, whose KV is not yet in ``slot``."""

    slot: int
    start: int
    token_ids: tuple[int, ...]


class Stage:
    """The ``layers`` of a model with their KV cache, on the device of ``ops``.

    A stage is given what the one before it hands on: the residual stream (tokens, hidden). The first is given ids, and
    embeds them; the last hands on the best ids (n,) and the logits (n, vocab_size).
    """

    def __init__(self, options: ReferenceOptions, layers: range, weights: Mapping[str, Any], ops: ArrayOps) -> None:
        self.ops = ops
        self.first, self.last = "embedding" in weights, "head" in weights
        self._options = options
        self._layers = layers
        self._weights = {name: ops.array(tensor) for name, tensor in weights.items()}
        self._head_dim = options.hidden // options.heads
        # One position more than a sequence may have: where ``decode`` puts the tokens of slots that compute nothing.
        positions = options.max_seq_len + 1
        shape = (len(layers), options.max_batch_size, options.kv_heads, positions, self._head_dim)
        self._keys, self._values = ops.zeros(shape), ops.zeros(shape)
        self._slots = ops.ids(np.arange(options.max_batch_size))
        self._cos, self._sin = map(ops.array, _rotary_tables(positions, self._head_dim))
        self._hidden, self._seen = ops.array(-float("inf")), ops.array(0.0)
        self._characters = ReferenceTokenizer(options.vocab_size).plain_ids

    @property
    def weight_bytes(self) -> int:
        """Bytes of its weights."""
        return int(sum(tensor.nbytes for tensor in self._weights.values()))

    @property
    def pool_bytes(self) -> int:
        """Bytes of its KV cache, filled or not."""
        return int(self._keys.nbytes + self._values.nbytes)

    def forward(self, given: Any, spans: Sequence[Span]) -> Any:
        """Compute ``spans`` and fill their KV. ``given``: all their tokens; the last stage scores after each span."""
        positions = self.ops.ids([span.start + i for span in spans for i in range(len(span.token_ids))])
        x = self._run(self._entered(given), positions, partial(self._attend_spans, spans))
        if not self.last:
            return x
        ends = np.cumsum([len(span.token_ids) for span in spans]) - 1
        return self._scored(self.ops.xp.take(x, self.ops.ids(ends), axis=0))

    def decode(self, given: Any, positions: Any, context: int) -> Any:
        """Compute one token of each of the slots 0 to n - 1, at its place in ``positions`` (n,), below ``context``.

        A slot without a token has the position max_seq_len, and an answer that means nothing. Reads nothing from the
        device.
        """
        ops, kv_heads = self.ops, self._options.kv_heads
        future = ops.xp.arange(context, device=ops.device)[None, :] > positions[:, None]
        mask = ops.xp.where(future, self._hidden, self._seen)
        by_head = ops.xp.reshape(ops.xp.repeat(mask, kv_heads, axis=0), (-1, 1, context))
        x = self._run(self._entered(given), positions, partial(self._attend_slots, positions, by_head))
        return self._scored(x) if self.last else x

    def _entered(self, given: Any) -> Any:
        """The residual stream on this device."""
        if not self.first:
            return self.ops.array(given)
        return self.ops.xp.take(self._weights["embedding"], self.ops.ids(given), axis=0)

    def _run(self, x: Any, positions: Any, attend: Attend) -> Any:
        """The residual stream (tokens, hidden) after the layers."""
        ops, weights = self.ops, self._weights
        turn = (ops.xp.take(self._cos, positions, axis=0), ops.xp.take(self._sin, positions, axis=0))
        for place, layer in enumerate(self._layers):
            name = f"layers.{layer}."
            qkv = ops.norm(x, weights[name + "attention_norm"]) @ weights[name + "qkv"]
            mixed = attend(place, *self._split(qkv, turn))
            x = ops.add_product(x, ops.xp.reshape(mixed, x.shape), weights[name + "out"])
            gate_up = ops.norm(x, weights[name + "ffn_norm"]) @ weights[name + "gate_up"]
            x = ops.add_product(x, ops.swiglu(gate_up), weights[name + "down"])
        return x

    def _split(self, qkv: Any, turn: tuple[Any, Any]) -> tuple[Any, Any, Any]:
        """Queries and keys, both turned by the rotary embedding (Su et al. 2021), and values."""
        xp, heads, kv_heads = self.ops.xp, self._options.heads, self._options.kv_heads
        by_head = xp.reshape(qkv, (qkv.shape[0], heads + 2 * kv_heads, self._head_dim))
        straight = by_head[:, : heads + kv_heads, :]
        cos, sin = turn
        turned = straight * cos + xp.roll(straight, self._head_dim // 2, axis=-1) * sin
        return turned[:, :heads, :], turned[:, heads:, :], by_head[:, heads + kv_heads :, :]

    def _attend_spans(self, spans: Sequence[Span], place: int, queries: Any, keys: Any, values: Any) -> Any:
        """Grouped-query attention (Ainslie et al. 2023), sequence by sequence."""
        xp, parts, begin = self.ops.xp, [], 0
        for span in spans:
            end, context = begin + len(span.token_ids), span.start + len(span.token_ids)
            for cache, new in ((self._keys, keys), (self._values, values)):
                cache[place, span.slot, :, span.start : context, :] = xp.permute_dims(new[begin:end, ...], (1, 0, 2))
            known = (cache[place, span.slot, :, :context, :] for cache in (self._keys, self._values))
            parts.append(self.ops.attend(queries[begin:end, ...], *known))
            begin = end
        return xp.concat(parts, axis=0)

    def _attend_slots(self, positions: Any, mask: Any, place: int, queries: Any, keys: Any, values: Any) -> Any:
        """Grouped-query attention of one token of each of the first slots, all at once."""
        xp, (n, kv_heads, dim), context = self.ops.xp, keys.shape, mask.shape[-1]
        known: list[Any] = []
        for cache, new in ((self._keys, keys), (self._values, values)):
            of_layer = cache[place, ...]
            of_layer[self._slots[:n], :, positions, :] = new
            known.append(xp.reshape(of_layer[:n, :, :context, :], (n * kv_heads, context, dim)))
        return self.ops.attend_slots(xp.reshape(queries, (n * kv_heads, -1, dim)), known[0], known[1], mask)

    def _scored(self, x: Any) -> tuple[Any, Any]:
        """The best id (n,) and the logits (n, vocab_size) of the residual stream (n, hidden) of last tokens.

        Only CJK characters can be said: all other ids (padding, end, bytes, beyond the characters) get minus infinity.
        """
        logits = self.ops.widened(self.ops.norm(x, self._weights["norm"]) @ self._weights["head"])
        logits[:, : self._characters.start] = -float("inf")
        logits[:, self._characters.stop :] = -float("inf")
        return self.ops.xp.argmax(logits, axis=-1), logits


def _rotary_tables(positions: int, dim: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cosines and sines (positions, 1, dim): x turns to x * cos + (x with its halves swapped) * sin."""
    half = dim // 2
    frequencies = _ROTARY_BASE ** -(np.arange(half) / half)
    angles = np.arange(positions)[:, None, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)
