"""Baselines: runs made small enough to be kept in git, by hardware and name, under ``reports/baselines``.

A baseline holds what a comparison reads of run.json, and no request.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from enginebench.errors import RunError
from enginebench.files import write_text
from enginebench.plan.messages import did_you_mean
from enginebench.record.kinds import check, read_json
from enginebench.record.run import Baseline
from enginebench.run.machine import machine_slug
from enginebench.run_lookup import find_run
from enginebench.store import load_run

Json = Mapping[str, Any]

SCHEMA = "enginebench/baseline/1"
BASELINES = Path("reports") / "baselines"
_OF_A_RUN = ("id", "created", "finished", "interrupted", "command", "build", "attached_url", "environment", "plan")
_OF_A_CELL = ("per_round", "makespan_s", "batch_windows_s", "steady_window_s", "findings")
_OF_A_SESSION = ("path", "block", "facts", "memory", "kv_pool")


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as a comparison takes it. ``source``: ``run`` or ``baseline NAME``; ``directory``: None for a baseline."""

    data: Json
    source: str
    directory: Path | None


def save_baseline(run_dir: Path, root: Path, name: str | None = None, *, replace: bool = False) -> Path:
    """Keep the run in ``run_dir`` as the baseline ``name`` (default: its build's name) of its hardware.

    Raises:
        RunError: nothing was measured, the name is none or is taken, or the file cannot be written.
    """
    data = load_run(run_dir).data
    if all(cell["status"] != "measured" for cell in data["cells"].values()):
        raise RunError(f"Run {data['id']} has no measured cell: it cannot be a baseline; choose another run.")
    name = name or data["build"]["name"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise RunError(f"{name!r} cannot be a baseline's name: use letters, digits, '-', '_' and '.'.")
    file = root / BASELINES / machine_slug(data["environment"]) / f"{name}.json"
    if file.exists() and not replace:
        raise RunError(f"{file} exists: choose another --name, or replace it with --replace.")
    content = {"schema": SCHEMA, "name": name, "saved": _now(), "run": _small(data)}
    write_text(file, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return file


def all_baselines(root: Path) -> list[Path]:
    """The files of all baselines, by hardware and name."""
    return sorted((root / BASELINES).glob("*/*.json"))


def read_baseline(file: Path) -> Json:
    """The content of a baseline's file. Raises RunError."""
    try:
        data = read_json(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read ({error}): use an intact copy, or save the baseline again.") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise RunError(f"{file} is no baseline: its schema is {schema!r}, not {SCHEMA!r}.")
    check(data, Baseline, file)
    return dict(data)


def find_stored(text: str, root: Path, environment: Json | None = None) -> Stored:
    """The run or baseline that ``text`` means: a baseline's name or file, or what ``find_run`` takes.

    ``environment``: of the run that it is compared with, whose hardware is preferred among baselines of one name.

    Raises:
        RunError: nothing is meant, several are, or it cannot be read.
    """
    if (file := _named(text, root, environment)) is not None:
        data = read_baseline(file)
        return Stored(data["run"], f"baseline {data['name']}", None)
    try:
        directory = find_run(text, root)
    except RunError as error:
        names = [file.stem for file in all_baselines(root)]
        raise RunError(f"{error} No baseline has this name either; {did_you_mean(text, names)}") from None
    return Stored(load_run(directory).data, "run", directory)


def find_baseline(text: str, root: Path) -> Path:
    """The file of the baseline that ``text`` means, by its name or place. Raises RunError."""
    file = _named(text, root, None)
    if file is None:
        names = [each.stem for each in all_baselines(root)]
        raise RunError(f"There is no baseline {text!r} in {root / BASELINES}; {did_you_mean(text, names)}")
    return file


def _named(text: str, root: Path, environment: Json | None) -> Path | None:
    path = Path(text)
    if path.is_file() and path.name != "run.json":
        return path
    named = [file for file in all_baselines(root) if text in (file.stem, f"{file.parent.name}/{file.stem}")]
    here = [file for file in named if environment and file.parent.name == machine_slug(environment)]
    if len(here or named) > 1:
        places = ", ".join(f"{file.parent.name}/{file.stem}" for file in named)
        raise RunError(f"The baseline {text!r} exists for several machines: name one of {places}.")
    return next(iter(here or named), None)


def _small(run: Json) -> dict[str, Any]:
    ab = {key: run["ab"][key] for key in ("gated", "gate_source")} if run.get("ab") else None
    return {
        **{key: run[key] for key in _OF_A_RUN},
        "ab": ab,
        "sessions": [{key: each[key] for key in _OF_A_SESSION if key in each} for each in run["sessions"]],
        "cells": {cell_id: _small_cell(cell) for cell_id, cell in run["cells"].items()},
    }


def _small_cell(cell: Json) -> dict[str, Any]:
    small = {key: value for key, value in cell.items() if key not in _OF_A_CELL}
    metrics = {name: {key: value for key, value in each.items() if key != "per_round"}
               for name, each in cell["metrics"].items()}  # fmt: skip
    return {**small, "metrics": metrics}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
