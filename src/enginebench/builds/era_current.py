"""Engines of 0.8 to 1.3rc (``version``, ``pretrained_config``, ``build_config``), and the reference engine.

Keys and their history: TensorRT-LLM's ``builder.py`` and ``models/modeling_utils.py`` of those releases.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.config import Config, read_object
from enginebench.builds.fingerprint import fingerprint
from enginebench.builds.model import Build, BuildKind, Limits, Shape
from enginebench.builds.sizes import kv_bytes_per_token, parameter_bytes
from enginebench.errors import BuildError

_NOT_DECODERS = ("Encoder", "Bert", "Roberta", "DecoderModel", "DiT", "Whisper")
_PLAIN_FEED_FORWARD = ("gelu", "relu", "fast-gelu", "squared-relu", "gelu_new", "gelu_fast")
_ALWAYS_GATED = ("Gemma",)  # though their hidden_act is plain "gelu"


def read(name: str, config: Config) -> Build:
    """Read the build ``name`` from its ``config.json``. Raises BuildError."""
    version = config.text("version")
    architecture = _architecture(config)
    dtype = config.text("pretrained_config", "dtype")
    limits = _limits(config)
    shape = _shape(config, architecture)
    tp, pp, cp = (config.count("pretrained_config", "mapping", f"{kind}_size") or 1 for kind in ("tp", "pp", "cp"))
    files = _engine_files(config, tp * pp * cp)
    sizes = tuple(file.stat().st_size for file in files)
    quantisation = config.get("pretrained_config", "quantization", "quant_algo")
    kv_algorithm = config.get("pretrained_config", "quantization", "kv_cache_quant_algo")
    kv_dtype = str(kv_algorithm).lower() if kv_algorithm else dtype
    plugins = config.section("build_config", "plugin_config")
    kind: BuildKind = "reference" if version.startswith("reference-") else "tensorrt_llm"
    return Build(
        name=name,
        directory=config.directory,
        kind=kind,
        version=version,
        architecture=architecture,
        dtype=dtype,
        limits=limits,
        fingerprint=fingerprint([config.file, *files, *_side_files(config.directory, len(files))]),
        engine_bytes=sum(sizes),
        config=config.values,
        layout="build_config",
        quantisation=_quantisation(quantisation, config.directory),
        kv_dtype=kv_dtype,
        tp=tp,
        pp=pp,
        cp=cp,
        plugins=plugins,
        shape=shape,
        rank_bytes=sizes,
        parameter_bytes=parameter_bytes(shape, dtype, quantisation) or sum(sizes),
        kv_bytes_per_token=kv_bytes_per_token(shape, kv_dtype, tp),
        inflight_off=None if kind == "reference" else _inflight_off(config, plugins),
    )


def _architecture(config: Config) -> str:
    architecture = config.text("pretrained_config", "architecture")
    if architecture.startswith(_NOT_DECODERS) or "Encoder" in architecture:
        raise BuildError(
            f"{config.file} is of {architecture}, an encoder or one half of an encoder-decoder model: "
            "only decoder-only models are measured here."
        )
    return architecture


def _limits(config: Config) -> Limits:
    max_input_len = config.number("build_config", "max_input_len")
    return Limits(
        max_batch_size=config.number("build_config", "max_batch_size"),
        max_input_len=max_input_len,
        max_seq_len=_max_seq_len(config, max_input_len),
        max_num_tokens=config.count("build_config", "max_num_tokens"),
        max_beam_width=config.count("build_config", "max_beam_width"),
    )


def _max_seq_len(config: Config, max_input_len: int) -> int:
    output_len = config.count("build_config", "max_output_len")  # 0.8 to 0.10
    if config.get("build_config", "max_seq_len") is None and output_len is not None:
        return max_input_len + output_len
    return config.number("build_config", "max_seq_len")


def _shape(config: Config, architecture: str) -> Shape:
    def size(key: str) -> int | None:
        return config.count("pretrained_config", key)

    heads, hidden = size("num_attention_heads"), size("hidden_size")
    experts = config.get("pretrained_config", "moe", "num_experts") or config.get(
        "pretrained_config", "moe_num_experts"
    )
    intermediate = config.get("pretrained_config", "moe_intermediate_size") if experts else None
    gated = architecture.startswith(_ALWAYS_GATED) or (
        config.get("pretrained_config", "hidden_act") not in _PLAIN_FEED_FORWARD
    )
    tied = ("tie_word_embeddings", "share_embedding_table")
    return Shape(
        layers=size("num_hidden_layers"),
        heads=heads,
        kv_heads=size("num_key_value_heads") or heads,
        head_size=size("head_size") or (hidden // heads if hidden and heads else None),
        hidden=hidden,
        intermediate=intermediate or size("intermediate_size"),
        vocabulary=size("vocab_size"),
        experts=experts or None,
        kv_latent=_kv_latent(config.section("pretrained_config")),
        gated=gated,
        tied_embeddings=any(config.get("pretrained_config", key) for key in tied),
    )


def _kv_latent(model: Mapping[str, Any]) -> int | None:
    rank = model.get("kv_lora_rank")
    return rank + (model.get("qk_rope_head_dim") or 0) if rank else None


def _engine_files(config: Config, from_sizes: int) -> list[Path]:
    world_size = config.count("pretrained_config", "mapping", "world_size") or from_sizes
    files = [config.directory / f"rank{rank}.engine" for rank in range(world_size)]
    for file in files:
        if not file.is_file():
            raise BuildError(
                f"{config.directory} has no {file.name}, though its config.json has world_size {world_size}: "
                "build it again."
            )
    return files


def _side_files(directory: Path, ranks: int) -> list[Path]:
    """Weights that are kept apart from the engine, and the map of mixed precision."""
    names = [f"rank{rank}_managed_weights.safetensors" for rank in range(ranks)]
    return [directory / name for name in [*names, "quant_cfg.json"] if (directory / name).is_file()]


def _quantisation(algorithm: Any, directory: Path) -> str | None:
    if not algorithm:
        return None
    file = directory / "quant_cfg.json"
    if algorithm != "MIXED_PRECISION" or not file.is_file():
        return str(algorithm)
    layers = Config(file, read_object(file)).section("quantized_layers").values()
    found = sorted({str(layer.get("quant_algo")) for layer in layers if isinstance(layer, Mapping)})
    return f"MIXED_PRECISION ({', '.join(found)})" if found else "MIXED_PRECISION"


def _inflight_off(config: Config, plugins: Mapping[str, Any]) -> str | None:
    """Why, after TensorRT-LLM's own rule (``ModelConfig::supportsInflightBatching``). What is missing is on here."""
    kind = config.get("build_config", "kv_cache_type")  # since 0.13
    paged = str(kind).upper() == "PAGED" if kind else plugins.get("paged_kv_cache", True)
    switches = {
        f"kv_cache_type {kind}" if kind else "paged_kv_cache off": paged,
        "remove_input_padding off": plugins.get("remove_input_padding", True),
        "gpt_attention_plugin off": plugins.get("gpt_attention_plugin", "auto"),
    }
    off = [text for text, value in switches.items() if value in (False, None, "disable")]
    return f"built with {', '.join(off)}" if off else None
