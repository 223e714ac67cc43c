"""How the engine of a build is run in process: which runtime, with which options, on how many ranks.

Starts nothing. What the build's configuration does not decide is said here, so that no version's default decides it.
"""

import re
from typing import Any

from enginebench.builds.build import Build
from enginebench.errors import BuildError
from enginebench.measure.world import World

KV_CACHE_FRACTION = 0.9
"""Of the GPU memory that is free after loading: what TensorRT-LLM takes when it is told nothing."""

FIRST_WITH_LLM_API = (0, 15)
"""From this version on the library starts the ranks of an engine itself."""


def runtime_of(build: Build) -> tuple[str, dict[str, Any]]:
    """The runtime that drives ``build`` directly, and the options that its session is opened with."""
    if build.kind == "reference":
        return "reference", {"directory": str(build.directory)}
    return "tensorrt_llm", _options(build)


def world_of(build: Build) -> World | None:
    """The ranks that must be started together for ``build``; None: one process does.

    Raises BuildError for an engine on several ranks that is too old to be run on them.
    """
    if build.kind != "tensorrt_llm" or build.world_size == 1 or _release(build.version) >= FIRST_WITH_LLM_API:
        return None
    if build.layout == "builder_config":
        raise BuildError(
            f"Build {build.name} ({build.directory}) needs {build.world_size} ranks, and engines of TensorRT-LLM "
            "before 0.8 are run on one: build it again with 0.9 or later."
        )
    runtime, options = runtime_of(build)
    return World(build.world_size, runtime, options)


def _options(build: Build) -> dict[str, Any]:
    limits = build.limits
    given = dict(build.llm_args)
    sized = "kv_cache_config" in given or build.layout == "builder_config"
    return {
        "directory": str(build.directory),
        "kind": build.kind,
        "layout": build.layout,
        "version": build.version,
        "tp": build.tp,
        "pp": build.pp,
        "cp": build.cp,
        "kv_cache_fraction": None if sized else KV_CACHE_FRACTION,
        "max_batch_size": limits.max_batch_size,
        "max_num_tokens": limits.max_num_tokens,
        "max_input_len": limits.max_input_len,
        "max_seq_len": limits.max_seq_len,
        "trust_remote_code": build.trust_remote_code,
        "llm_args": given,
        "adapter": "model_runner" if build.inflight_off else None,  # whole batches are all that it can run
    }


def _release(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or "0")[:2])
