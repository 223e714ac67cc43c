"""How the engine of a build is run in process: which runtime, with which options, on how many ranks.

Starts nothing. What the build's configuration does not decide is said here, so that no version's default decides it;
a command line may decide it otherwise.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from enginebench.builds.build import Build
from enginebench.errors import BuildError
from enginebench.measure.world import World
from enginebench.runtimes.tensorrt_llm.settings import settings_from

KV_CACHE_FRACTION = 0.9
"""Of the GPU memory that is free after loading: what TensorRT-LLM takes when it is told nothing."""

FIRST_WITH_LLM_API = (0, 15)
"""From this version on the library starts the ranks of an engine itself."""

FIRST_WITH_EXECUTOR = (0, 9)
"""Before this version a library runs whole batches, and decides for itself what memory they take."""


def _switch(text: str) -> bool:
    return {"on": True, "off": False}[text]


SETTINGS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "kv_cache_tokens": ("a number of tokens", int),
    "kv_cache_fraction": ("a fraction", float),
    "scheduler_policy": ("a policy", str),
    "chunked_context": ("on or off", _switch),
    "adapter": ("an adapter", str),
}
"""What a command line may decide for an engine: what the value is, and how it is read."""

LLM_ARGUMENTS = {
    "kv_cache_tokens": "kv_cache_config",
    "kv_cache_fraction": "kv_cache_config",
    "scheduler_policy": "scheduler_config",
    "chunked_context": "enable_chunked_prefill",
}
"""The argument in a checkpoint's own file that decides the same."""


def read_settings(texts: Sequence[str], build: Build, paths: Collection[str] = ("direct",)) -> dict[str, Any]:
    """Read the values of ``--engine``, each KEY=VALUE, for the engine of ``build``, which is started for ``paths``.

    Raises:
        BuildError: a text is not of that form, or no engine can be told.
        SessionError: a value is out of range.
    """
    given: dict[str, Any] = {}
    for text in texts:
        key, value = _read(text)
        if key in given:
            raise BuildError(f"--engine {key} is given twice: give it once.")
        given[key] = value
        if why := _cannot_be_told(build, key):
            raise BuildError(f"--engine {text} cannot be told to build {build.name}: {why}.")
    if given and not paths:
        raise BuildError("--engine is of no use here: a server that runs already keeps its own settings.")
    if given:
        settings_from(runtime_of(build, given)[1])
    return given


def reuses_no_kv_cache(build: Build) -> str | None:
    """Why the engine of ``build`` cannot reuse the KV cache of equal prefixes; None when it can."""
    if build.kind == "reference":
        return "the scenario asks for kv_cache_reuse, which the reference engine does not have"
    if _runs_whole_batches(build):
        return "the scenario asks for kv_cache_reuse, and the build runs whole batches, each with a new cache"
    return None


def runtime_of(build: Build, given: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """The runtime that drives ``build`` directly, and the options that its session is opened with.

    ``given``: settings that go before those chosen here, see ``read_settings``; also ``kv_cache_reuse``.
    """
    if build.kind == "reference":
        return "reference", {"directory": str(build.directory)}
    return "tensorrt_llm", _options(build, given or {})


def world_of(build: Build, given: Mapping[str, Any] | None = None) -> World | None:
    """The ranks that must be started together for ``build``; None: one process does.

    Raises BuildError where an adapter is asked for that starts no ranks with this version, nor is started by them.
    """
    runtime, options = runtime_of(build, given)
    if build.kind != "tensorrt_llm" or build.world_size == 1 or _starts_its_ranks(build, options["adapter"]):
        return None
    if options["adapter"] == "llm_api":
        raise BuildError(
            f"Build {build.name} ({build.directory}) needs {build.world_size} ranks, and the LLM API of before 0.15 is "
            "not run on several: leave out adapter=llm_api."
        )
    return World(build.world_size, runtime, options)


def check_gpus(build: Build, gpus: int | None) -> None:
    """Raise BuildError when ``build`` needs more GPUs than the ``gpus`` that there are; None: nobody knows."""
    if gpus is None or not build.on_gpu or build.world_size <= gpus:
        return
    raise BuildError(
        f"Build {build.name} ({build.directory}) needs {build.world_size} GPUs (tp {build.tp} × pp {build.pp} × "
        f"cp {build.cp}), and {gpus} can be seen here: run it where there are enough, or widen CUDA_VISIBLE_DEVICES."
    )


def visible_gpus(build: Build, found: Sequence[Any] | None) -> int | None:
    """How many of the host's GPUs ``found`` the interpreter of ``build`` sees; None when that cannot be known here."""
    several_hosts = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) > 1
    if found is None or several_hosts or len(build.launcher) > 1:  # a container has a view of its own
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return len(found)
    names = [name.strip() for name in visible.split(",")]
    return next((place for place, name in enumerate(names) if name in {"", "-1"}), len(names))  # as CUDA counts


def _read(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    if key not in SETTINGS:
        raise BuildError(f"--engine {text!r} names no setting: give one of {', '.join(SETTINGS)}, as KEY=VALUE.")
    what, read = SETTINGS[key]
    try:
        return key, read(value)
    except (KeyError, ValueError) as error:
        raise BuildError(f"--engine {text!r} needs {what}, as {key}=VALUE.") from error


def _cannot_be_told(build: Build, key: str) -> str | None:
    if build.kind == "reference":
        return "it is the reference engine, which has no such setting"
    if key != "adapter" and _runs_whole_batches(build):
        return "it runs whole batches, and its memory and schedule follow from these"
    if (argument := LLM_ARGUMENTS.get(key)) in build.llm_args:
        return f"its llm_args file decides {argument}, so say it there"
    return None


def _runs_whole_batches(build: Build) -> bool:
    if build.kind != "tensorrt_llm":
        return False
    old = build.version is not None and _release(build.version) < FIRST_WITH_EXECUTOR
    return old or build.layout == "builder_config" or bool(build.inflight_off)


def _starts_its_ranks(build: Build, adapter: str | None) -> bool:
    return adapter in (None, "llm_api") and _release(build.version) >= FIRST_WITH_LLM_API


def _options(build: Build, given: Mapping[str, Any]) -> dict[str, Any]:
    limits = build.limits
    arguments = dict(build.llm_args)
    sized = "kv_cache_config" in arguments or "kv_cache_tokens" in given or _runs_whole_batches(build)
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
        "llm_args": arguments,
        "adapter": "model_runner" if build.inflight_off else None,  # whole batches are all that it can run
        **given,
    }


def _release(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or "0")[:2])
