"""Engines of TensorRT-LLM 0.5 to 0.7 (``builder_config``, ``plugin_config``, ``{name}_{dtype}_tp{n}_rank{r}.engine``).

Nothing in such a directory says which release wrote it. The ``tp`` of a file name is the world size for some models.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.config import Config
from enginebench.builds.fingerprint import fingerprint
from enginebench.builds.model import Build, Limits, Shape
from enginebench.builds.sizes import kv_bytes_per_token, parameter_bytes
from enginebench.errors import BuildError

INT4_WEIGHTS, INT8_WEIGHTS, ACTIVATIONS, PER_CHANNEL, PER_TOKEN, PER_GROUP, INT8_KV, FP8_KV, FP8_QDQ = (
    1 << bit for bit in range(9)
)
"""Bits of ``quant_mode``; source: ``tensorrt_llm/quantization/mode.py`` of those releases."""

_ENGINE = re.compile(r"(?P<model>.+?)(_tp(?P<tp>\d+))?(_pp(?P<pp>\d+))?_rank(?P<rank>\d+)\.engine")
_WEIGHT_PLUGINS = ("weight_only_quant_matmul_plugin", "weight_only_groupwise_quant_matmul_plugin")


def read(name: str, config: Config) -> Build:
    """Read the build ``name`` from its ``config.json``. Raises BuildError."""
    _refuse_encoders(config)
    dtype = config.text("builder_config", "precision")
    plugins = config.section("plugin_config")
    shape = _shape(config)
    tp, pp, files = _engines(config)
    sizes = tuple(file.stat().st_size for file in files)
    mode = config.get("builder_config", "quant_mode")
    quantisation = _unnamed(config, plugins) if mode is None else algorithm(int(mode))
    kv_dtype = kv_type(int(mode or 0)) or dtype
    return Build(
        name=name,
        directory=config.directory,
        kind="tensorrt_llm",
        version=None,
        architecture=config.text("builder_config", "name"),
        dtype=dtype,
        limits=_limits(config),
        fingerprint=fingerprint([config.file, *files]),
        engine_bytes=sum(sizes),
        config=config.values,
        layout="builder_config",
        quantisation=quantisation,
        kv_dtype=kv_dtype,
        tp=tp,
        pp=pp,
        plugins=plugins,
        shape=shape,
        rank_bytes=sizes,
        parameter_bytes=parameter_bytes(shape, dtype, quantisation) or sum(sizes),
        kv_bytes_per_token=kv_bytes_per_token(shape, kv_dtype, tp),
        inflight_off=_inflight_off(plugins),
    )


def algorithm(mode: int) -> str | None:
    """The name that later releases have for the bits ``mode`` (without those of the KV cache); None: not quantised."""
    if mode & FP8_QDQ:
        return "FP8"
    if mode & INT8_WEIGHTS and mode & ACTIVATIONS:
        channel, token = mode & PER_CHANNEL, mode & PER_TOKEN
        return "W8A8_SQ" + ("_PER_CHANNEL" if channel else "_PER_TENSOR") + ("_PER_TOKEN" if token else "")
    if mode & INT8_WEIGHTS:
        return "W8A16"
    if mode & INT4_WEIGHTS:
        return "W4A16_GROUPWISE" if mode & PER_GROUP else "W4A16"
    return None


def kv_type(mode: int) -> str | None:
    """The type of the KV cache that the bits ``mode`` ask for; None: that of the activations."""
    if mode & INT8_KV:
        return "int8"
    return "fp8" if mode & FP8_KV else None


def _unnamed(config: Config, plugins: Mapping[str, Any]) -> str | None:
    """0.5 has no quant_mode for some models; what is left says that something is quantised, not always what."""
    if config.get("builder_config", "fp8"):
        return "FP8"
    weights = any(plugins.get(name) for name in _WEIGHT_PLUGINS)
    if config.get("builder_config", "int8"):
        return "W8A16" if weights else "W8A8_SQ"
    return "weight-only, width not recorded" if weights else None


def _refuse_encoders(config: Config) -> None:
    model = str(config.get("builder_config", "name") or "")
    if config.get("builder_config", "cross_attention") or "encoder" in model.lower():
        raise BuildError(
            f"{config.file} is of one half of an encoder-decoder model ({model}): only decoder-only models are "
            "measured here."
        )


def _limits(config: Config) -> Limits:
    max_input_len = config.number("builder_config", "max_input_len")
    return Limits(
        max_batch_size=config.number("builder_config", "max_batch_size"),
        max_input_len=max_input_len,
        max_seq_len=max_input_len + config.number("builder_config", "max_output_len"),
        max_num_tokens=config.count("builder_config", "max_num_tokens"),
        max_beam_width=config.count("builder_config", "max_beam_width"),
    )


def _shape(config: Config) -> Shape:
    def size(key: str) -> int | None:
        return config.count("builder_config", key)

    heads, hidden = size("num_heads"), size("hidden_size")
    kv_heads = size("num_kv_heads") or (1 if config.get("builder_config", "multi_query_mode") else heads)
    return Shape(
        layers=size("num_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_size=hidden // heads if hidden and heads else None,
        hidden=hidden,
        intermediate=size("inter_size"),  # hardly any model records it
        vocabulary=size("vocab_size"),
        gated=config.get("builder_config", "hidden_act") in ("silu", "swiglu", "swish"),
    )


def _engines(config: Config) -> tuple[int, int, list[Path]]:
    """Tensor and pipeline parallelism, and the engine file of each rank."""
    found = {file: match for file in _files(config.directory) if (match := _ENGINE.fullmatch(file.name))}
    models = sorted({match["model"] for match in found.values()})
    if len(models) > 1:
        raise BuildError(f"{config.directory} holds engines of {' and '.join(models)}: give a directory with one.")
    named = next(iter(found.values()), None)
    pp = config.count("builder_config", "pipeline_parallel") or int((named and named["pp"]) or 1)
    tp = config.count("builder_config", "tensor_parallel") or max(1, int((named and named["tp"]) or 1))
    by_rank = {int(match["rank"]): file for file, match in found.items()}
    missing = [rank for rank in range(tp * pp) if rank not in by_rank]
    if missing:
        raise BuildError(
            f"{config.directory} has no engine file of rank {missing[0]} (…_rank{missing[0]}.engine), though its "
            f"config.json has {tp} x {pp} ranks: build it again."
        )
    return tp, pp, [by_rank[rank] for rank in range(tp * pp)]


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.iterdir() if file.is_file())


def _inflight_off(plugins: Mapping[str, Any]) -> str | None:
    needed = ("paged_kv_cache", "remove_input_padding", "gpt_attention_plugin")
    off = [key for key in needed if not plugins.get(key)]
    return f"built without {', '.join(off)}" if off else None
