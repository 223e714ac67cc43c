"""Names for a machine and a workload, under which what is known of them is kept."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from enginebench.decide.comparable import asked

Json = Mapping[str, Any]

_NOT_A_NAME = re.compile(r"\(.*?\)|CPU|@.*|Processor")


def machine_words(environment: Json) -> str:
    """``2 × NVIDIA H200, driver 550.54``, or the processor; from the environment of run.json."""
    gpus = environment.get("gpus") or []
    if not gpus:
        cpu = environment.get("cpu") or {}
        return f"{cpu.get('model') or environment.get('machine')}, {cpu.get('usable_cores')} cores"
    return f"{_gpu_names(gpus)}, driver {gpus[0].get('driver')}"


def machine_slug(environment: Json) -> str:
    """The hardware as a directory's name: ``nvidia-h200``, ``2x-nvidia-h200``, ``cpu-amd-epyc-7b13``."""
    gpus = environment.get("gpus") or []
    if gpus:
        return _slug(_gpu_names(gpus).replace(" × ", "x "))
    model = (environment.get("cpu") or {}).get("model") or environment.get("machine") or "unknown"
    return f"cpu-{_slug(_NOT_A_NAME.sub(' ', str(model)))}"


def workload_key(scenario: Json) -> str:
    """Eight digits of a hash of what a scenario asks of an engine; ``scenario`` as run.json has it."""
    return hashlib.sha256(json.dumps(asked(scenario), sort_keys=True).encode()).hexdigest()[:8]


def _gpu_names(gpus: Any) -> str:
    names = ", ".join(dict.fromkeys(str(gpu.get("name")) for gpu in gpus))
    return f"{len(gpus)} × {names}" if len(gpus) > 1 else names


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unknown"
