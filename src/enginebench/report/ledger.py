"""The memory ledger of each session: who holds which bytes, how that is known, and what was expected."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.report.cells import Json
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.units import DASH, GIB, MIB, MINUS, size
from enginebench.report.view import Column, Table, Text

LEAD = (
    "Who holds the GPU's memory once the engine is loaded. Each size is the runtime's own where it tells; else it is "
    "worked out, and the table says from what. What nobody tells is left over."
)
SHORT = {
    "KV pool, context, buffers and the rest": "KV pool and the rest",
    "KV pool, buffers and the rest": "KV pool and the rest",
    "context, buffers and the rest": "the rest",
    "buffers and the rest": "the rest",
}


def ledger_section(run: Json, _directory: Path | None) -> Section | None:
    """The ledgers of a run; None when no session has one of a GPU."""
    sessions = [session for session in run["sessions"] if _gpu_lines(session)]
    if not sessions:
        return None
    names = _names(sessions)
    figure = Figure(
        "memory-by-owner",
        "GPU memory by owner",
        _finding(sessions[0]),
        (_plot(sessions, names),),
        _table(sessions, names),
    )
    return Section("ledger", "Memory ledger", LEAD, (figure,), notes=tuple(_notes(run["sessions"])))


def _gpu_lines(session: Json) -> list[Mapping[str, Any]]:
    """The lines that add up to what is in use after loading."""
    return [line for line in session.get("ledger") or () if line["owner"] == "gpu" and line["bytes"] is not None]


def _names(sessions: Sequence[Json]) -> list[str]:
    """The path, with the block where there are several, and a number where that is not enough."""
    several = len({session.get("block", 0) for session in sessions}) > 1
    names: list[str] = []
    for session in sessions:
        name = f"{session['path']}, block {session['block']}" if several else str(session["path"])
        names.append(name if name not in names else f"{name} ({names.count(name) + 1})")
    return names


def _plot(sessions: Sequence[Json], names: Sequence[str]) -> Plot:
    parts = dict.fromkeys(line["what"] for session in sessions for line in _gpu_lines(session))
    marks = []
    for what in parts:
        held = [next((x["bytes"] for x in _gpu_lines(session) if x["what"] == what), 0) for session in sessions]
        values = tuple(max(0, one) / GIB for one in held)
        texts = tuple(f"{name}, {what}: {_size(one)}" for name, one in zip(names, held, strict=True))
        role = "muted" if what.endswith("rest") else ""
        marks.append(Marks(SHORT.get(what, what), "bars", values, tuple(names), texts=texts, role=role))
    return Plot(
        "GPU memory after loading",
        Axis("GPU memory", "GiB"),
        Axis("session"),
        tuple(marks),
        stacked=True,
        horizontal=True,
    )


def _finding(session: Json) -> str:
    lines = {line["what"]: line["bytes"] for line in _gpu_lines(session)}
    total = sum(lines.values())
    weights, pool = lines.get("weights"), lines.get("KV pool")
    parts = [f"{size(total)} are in use once the engine is loaded"]
    if weights:
        parts.append(f"{weights / total:.0%} of it weights")
    if pool:
        parts.append(f"{pool / total:.0%} KV pool")
    return ", ".join(parts) + "."


def _table(sessions: Sequence[Json], names: Sequence[str]) -> Table:
    columns = (
        Column("Session", numeric=False),
        Column("What", numeric=False),
        Column("Size"),
        Column("Expected"),
        Column("Source", numeric=False),
    )
    rows = []
    for session, name in zip(sessions, names, strict=True):
        for line in session["ledger"]:
            held, expected = line["bytes"], line.get("expected_bytes")
            rows.append(
                (
                    Text(name, path=session["path"]),
                    Text(line["what"]),
                    Text(DASH, line["source"]) if held is None else Text(_size(held)),
                    Text(DASH, "nothing to expect it from") if expected is None else Text(_size(expected)),
                    Text(line["source"]),
                )
            )
    return Table("Memory ledger", columns, tuple(rows))


def _size(amount: float) -> str:
    return f"{MINUS}{size(-amount)}" if amount < 0 else size(amount)


def _notes(sessions: Sequence[Json]) -> Iterator[str]:
    yield from dict.fromkeys(warning for session in sessions for warning in session.get("ledger_warnings") or ())
    for session in sessions:
        for role, slope in (session.get("host_slope_bytes_per_s") or {}).items():
            a_minute = abs(slope or 0) * 60
            if slope is not None and a_minute >= MIB:
                way = "falls" if slope < 0 else "grows"
                yield (
                    f"Host memory of {role} processes ({session['path']}) {way} by {a_minute / MIB:.1f} MiB a minute "
                    "while rounds are measured."
                )
