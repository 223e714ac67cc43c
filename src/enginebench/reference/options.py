"""What a reference build is made of, and how its ``config.json`` says so, in TensorRT-LLM's words. Touches no file."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import reduce
from itertools import pairwise
from operator import getitem
from typing import Any

from enginebench.builds.build import REFERENCE_VERSION
from enginebench.errors import BuildError
from enginebench.reference.tokenizer import MIN_VOCAB_SIZE

ARCHITECTURE = "ReferenceForCausalLM"
DTYPES = {"cpu": ("float64", "float32"), "cuda": ("float64", "float32", "float16", "bfloat16")}
MOST_LAYERS = 10_000
MOST_PARAMETERS = {"cpu": 2 * 10**9, "cuda": 10**12}
"""More is a slip, and would be drawn until memory or patience ends."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class ReferenceOptions:
    """What a reference build is made of; ``metadata["help"]`` says what a field is. Raises BuildError."""

    layers: int = _option(3, "decoder layers")
    hidden: int = _option(192, "width of the residual stream; a multiple of heads, and even for each head")
    heads: int = _option(4, "query heads; a multiple of kv_heads")
    kv_heads: int = _option(2, "key and value heads")
    ffn: int = _option(512, "width of the SwiGLU layer")
    vocab_size: int = _option(4096, "token ids: 258 for padding, end and bytes, then up to 20,989 CJK characters")
    max_batch_size: int = _option(8, "slots of the KV cache; requests beyond wait in a queue")
    max_input_len: int = _option(1024, "longest prompt, in tokens")
    max_seq_len: int = _option(2560, "longest prompt and output together, in tokens")
    max_num_tokens: int = _option(128, "tokens computed in one step, at most: longer prompts are prefilled in chunks")
    min_step_ms: float = _option(12.0, "a step takes at least this long (milliseconds); 0: as fast as it computes")
    dtype: str = _option(
        "float64",
        "what it computes in: float64 (batches of any size give the same tokens), float32; on cuda float16 or bfloat16",
    )
    device: str = _option("cpu", "where it computes: cpu, or cuda (needs torch; the weights are drawn when it loads)")
    pp_size: int = _option(1, "stages of a pipeline, each with its share of the layers on a GPU of its own; on cuda")
    seed: int = _option(0, "seed of the weights")

    @property
    def stages(self) -> tuple[range, ...]:
        """The layers of each stage, as even as can be: the first stages have one more."""
        size, more = divmod(self.layers, self.pp_size)
        ends = [size * place + min(place, more) for place in range(self.pp_size + 1)]
        return tuple(range(*each) for each in pairwise(ends))

    @property
    def _parameters(self) -> int:
        """Of the matrices."""
        attention = 2 * self.hidden * (self.hidden + self.kv_heads * self.hidden // self.heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn) + 2 * self.vocab_size * self.hidden

    def __post_init__(self) -> None:
        for problem, broken in self._checks():
            if broken:
                raise BuildError(f"A reference build cannot have {problem}.")

    def _checks(self) -> Iterator[tuple[str, bool]]:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name not in ("dtype", "device", "seed", "min_step_ms"):
                yield f"{item.name} {value}: use at least 1", value < 1
        yield f"min_step_ms {self.min_step_ms}: use 0 or more", not (0 <= self.min_step_ms < math.inf)
        yield f"seed {self.seed}: use 0 or more", self.seed < 0
        yield f"device {self.device!r}: use one of {', '.join(DTYPES)}", self.device not in DTYPES
        dtypes = DTYPES[self.device]
        yield f"dtype {self.dtype!r} on {self.device}: use one of {', '.join(dtypes)}", self.dtype not in dtypes
        yield f"pp_size {self.pp_size} on cpu: use 1, or the device cuda", self.device == "cpu" and self.pp_size > 1
        yield f"pp_size {self.pp_size} with {self.layers} layers: use at most as many", self.pp_size > self.layers
        yield f"{self.layers:,} layers: use at most {MOST_LAYERS:,}", self.layers > MOST_LAYERS
        most = MOST_PARAMETERS[self.device]
        yield f"{self._parameters:,} parameters on {self.device}: use at most {most:,}", self._parameters > most
        yield (
            f"hidden {self.hidden} with heads {self.heads}: use a multiple of 2 x heads",
            self.hidden % (2 * self.heads) != 0,
        )
        yield (
            f"heads {self.heads} with kv_heads {self.kv_heads}: use a multiple of kv_heads",
            self.heads % self.kv_heads != 0,
        )
        yield f"vocab_size {self.vocab_size}: use {MIN_VOCAB_SIZE} or more", self.vocab_size < MIN_VOCAB_SIZE
        too_short = self.max_seq_len <= self.max_input_len
        yield (
            f"max_seq_len {self.max_seq_len} with max_input_len {self.max_input_len}: use more than max_input_len",
            too_short,
        )
        too_few = self.max_num_tokens < self.max_batch_size
        yield (
            f"max_num_tokens {self.max_num_tokens} with max_batch_size {self.max_batch_size}: use at least as many",
            too_few,
        )


def options_from_config(config: Mapping[str, Any]) -> ReferenceOptions:
    """Return the options that a reference build's ``config.json`` records. Raises BuildError for any other."""
    if config.get("version") != REFERENCE_VERSION:
        raise BuildError(
            f"The build's version is {config.get('version')!r}, not {REFERENCE_VERSION!r}: it is no reference build."
        )
    return ReferenceOptions(**{name: _recorded(config, name, *place) for name, place in _PLACES.items()})


def _recorded(config: Mapping[str, Any], name: str, *place: str) -> Any:
    *sections, key = place
    for section in sections:
        config = config.get(section, {})
    value = config.get(key, _ABSENT.get(name))
    wanted: Mapping[str, tuple[type, ...]] = {"dtype": (str,), "device": (str,), "min_step_ms": (int, float)}
    if isinstance(value, bool) or not isinstance(value, wanted.get(name, (int,))):
        raise BuildError(
            f"The reference build's config.json says {'.'.join(place)} = {value!r}: write the build again."
        )
    return value


_PLACES: Mapping[str, tuple[str, ...]] = {
    "layers": ("pretrained_config", "num_hidden_layers"),
    "hidden": ("pretrained_config", "hidden_size"),
    "heads": ("pretrained_config", "num_attention_heads"),
    "kv_heads": ("pretrained_config", "num_key_value_heads"),
    "ffn": ("pretrained_config", "intermediate_size"),
    "vocab_size": ("pretrained_config", "vocab_size"),
    "dtype": ("pretrained_config", "dtype"),
    "device": ("build_config", "device"),
    "pp_size": ("pretrained_config", "mapping", "pp_size"),
    "seed": ("pretrained_config", "seed"),
    "max_batch_size": ("build_config", "max_batch_size"),
    "max_input_len": ("build_config", "max_input_len"),
    "max_seq_len": ("build_config", "max_seq_len"),
    "max_num_tokens": ("build_config", "max_num_tokens"),
    "min_step_ms": ("build_config", "min_step_ms"),
}
"""Where each option stands in config.json: TensorRT-LLM's names for what both engines have."""

_ABSENT = {"device": "cpu"}
"""What builds meant that were written before there was a choice."""


def config_from_options(options: ReferenceOptions) -> dict[str, Any]:
    """Return the ``config.json`` of a build with these options."""
    config: dict[str, Any] = {
        "version": REFERENCE_VERSION,
        "pretrained_config": {
            "architecture": ARCHITECTURE,
            "mapping": {"world_size": options.pp_size, "tp_size": 1},
            "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
        },
        "build_config": {
            "max_beam_width": 1,
            "plugin_config": {"paged_kv_cache": True, "remove_input_padding": True},
        },
    }
    for name, (*sections, key) in _PLACES.items():
        reduce(getitem, sections, config)[key] = getattr(options, name)
    return config
