"""How much sessions of one build differ on this machine: A/A sessions, kept by hardware and workload, and read back.

A file under ``reports/noise/`` holds the numbers of every session, so that variances are worked out anew from all of
them; what makes a variance of them is in ``decide``.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from enginebench.decide.model import Endpoint, Noise
from enginebench.decide.noise import estimate_noise
from enginebench.errors import RunError
from enginebench.files import write_text
from enginebench.run.endpoints import DEFAULT_MARGIN, endpoint, samples_of, watched
from enginebench.run.machine import machine_slug, machine_words, workload_key

Json = Mapping[str, Any]

SCHEMA = "enginebench/noise/1"
NOISE = Path("reports") / "noise"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a machine's noise. ``pair_sd``: of the log ratio of two sessions in a row, by endpoint key."""

    noise: Noise
    sessions: int
    pair_sd: Mapping[str, float]


def noise_file(root: Path, environment: Json, name: str, scenario: Json) -> Path:
    """Where the sessions of a machine and a workload are kept."""
    return root / NOISE / machine_slug(environment) / f"{name}-{workload_key(scenario)}.json"


def keep_sessions(run: Json, root: Path) -> list[Path]:
    """Keep every block of ``run`` as a session of its build; return the files. A run that is kept already is kept once.

    Raises:
        RunError: nothing was measured, or the file cannot be read or written.
    """
    files = []
    for name, scenario in run["plan"]["scenarios"].items():
        cells = {cell_id: cell for cell_id, cell in run["cells"].items() if cell["scenario"] == name}
        sessions = _sessions({**run, "cells": cells})
        if sessions:
            file = noise_file(root, run["environment"], name, scenario)
            _add(file, _head(run, scenario), sessions)
            files.append(file)
    if not files:
        raise RunError(f"Run {run['id']} has no measured cell: nothing can be learnt about noise from it.")
    return files


def known_noise(root: Path, environment: Json, scenarios: Mapping[str, Json]) -> Known | None:
    """What is known of this machine with these scenarios (name → as in run.json); None: nothing.

    Raises:
        RunError: a file cannot be read.
    """
    files = [noise_file(root, environment, *each) for each in scenarios.items()]
    sessions = [session for file in files if file.is_file() for session in _read(file)["sessions"]]
    if not sessions:
        return None
    builds = {(each["fingerprint"], each["driver"]) for each in sessions}
    counts = [sum((each["fingerprint"], each["driver"]) == build for each in sessions) for build in builds]
    return Known(estimate_noise(_groups(sessions)), max(counts), _pair_sd(sessions))


def _head(run: Json, scenario: Json) -> dict[str, Any]:
    return {"schema": SCHEMA, "machine": machine_words(run["environment"]), "scenario": dict(scenario)}


def _sessions(run: Json) -> list[dict[str, Any]]:
    """A session a block: cell → name of a metric → value."""
    found: defaultdict[int, dict[str, dict[str, float]]] = defaultdict(dict)
    for each in watched((), (run,)):
        for sample in samples_of(run, each):
            if sample.value is not None and 0 < sample.value < math.inf and not sample.failed:
                found[sample.block].setdefault(each.cell_id, {})[each.name] = sample.value
    gpus = run["environment"].get("gpus") or [{}]
    about = {
        "run": run["id"],
        "created": run["created"],
        "build": run["build"]["name"],
        "fingerprint": run["build"]["fingerprint"],
        "driver": gpus[0].get("driver"),
    }
    return [{**about, "block": block, "values": values} for block, values in sorted(found.items())]


def _add(file: Path, head: Mapping[str, Any], sessions: Sequence[Json]) -> None:
    before = _read(file)["sessions"] if file.is_file() else []
    kept = [each for each in before if each["run"] != sessions[0]["run"]]
    write_text(file, json.dumps({**head, "sessions": [*kept, *sessions]}, ensure_ascii=False, indent=1) + "\n")


def _read(file: Path) -> Json:
    try:
        data: Json = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] == SCHEMA and isinstance(data["sessions"], list):
            return data
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{file} cannot be read ({error}): delete it and run enginebench noise again.") from error
    raise RunError(f"{file} has the schema {data['schema']!r}, not {SCHEMA!r}: delete it and run enginebench noise.")


def _groups(sessions: Sequence[Json]) -> dict[Endpoint, list[list[float]]]:
    """Sessions of one build and driver are a group."""
    found: defaultdict[Endpoint, defaultdict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for session in sessions:
        for cell_id, values in session["values"].items():
            for name, value in values.items():
                each = endpoint(cell_id, name, DEFAULT_MARGIN)
                found[each][session["fingerprint"], str(session["driver"])].append(value)
    return {each: list(groups.values()) for each, groups in found.items() if not each.exact}


def _pair_sd(sessions: Sequence[Json]) -> dict[str, float]:
    """From the sessions that followed each other in one run, two by two: the root mean square of their log ratios."""
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    for first, second in pairwise(sessions):
        if first["run"] != second["run"] or second["block"] != first["block"] + 1 or first["block"] % 2:
            continue
        for cell_id, values in first["values"].items():
            for name, value in values.items():
                other = second["values"].get(cell_id, {}).get(name)
                if other is not None:
                    ratios[endpoint(cell_id, name, DEFAULT_MARGIN).key].append(math.log(other / value))
    return {
        key: math.sqrt(sum(each**2 for each in found) / len(found)) for key, found in ratios.items() if len(found) > 1
    }
