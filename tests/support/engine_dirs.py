"""Engine directories of every era: the keys that those releases write, and no engine in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHATGLM3 = {
    "layers": 28, "heads": 32, "kv_heads": 2, "hidden": 4096, "intermediate": 13696, "vocabulary": 65024,
}  # fmt: skip
"""The shape of ChatGLM3-6B."""


def old_config(*, pp: int = 1, tp: int = 1, quant_mode: int | None = 0, **plugins: Any) -> dict[str, Any]:
    """``config.json`` as ``examples/chatglm/build.py`` of 0.6 and 0.7 writes it; ``quant_mode`` None: as 0.5 does."""
    builder: dict[str, Any] = {
        "fp8": False, "gather_all_token_logits": False, "hidden_act": "swiglu", "hidden_size": CHATGLM3["hidden"],
        "int8": False, "max_batch_size": 8, "max_beam_width": 1, "max_input_len": 1024, "max_num_tokens": 2048,
        "max_output_len": 1024, "max_position_embeddings": 2048, "multi_query_mode": False, "name": "chatglm3_6b",
        "num_heads": CHATGLM3["heads"], "num_kv_heads": CHATGLM3["kv_heads"], "num_layers": CHATGLM3["layers"],
        "opt_level": None, "parallel_build": False, "pipeline_parallel": pp, "precision": "float16",
        "quant_mode": quant_mode, "strongly_typed": False, "tensor_parallel": tp,
        "vocab_size": CHATGLM3["vocabulary"],
    }  # fmt: skip
    if quant_mode is None:
        for key in ("quant_mode", "max_num_tokens", "max_beam_width", "pipeline_parallel", "num_kv_heads"):
            del builder[key]
    return {
        "builder_config": builder,
        "plugin_config": {
            "context_fmha_type": 1, "gemm_plugin": "float16", "gpt_attention_plugin": "float16",
            "paged_kv_cache": True, "remove_input_padding": True, "tokens_per_block": 64,
            "use_custom_all_reduce": False, "weight_only_quant_matmul_plugin": False, **plugins,
        },
    }  # fmt: skip


def current_config(version: str = "0.16.0", **build_config: Any) -> dict[str, Any]:
    """``config.json`` as ``trtllm-build`` of 0.8 and later writes it, with the keys that ``version`` has."""
    release = tuple(int(part) for part in version.split(".")[:2])
    build: dict[str, Any] = {
        "max_input_len": 1024, "max_batch_size": 8, "max_beam_width": 1, "max_num_tokens": 8192, "opt_num_tokens": None,
        "strongly_typed": release >= (0, 13), "plugin_config": _plugins(),
    }  # fmt: skip
    if release < (0, 11):
        build["max_output_len"] = 1024
    else:
        build["max_seq_len"] = 2048
    if release >= (0, 13):
        build["kv_cache_type"] = "PAGED"
    if release >= (0, 10):
        build["auto_parallel_config"] = {"cluster_key": "A100-PCIe-80GB", "world_size": 1}
    build.update(build_config)
    mapping = {"world_size": 1, "tp_size": 1, "pp_size": 1}
    if release >= (0, 12):
        mapping |= {"cp_size": 1, "moe_tp_size": 1, "moe_ep_size": 1, "gpus_per_node": 8}
    return {"version": version, "pretrained_config": _pretrained(mapping), "build_config": build}


def parallel(config: dict[str, Any], tp: int, pp: int = 1, cp: int = 1) -> dict[str, Any]:
    """Spread a config of 0.8 or later over ranks."""
    sizes = {"world_size": tp * pp * cp, "tp_size": tp, "pp_size": pp, "cp_size": cp}
    config["pretrained_config"]["mapping"].update(sizes)
    return config


def quantised(config: dict[str, Any], algorithm: str | None, kv_algorithm: str | None = None) -> dict[str, Any]:
    """Quantise a config of 0.8 or later."""
    config["pretrained_config"]["quantization"].update(quant_algo=algorithm, kv_cache_quant_algo=kv_algorithm)
    return config


def _pretrained(mapping: Mapping[str, int]) -> dict[str, Any]:
    return {
        "architecture": "ChatGLMForCausalLM", "chatglm_version": "chatglm3", "dtype": "float16",
        "hidden_act": "swiglu", "hidden_size": CHATGLM3["hidden"], "intermediate_size": CHATGLM3["intermediate"],
        "logits_dtype": "float32", "mapping": dict(mapping), "max_position_embeddings": 8192,
        "num_attention_heads": CHATGLM3["heads"], "num_hidden_layers": CHATGLM3["layers"],
        "num_key_value_heads": CHATGLM3["kv_heads"],
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None, "group_size": 128},
        "vocab_size": CHATGLM3["vocabulary"],
    }  # fmt: skip


def _plugins() -> dict[str, Any]:
    return {
        "context_fmha": True, "gemm_plugin": "float16", "gpt_attention_plugin": "float16", "lora_plugin": None,
        "multiple_profiles": False, "nccl_plugin": None, "paged_kv_cache": True, "remove_input_padding": True,
        "tokens_per_block": 64, "use_paged_context_fmha": False,
    }  # fmt: skip


def checkpoint_config(**changes: Any) -> dict[str, Any]:
    """``config.json`` of a Hugging Face checkpoint (Llama 3.1 8B's shape)."""
    return {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "vocab_size": 128256, **changes,
    }  # fmt: skip


def write_engine(directory: Path, config: object, files: Mapping[str, bytes]) -> Path:
    """Write a build's directory: ``config`` (an object, or text as it is) and ``files``."""
    directory.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (directory / "config.json").write_text(text, encoding="utf-8")
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def write_old(directory: Path, config: object = None, *, ranks: int = 1, stem: str = "chatglm3_6b_float16_tp1") -> Path:
    """Write an engine of 0.5 to 0.7; ``stem``: what stands before ``_rank``."""
    files = {f"{stem}_rank{rank}.engine": b"old" * (rank + 1) for rank in range(ranks)}
    return write_engine(directory, config or old_config(), files | {"model.cache": b"timings"})


def write_current(directory: Path, config: object = None, *, ranks: int = 1) -> Path:
    """Write an engine of 0.8 or later."""
    return write_engine(
        directory,
        config or current_config(),
        {f"rank{rank}.engine": b"weights" * (rank + 1) for rank in range(ranks)},
    )


def write_checkpoint(directory: Path, config: object = None, llm_args: str | None = None) -> Path:
    """Write a Hugging Face checkpoint, with LLM arguments as YAML beside it."""
    files = {"model-00001-of-00002.safetensors": b"a" * 10, "model-00002-of-00002.safetensors": b"b" * 6}
    write_engine(directory, config or checkpoint_config(), files)
    if llm_args is not None:
        (directory / "llm_args.yaml").write_text(llm_args, encoding="utf-8")
    return directory
