"""Checkpoints for TensorRT-LLM's PyTorch backend: Hugging Face's ``config.json``, weights, and LLM arguments as YAML.

The arguments are those of ``tensorrt_llm.LLM`` (what ``trtllm-serve --extra_llm_api_options`` takes), by default
``llm_args.yaml`` in the directory. Nothing is compiled, so what they leave out has no limit here: None.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.config import Config, read_object
from enginebench.builds.fingerprint import fingerprint
from enginebench.builds.model import Build, Limits, Shape
from enginebench.builds.sizes import kv_bytes_per_token
from enginebench.errors import BuildError

ARGUMENTS = "llm_args.yaml"
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def read(name: str, config: Config, arguments: Path | None = None) -> Build:
    """Read the checkpoint ``name``; ``arguments``: the YAML file in place of ``llm_args.yaml``. Raises BuildError."""
    file = arguments or config.directory / ARGUMENTS
    llm = Config(file, read_arguments(file) if arguments or file.is_file() else {})
    architecture = _architecture(config)
    weights = _weights(config.directory)
    dtype = _dtype(config, llm)
    shape = _shape(config)
    tp = llm.count("tensor_parallel_size") or 1
    algorithm, kv_algorithm = _quantisation(config)
    kv_dtype = _kv_dtype(llm, kv_algorithm, dtype)
    size = sum(weight.stat().st_size for weight in weights)
    described = [config.file, *([llm.file] if llm.values else []), *_side_files(config.directory)]
    return Build(
        name=name,
        directory=config.directory,
        kind="pytorch",
        version=None,
        architecture=architecture,
        dtype=dtype,
        limits=_limits(config, llm),
        fingerprint=fingerprint([*described, *weights]),
        engine_bytes=size,
        config=config.values,
        layout="checkpoint",
        quantisation=algorithm,
        kv_dtype=kv_dtype,
        tp=tp,
        pp=llm.count("pipeline_parallel_size") or 1,
        cp=llm.count("context_parallel_size") or 1,
        shape=shape,
        parameter_bytes=size,
        kv_bytes_per_token=kv_bytes_per_token(shape, kv_dtype, tp),
        llm_args=llm.values,
    )


def read_arguments(file: Path) -> Mapping[str, Any]:
    """Read a YAML file of LLM arguments. Raises BuildError unless it holds a mapping."""
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BuildError(f"{file} cannot be read as YAML ({reason}): give a mapping of LLM arguments.") from error
    if not isinstance(values, dict):
        raise BuildError(f"{file} holds no mapping: write LLM arguments, e.g. tensor_parallel_size: 2.")
    return values


def _weights(directory: Path) -> list[Path]:
    for pattern in _WEIGHTS:
        if files := sorted(directory.glob(pattern)):
            return files
    raise BuildError(f"{directory} has no *.safetensors: download the checkpoint's weights, or give an engine.")


def _side_files(directory: Path) -> list[Path]:
    return [file for file in (directory / "hf_quant_config.json",) if file.is_file()]


def _architecture(config: Config) -> str:
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else config.text("model_type")
    if config.get("is_encoder_decoder"):
        raise BuildError(
            f"{config.file} is of an encoder-decoder model ({architecture}): "
            "only decoder-only models are measured here."
        )
    return architecture


def _model(config: Config) -> Mapping[str, Any]:
    """The language model's part of a multimodal configuration, else all of it."""
    return config.section("text_config") or config.values


def _dtype(config: Config, llm: Config) -> str:
    model = _model(config)
    asked = llm.get("dtype")
    if asked and asked != "auto":
        return str(asked)
    found = model.get("dtype") or model.get("torch_dtype") or config.get("dtype") or config.get("torch_dtype")
    return str(found or "float16").removeprefix("torch.")


def _limits(config: Config, llm: Config) -> Limits:
    longest = _model(config).get("max_position_embeddings") or _model(config).get("seq_length")
    return Limits(
        max_batch_size=llm.count("max_batch_size"),
        max_input_len=llm.count("max_input_len"),
        max_seq_len=llm.count("max_seq_len") or longest,
        max_num_tokens=llm.count("max_num_tokens"),
        max_beam_width=llm.count("max_beam_width"),
    )


def _shape(config: Config) -> Shape:
    model = _model(config)

    def size(*keys: str) -> int | None:
        return next((model[key] for key in keys if isinstance(model.get(key), int) and model[key] > 0), None)

    heads, hidden = size("num_attention_heads"), size("hidden_size")
    latent = size("kv_lora_rank")
    return Shape(
        layers=size("num_hidden_layers", "num_layers"),
        heads=heads,
        kv_heads=size("num_key_value_heads", "multi_query_group_num") or heads,
        head_size=size("head_dim", "kv_channels") or (hidden // heads if hidden and heads else None),
        hidden=hidden,
        intermediate=size("moe_intermediate_size", "intermediate_size", "ffn_hidden_size"),
        vocabulary=size("vocab_size", "padded_vocab_size"),
        experts=size("num_local_experts", "n_routed_experts", "num_experts"),
        kv_latent=latent + (size("qk_rope_head_dim") or 0) if latent else None,
        tied_embeddings=bool(model.get("tie_word_embeddings")),
    )


def _quantisation(config: Config) -> tuple[str | None, str | None]:
    """Algorithm of the weights and of the KV cache: ModelOpt's own file, else what config.json says."""
    file = config.directory / "hf_quant_config.json"
    if file.is_file():
        modelopt = Config(file, read_object(file))
        return modelopt.get("quantization", "quant_algo"), modelopt.get("quantization", "kv_cache_quant_algo")
    section = config.section("quantization_config")
    named = section.get("quant_algo") or section.get("quant_method")
    return (str(named).upper() if named else None), section.get("kv_cache_quant_algo")


def _kv_dtype(llm: Config, algorithm: str | None, dtype: str) -> str:
    asked = llm.get("kv_cache_config", "dtype")
    if asked and asked != "auto":
        return str(asked)
    return str(algorithm).lower() if algorithm else dtype
