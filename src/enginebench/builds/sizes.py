"""Bytes of weights and of KV cache from a model's shape. Pure; estimates, never what a card was seen to use."""

import math

from enginebench.builds.model import Shape

_BITS = {
    "float64": 64, "float32": 32, "float16": 16, "half": 16, "bfloat16": 16, "auto": 16,
    "int8": 8, "fp8": 8, "float8_e4m3fn": 8, "int4": 4, "fp4": 4, "nvfp4": 4,
}  # fmt: skip


def bits_of(dtype: str | None) -> int | None:
    """Bits of one value; None for a type that is not known here."""
    return _BITS.get((dtype or "").lower())


def weight_bits(quantisation: str | None, dtype: str) -> int | None:
    """Bits of one weight of a linear layer under a quantisation algorithm, its scales aside; None when unknown."""
    if quantisation is None:
        return bits_of(dtype)
    name = quantisation.upper()
    if name.startswith(("W4", "NVFP4", "MXFP4", "INT4")):
        return 4
    if name.startswith(("W8", "FP8", "INT8", "MXFP8")):
        return 8
    return None  # MIXED_PRECISION, and what is to come


def kv_bytes_per_token(shape: Shape, kv_dtype: str | None, tp: int = 1) -> int | None:
    """Bytes that one token occupies in the KV cache, over all ranks; None where the shape does not say.

    2 (key, value) x layers x KV heads x head size x bytes. With fewer KV heads than tensor-parallel ranks each rank
    holds one whole head, and every rank holds the whole latent of multi-head latent attention.
    """
    bits = bits_of(kv_dtype)
    if bits is None or shape.layers is None:
        return None
    if shape.kv_latent is not None:
        return math.ceil(shape.layers * shape.kv_latent * tp * bits / 8)
    if shape.kv_heads is None or shape.head_size is None:
        return None
    heads = math.ceil(shape.kv_heads / tp) * tp
    return math.ceil(2 * shape.layers * heads * shape.head_size * bits / 8)


def parameter_bytes(shape: Shape, dtype: str, quantisation: str | None) -> int | None:
    """Estimated bytes of all weights; None where the shape does not say.

    Linear layers in the quantised width, embeddings and head in ``dtype``; norms, biases and scales are left out.
    """
    plain, packed = bits_of(dtype), weight_bits(quantisation, dtype)
    known = (shape.layers, shape.heads, shape.kv_heads, shape.head_size, shape.hidden, shape.intermediate)
    if plain is None or packed is None or shape.vocabulary is None or None in known:
        return None
    layers, heads, kv_heads, head_size, hidden, intermediate = (value or 0 for value in known)
    attention = hidden * head_size * (2 * heads + 2 * kv_heads)
    feed_forward = (3 if shape.gated else 2) * hidden * intermediate * (shape.experts or 1)
    tables = shape.vocabulary * hidden * (1 if shape.tied_embeddings else 2)
    return math.ceil((layers * (attention + feed_forward) * packed + tables * plain) / 8)
