"""A build as sections of named facts: what ``enginebench build show`` prints, and what two builds are compared by.

Says what a user has to know before anything is loaded. Pure: no file is read, nothing is started.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from enginebench.builds.model import Build

Facts: TypeAlias = "dict[str, dict[str, Any]]"
"""Section → key → value, JSON throughout."""

OF_REFERENCE = ("min_step_ms", "device", "seed")
"""Keys of config.json that reference builds alone have."""


def build_facts(build: Build) -> Facts:
    """Everything that is known of ``build``, in the order in which it is shown; None where nothing is known."""
    return {
        "build": {
            "kind": build.kind,
            "layout": build.layout,
            "version": build.version,
            "architecture": build.architecture,
            "dtype": build.dtype,
            "quantisation": build.quantisation,
            "kv_dtype": build.kv_dtype,
            "in_flight_batching": build.inflight_off or "usable",
        },
        "parallelism": {"tp": build.tp, "pp": build.pp, "cp": build.cp},
        "limits": asdict(build.limits),
        "model": asdict(build.shape),
        "size": {
            "engine_bytes": build.engine_bytes,
            "rank_bytes": list(build.rank_bytes),
            "parameter_bytes": build.parameter_bytes,
            "kv_bytes_per_token": build.kv_bytes_per_token,
        },
        "plugins": dict(sorted(build.plugins.items())),
        "llm_args": dict(sorted(build.llm_args.items())),
        "reference": _of_reference(build),
    }


def build_json(build: Build, installed: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``build`` as one JSON object: its facts, where it lies, who loads it, and what there is to worry about."""
    return {
        "schema": "enginebench/build/1",
        "name": build.name,
        "directory": str(build.directory),
        "fingerprint": build.fingerprint,
        "launcher": list(build.launcher),
        "tokenizer": str(build.tokenizer) if build.tokenizer else None,
        "installed": dict(installed) if installed is not None else None,
        **build_facts(build),
        "concerns": list(concerns(build, installed)),
    }


def build_text(build: Build, installed: Mapping[str, str] | None = None) -> str:
    """``build`` as lines for a terminal; what is not known is left out."""
    lines = [f"{build.name}: {build.directory}", f"  fingerprint {build.fingerprint}"]
    lines.append(f"  loaded by {' '.join(build.launcher)}")
    lines += [f"    {name} {version}" for name, version in (installed or {}).items()]
    if build.kind != "reference":
        lines.append(f"  tokenizer {build.tokenizer or 'none found: give --tokenizer DIR'}")
    for section, values in build_facts(build).items():
        known = {key: value for key, value in values.items() if value not in (None, [], {})}
        if known:
            lines.append(f"{section}:")
            lines += [f"  {key} {value_text(key, value)}" for key, value in known.items()]
    return "\n".join(lines + [f"! {concern}" for concern in concerns(build, installed)]) + "\n"


def concerns(build: Build, installed: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """What may keep ``build`` from running as expected, one sentence each.

    ``installed``: distribution → version in the build's interpreter, when they are known.
    """
    found = []
    if build.inflight_off:
        found.append(f"In-flight batching cannot be used ({build.inflight_off}): requests run in static batches.")
    here = (installed or {}).get("tensorrt_llm")
    if installed is not None and here is None and build.kind != "reference":
        found.append(f"{' '.join(build.launcher)} has no tensorrt_llm: name an interpreter that has with python=….")
    if here and build.kind == "tensorrt_llm" and build.version and here != build.version:
        found.append(
            f"The engine was built by TensorRT-LLM {build.version}, and {' '.join(build.launcher)} has {here}, whose "
            "TensorRT will most likely refuse it: name the interpreter that built it with python=…, or build it again."
        )
    if build.kind == "tensorrt_llm" and build.version is None:
        found.append("Nothing in the directory says which TensorRT-LLM built it: 0.5 to 0.7, by its layout.")
    return tuple(found)


def _of_reference(build: Build) -> dict[str, Any]:
    """What only the builds of the reference engine decide; empty for others."""
    if build.kind != "reference":
        return {}
    settings = {**build.config.get("pretrained_config", {}), **build.config.get("build_config", {})}
    return {key: settings.get(key) for key in OF_REFERENCE}


def value_text(key: str, value: Any) -> str:
    """One value as people read it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ", ".join(value_text(key, each) for each in value)
    is_size = key.endswith("_bytes") or key == "kv_bytes_per_token"
    return size_text(value) if is_size and isinstance(value, int) else str(value)


def size_text(size: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.4g} {unit}"
    return f"{size} B"
