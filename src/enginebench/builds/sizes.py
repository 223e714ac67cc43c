"""Bytes and floating-point operations from a model's shape. Pure; estimates, never what a card was seen to do.

Of a step only what matters on any card is counted: matrix products and attention, and each weight read once.
"""

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
    layers, tables = _layer_parameters(shape, shape.experts or 1), _table_parameters(shape)
    if plain is None or packed is None or layers is None or tables is None:
        return None
    return math.ceil((layers * packed + tables * (1 if shape.tied_embeddings else 2) * plain) / 8)


def step_weight_bytes(shape: Shape, dtype: str, quantisation: str | None) -> int | None:
    """Bytes of weights that a decode step must read at least: all layers and the head, each once.

    Of the embedding table a step reads single rows. None for a mixture of experts, where it depends on the tokens.
    """
    plain, packed = bits_of(dtype), weight_bits(quantisation, dtype)
    layers, head = _dense_parameters(shape), _table_parameters(shape)
    if plain is None or packed is None or layers is None or head is None:
        return None
    return math.ceil((layers * packed + head * plain) / 8)


def decode_flops(shape: Shape, context_tokens: float) -> float | None:
    """Operations for one more token after ``context_tokens``: 2 a parameter, and 4 x heads x head size a position.

    Kaplan et al. 2020 (arXiv:2001.08361), section 2.1, with the head and without embeddings. None as above.
    """
    layers, head = _dense_parameters(shape), _table_parameters(shape)
    if layers is None or head is None:
        return None
    return 2.0 * (layers + head) + _attention_flops(shape) * context_tokens


def prefill_flops(shape: Shape, prompt_tokens: int) -> float | None:
    """Operations for a prompt of ``prompt_tokens``: causal attention, and one token through the head. None as above."""
    layers, head = _dense_parameters(shape), _table_parameters(shape)
    if layers is None or head is None:
        return None
    attention = _attention_flops(shape) * prompt_tokens * (prompt_tokens + 1) / 2
    return 2.0 * layers * prompt_tokens + 2.0 * head + attention


def _attention_flops(shape: Shape) -> float:
    return 4.0 * (shape.layers or 0) * (shape.heads or 0) * (shape.head_size or 0)


def _dense_parameters(shape: Shape) -> int | None:
    """Parameters of all layers; None where a token uses only a part of them, or the shape does not say."""
    return None if shape.experts or shape.kv_latent else _layer_parameters(shape, 1)


def _layer_parameters(shape: Shape, experts: int) -> int | None:
    known = (shape.layers, shape.heads, shape.kv_heads, shape.head_size, shape.hidden, shape.intermediate)
    if None in known:
        return None
    layers, heads, kv_heads, head_size, hidden, intermediate = (value or 0 for value in known)
    attention = hidden * head_size * (2 * heads + 2 * kv_heads)
    feed_forward = (3 if shape.gated else 2) * hidden * intermediate * experts
    return layers * (attention + feed_forward)


def _table_parameters(shape: Shape) -> int | None:
    """Parameters of the embedding, and as many of the head."""
    return None if shape.vocabulary is None or shape.hidden is None else shape.vocabulary * shape.hidden
