"""The LLM API's model (``all_models/llmapi``): ``model.yaml`` filled for a checkpoint, the policy put where it works.

``decoupled`` in ``model.yaml`` alone is a trap: Triton reads it only while it completes configurations by itself, which
upstream's own launcher turns off. A stream then ends with its first event, and hangs.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.build import Build
from enginebench.errors import ServerError
from enginebench.server.filling import Demand, Value

MODEL_YAML = "1/model.yaml"

_POLICY = re.compile(r"^\s*model_transaction_policy\b", re.MULTILINE)


def with_policy(config: str) -> tuple[str, bool]:
    """The model's config.pbtxt with a decoupled policy, and whether it had to be added."""
    if _POLICY.search(config):
        return config, False
    return f"{config.rstrip()}\n\nmodel_transaction_policy {{ decoupled: true }}\n", True


def fill_model_yaml(template: str, build: Build, demand: Demand, tokenizer: Path) -> tuple[dict[str, Value], str]:
    """What ``model.yaml`` is told, and its text: the template's keys, then ours, then those of the build's own file.

    Raises:
        ServerError: the template is no YAML mapping, or something is to be set that it has not.
    """
    import yaml

    try:
        given = yaml.safe_load(template)
    except yaml.YAMLError as error:
        raise ServerError(f"The templates' model.yaml is no YAML ({error}): take them from upstream again.") from error
    if not isinstance(given, dict):
        raise ServerError("The templates' model.yaml holds no mapping: take them from upstream again.")
    keys = _keys(build, demand, tokenizer)
    data = {**given, **{name: value for name, (value, _) in keys.items()}}
    told = {name: Value(_text(value), source) for name, (value, source) in keys.items()}
    return told, yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _keys(build: Build, demand: Demand, tokenizer: Path) -> dict[str, tuple[Any, str]]:
    direct = "as on the path direct"
    keys: dict[str, tuple[Any, str]] = {
        "model": (str(build.directory.resolve()), "the build, where it lies"),
        "backend": ("pytorch", "the build is a checkpoint"),
        "tokenizer": (str(tokenizer), "the build's tokenizer"),
        "tensor_parallel_size": (build.tp, "the build"),
        "pipeline_parallel_size": (build.pp, "the build"),
        "kv_cache_config": (_pool(build, demand), direct),
        "scheduler_config": ({"capacity_scheduler_policy": demand.scheduler_policy.upper()}, direct),
        "enable_chunked_prefill": (demand.chunked_context, direct),
        "triton_config": ({"max_batch_size": 0, "decoupled": True}, "one prompt a request; or nothing streams"),
    }
    if build.trust_remote_code:
        keys["trust_remote_code"] = (True, "--trust-remote-code")
    limits = build.limits
    for name in ("max_batch_size", "max_num_tokens", "max_seq_len"):
        if (limit := getattr(limits, name)) is not None:
            keys[name] = (limit, direct)
    own = {name: (value, "the build's llm_args") for name, value in build.llm_args.items() if name != "kv_cache_config"}
    overrides = {name: (_typed(value), "--set") for (_, name), value in demand.overrides.items()}
    return {**keys, **own, **overrides}


def _pool(build: Build, demand: Demand) -> Mapping[str, Any]:
    size = {"max_tokens": demand.kv_cache_tokens, "free_gpu_memory_fraction": demand.kv_cache_fraction}
    own = dict(build.llm_args.get("kv_cache_config") or {})
    known = {name: value for name, value in size.items() if value is not None}
    return {**own, **known, "enable_block_reuse": demand.kv_cache_reuse}


def _typed(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ServerError(f"--set …={text!r} is no YAML value ({error}): quote it.") from error


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)
