"""What a session on TensorRT-LLM is opened with. Everything that changes a result has a value here, and is recorded.

Knows no version: an adapter says in its facts which of these its version could not be told.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from enginebench.errors import SessionError
from enginebench.runtimes.base import JsonValue

AdapterName = Literal["llm_api", "executor", "model_runner", "model_runner_cpp"]
ADAPTERS: tuple[AdapterName, ...] = ("llm_api", "executor", "model_runner", "model_runner_cpp")
POLICIES = ("guaranteed_no_evict", "max_utilization")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of ``open_session``; None: as the version decides."""

    directory: Path
    kind: str = "tensorrt_llm"  # an engine; "pytorch": a checkpoint for the PyTorch backend
    layout: str = "build_config"  # of the engine's configuration; "builder_config": of 0.5 to 0.7
    version: str | None = None  # that built the engine
    tp: int = 1
    pp: int = 1
    cp: int = 1
    kv_cache_tokens: int | None = None  # the exact size of the pool, which makes memory comparable
    kv_cache_fraction: float | None = None  # of the GPU memory that is free after loading
    kv_cache_reuse: bool = False
    scheduler_policy: str = "guaranteed_no_evict"
    chunked_context: bool = False
    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_input_len: int | None = None
    max_seq_len: int | None = None
    trust_remote_code: bool = False
    perf_metrics: bool = True  # the engine's own stamps of each request, where it has them
    iteration_statistics: bool = True  # where they cost nothing: the PyTorch backend's are off unless asked for
    llm_args: Mapping[str, Any] = field(default_factory=dict)  # a checkpoint's own arguments to the LLM
    adapter: AdapterName | None = None  # None: chosen by what the installed version has

    @property
    def world_size(self) -> int:
        """How many GPUs, and ranks, the build needs."""
        return self.tp * self.pp * self.cp

    def as_json(self) -> dict[str, JsonValue]:
        """For the record."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**values, "directory": str(self.directory)}


def settings_from(options: Mapping[str, Any]) -> Settings:
    """Check the options of a session. Raises SessionError for one that is missing, unknown or out of range."""
    known = {each.name for each in dataclasses.fields(Settings)}
    if unknown := sorted(set(options) - known):
        raise SessionError(f"The TensorRT-LLM runtime has no option {unknown[0]!r}: use {', '.join(sorted(known))}.")
    if not isinstance(options.get("directory"), str):
        raise SessionError("The TensorRT-LLM runtime needs the option 'directory': the path of an engine build.")
    settings = Settings(**{**options, "directory": Path(options["directory"])})
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.kind not in ("tensorrt_llm", "pytorch"):
        raise SessionError(f"The TensorRT-LLM runtime cannot run a build of kind {settings.kind!r}.")
    if settings.scheduler_policy not in POLICIES:
        raise SessionError(f"scheduler_policy {settings.scheduler_policy!r} is unknown: use {' or '.join(POLICIES)}.")
    if settings.adapter not in (None, *ADAPTERS):
        raise SessionError(f"adapter {settings.adapter!r} is unknown: use {', '.join(ADAPTERS)}.")
    if settings.kind == "pytorch" and settings.adapter not in (None, "llm_api"):
        raise SessionError(f"adapter {settings.adapter!r} runs engines, and no checkpoint: only llm_api does.")
    if min(settings.tp, settings.pp, settings.cp) < 1:
        raise SessionError("tp, pp and cp must be at least 1.")
    _check_pool(settings)


def _check_pool(settings: Settings) -> None:
    if settings.kv_cache_tokens is not None and settings.kv_cache_tokens < 1:
        raise SessionError(f"kv_cache_tokens {settings.kv_cache_tokens} must be at least 1.")
    if settings.kv_cache_tokens is not None and settings.kv_cache_fraction is not None:
        raise SessionError("kv_cache_tokens and kv_cache_fraction both size the KV pool: give one of them.")
    if settings.kv_cache_fraction is not None and not 0 < settings.kv_cache_fraction < 1:
        raise SessionError(f"kv_cache_fraction {settings.kv_cache_fraction} must lie between 0 and 1.")
