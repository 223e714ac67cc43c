"""The weights of a reference build: their names and shapes, random values from a seed, and the file that holds them.

The file is in the safetensors format (u64 header length, JSON header, raw tensors), little-endian float32. A build for
a GPU has an empty one: its weights are drawn where it is loaded.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import BuildError
from enginebench.reference.options import ReferenceOptions

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

LOGIT_SCALE = 2.0
"""Standard deviation of the random model's logits: a sharp but not degenerate distribution over thousands of tokens."""


def weight_shapes(options: ReferenceOptions) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor by its name; matrices are (in, out), for ``x @ matrix``."""
    hidden, head_dim = options.hidden, options.hidden // options.heads
    key_value = 2 * options.kv_heads * head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding": (options.vocab_size, hidden)}
    for layer in range(options.layers):
        shapes[f"layers.{layer}.qkv"] = (hidden, hidden + key_value)
        shapes[f"layers.{layer}.out"] = (hidden, hidden)
        shapes[f"layers.{layer}.gate_up"] = (hidden, 2 * options.ffn)
        shapes[f"layers.{layer}.down"] = (options.ffn, hidden)
        shapes[f"layers.{layer}.attention_norm"] = (hidden,)
        shapes[f"layers.{layer}.ffn_norm"] = (hidden,)
    return shapes | {"norm": (hidden,), "head": (hidden, options.vocab_size)}


def stage_of(name: str, stages: Sequence[range]) -> int:
    """Return which of ``stages``, given by their layers, holds a tensor: the first the embedding, the last the head."""
    kind, _, rest = name.partition(".")
    if kind == "layers":
        return next(place for place, layers in enumerate(stages) if int(rest.split(".")[0]) in layers)
    return 0 if kind == "embedding" else len(stages) - 1


def scale_of(name: str, shape: tuple[int, ...]) -> float | None:
    """Return the standard deviation of a tensor's random values; None: they are all ones."""
    if name.endswith("norm"):
        return None
    if name == "embedding":
        return 1.0
    return (LOGIT_SCALE if name == "head" else 1.0) / math.sqrt(shape[0])


def random_weights(options: ReferenceOptions) -> dict[str, NDArray[np.float32]]:
    """Draw the weights from ``options.seed``: normal, scaled by 1/sqrt(in), norms all ones."""
    generator = np.random.Generator(np.random.Philox(options.seed))
    return {name: _draw(name, shape, generator) for name, shape in weight_shapes(options).items()}


def write_weights(weights: Weights, file: Path) -> None:
    """Write ``file``; the same weights make the same bytes. Raises OSError."""
    header, offset = {}, 0
    for name, tensor in weights.items():
        end = offset + 4 * tensor.size
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": (offset, end)}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in weights.values():
            stream.write(np.ascontiguousarray(tensor, "<f4").tobytes())


def read_weights(file: Path, options: ReferenceOptions) -> dict[str, NDArray[np.float32]]:
    """Read the tensors that ``options`` call for. Raises BuildError when ``file`` is damaged or holds others."""
    try:
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        tensors = {name: _tensor(data, start, header[name], shape) for name, shape in weight_shapes(options).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{file} holds no weights that fit its config.json ({error}): write the build again."
        ) from error
    return tensors


def _draw(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    if (scale := scale_of(name, shape)) is None:
        return np.ones(shape, np.float32)
    return (generator.standard_normal(shape) * scale).astype(np.float32)


def _tensor(data: bytes, start: int, entry: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    begin, end = entry["data_offsets"]
    return np.frombuffer(data[start + begin : start + end], "<f4").reshape(shape)
