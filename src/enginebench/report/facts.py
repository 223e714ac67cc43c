"""What surrounds the numbers: memory by phase, environment, build, plan, sessions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.decide.comparable import attached_urls
from enginebench.report.cells import Json
from enginebench.report.figures import Section
from enginebench.report.summary import date, is_reference
from enginebench.report.units import DASH, count, scale_for, size
from enginebench.report.view import Column, Facts, Table, Text

PHASES = {"before_load": "Before load", "after_load": "After load", "peak": "Peak", "after_unload": "After unload"}
NAMES = {
    "os": "Operating system",
    "cpu": "CPU",
    "gpus": "GPU",
    "gpu_reason": "GPU note",
    "git": "Git",
    "dtype": "Data type",
    "python": "Python",
}


def memory_section(run: Json, _directory: Path | None) -> Section:
    """What each session's engine and server took, by phase."""
    table = _memory_table(run)
    return Section("memory", "Memory", _memory_sentence(run), tables=(table,) if table.rows else ())


def _memory_table(run: Json) -> Table:
    owners = [owner for session in run["sessions"] for owner in _owners(session)]
    amounts = [value for _, _, phases in owners for value in phases.values() if value]
    scale = scale_for("bytes", amounts)
    columns = [Column("Path", numeric=False), Column("Memory of", numeric=False)]
    columns += [Column(title, scale.symbol) for title in PHASES.values()]
    rows = []
    for path, owner, phases in owners:
        texts = [
            Text(DASH, "not sampled") if phases.get(key) is None else Text(scale.number(phases[key])) for key in PHASES
        ]
        rows.append((Text(path, path=path), Text(owner), *texts))
    return Table("Memory by phase", tuple(columns), tuple(rows))


def facts(run: Json) -> tuple[Facts, ...]:
    """Build, environment, command, plan and sessions, as names and values."""
    lists = [Facts("Build", _rows(run["build"])), Facts("Environment", _rows(run["environment"])), _run_facts(run)]
    lists += [
        Facts(f"Session: {session['path']}", _rows({"opened": _seconds(session), **(session.get("facts") or {})}))
        for session in run["sessions"]
    ]
    return tuple(one for one in lists if one.rows)


def _owners(session: Json) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    known = session.get("memory") or {}
    if known.get("gpu"):
        yield session["path"], "GPU, all of it", known["gpu"]
    for role, phases in (known.get("host") or {}).items():
        if phases:
            yield session["path"], f"{role} processes, host (RSS)", phases


def _memory_sentence(run: Json) -> str:
    if not run["sessions"]:
        return "No engine was loaded."
    memories = [(session.get("memory") or {}, session["path"]) for session in run["sessions"]]
    if not any(memory.get("gpu") for memory, _ in memories):
        reasons = [memory["gpu_reason"] for memory, _ in memories if memory.get("gpu_reason")]
        if reasons:
            return f"No GPU memory: {reasons[0]}. Host memory is the resident set of the processes."
        return "No GPU: GPU memory was not measured. Host memory is the resident set of the processes."
    peaks = [(memory["gpu"].get("peak"), path) for memory, path in memories if memory.get("gpu")]
    known = [(peak, path) for peak, path in peaks if peak is not None]
    if not known:
        return "GPU memory was sampled, but no peak was recorded."
    peak, path = max(known)
    return f"GPU memory peaks at {size(peak)}, on the {path} path. Host memory is the resident set of the processes."


def _seconds(session: Json) -> str | None:
    opened_s = session.get("opened_s")
    return None if opened_s is None else f"in {opened_s:.1f} s"


def _run_facts(run: Json) -> Facts:
    plan = run["plan"]
    points = (run.get("calibration") or {}).get("points", {})
    rows = [
        ("Command", " ".join(run["command"])),
        ("Set", plan.get("set") or "none"),
        ("Started", date(run["created"])),
        ("Finished", date(run["finished"]) if run["finished"] else "no"),
        ("Server", ", ".join(attached_urls(run)) or "managed by the run"),
        ("Calibration", f"at {count(len(points), 'load')}: {', '.join(points)}" if points else "none"),
        ("Run", run["id"]),
    ]
    if is_reference(run):
        rows.append(("Engine", "reference engine, not TensorRT-LLM"))
    return Facts("Run", tuple(rows))


def _rows(values: Json) -> tuple[tuple[str, str], ...]:
    return tuple(_flat(values, ""))


def _flat(values: Json, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{prefix} {_name(str(key), bool(prefix))}".strip()
        if isinstance(value, Mapping) and value:
            if key == "packages":
                yield name, ", ".join(f"{other} {one}" for other, one in value.items() if one)
            else:
                yield from _flat(value, name)
        else:
            yield name, _plain(str(key), value)


def _name(key: str, inner: bool) -> str:
    bare = key.removesuffix("_bytes")
    return NAMES.get(bare) or (bare.replace("_", " ") if inner else bare.replace("_", " ").capitalize())


def _plain(key: str, value: object) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and key.endswith("_bytes"):
        return size(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_item(one) for one in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _item(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{_name(str(key), True)} {_plain(str(key), one)}" for key, one in value.items())
    return str(value)
