"""The tables of profiled reruns: gaps with their causes, kernels, operators, ranges, functions, files."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from enginebench.report.units import DASH, Scale
from enginebench.report.view import Column, Table, Text
from enginebench.store_profiles import Profile

MS = Scale("ms", 1e3, 1)
MOST_ROWS = 15
"""Of a table; the files have the rest."""

_LONGEST_NAME = 110  # characters of a kernel's name: templates make them endless


def tables(profiles: Sequence[Profile]) -> Iterator[Table]:
    """Every table of every profile that was taken, profile by profile, then the files of all."""
    for profile in profiles:
        if profile.taken:
            for name, make in _MAKERS.items():
                if profile.data.get(name):
                    yield make(profile, profile.data[name])
    yield _files(profiles)


def place(profile: Profile) -> str:
    """Which rerun a table is of."""
    return f"{profile.cell_id}, {profile.kind}"


def _gaps(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Gap", numeric=False),
        Column("Length", "ms"),
        Column("Into the round", "s"),
        Column("Cause", numeric=False),
        Column("Explains", "ms"),
        Column("Evidence", numeric=False),
    )
    started_ns = profile.data.get("started_ns")
    return Table(
        f"The longest gaps between tokens, and what caused them: {place(profile)}",
        columns,
        tuple(_gap(number, row, started_ns) for number, row in enumerate(rows, 1)),
    )


def _gap(number: int, row: Mapping[str, Any], started_ns: int | None) -> tuple[Text, ...]:
    explained_s = row["explained_s"]
    return (
        Text(f"{number}, {_requests(row)}", number=number),
        Text(MS.number(row["s"])),
        Text(DASH, "not known") if started_ns is None else Text(f"{(row['start_ns'] - started_ns) / 1e9:,.3f}"),
        Text(row["cause"]),
        Text(DASH, "not known") if explained_s is None else Text(MS.number(explained_s)),
        Text(row["evidence"]),
    )


def _requests(row: Mapping[str, Any]) -> str:
    """Whose gap it is: ``request 3``, ``requests 0, 1, 2, 3 and 4``."""
    *some, last = (str(request) for request in sorted((row["request"], *row.get("others", ()))))
    if not some:
        return f"request {last}"
    return f"requests {', '.join(some)} and {last}"


def _kernels(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column("Kernel", numeric=False), Column("Family", numeric=False), Column("Time", "ms"), Column("Calls"))
    return Table(
        f"Kernels that took most: {place(profile)}",
        columns,
        tuple(
            (_name(row["name"]), Text(row["family"]), Text(MS.number(row["s"])), Text(f"{row['calls']:,}"))
            for row in rows[:MOST_ROWS]
        ),
    )


def _operators(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = (
        Column("Operator", numeric=False),
        Column("Own time on the host", "ms"),
        Column("With those inside", "ms"),
        Column("Calls"),
    )
    return Table(
        f"Operators by their own time: {place(profile)}",
        columns,
        tuple(
            (_name(row["name"]), Text(MS.number(row["own_s"])), Text(MS.number(row["s"])), Text(f"{row['calls']:,}"))
            for row in rows[:MOST_ROWS]
        ),
    )


def _timed(caption: str, first: str, key: str) -> Callable[[Profile, Sequence[Mapping[str, Any]]], Table]:
    """A table of names with times and calls."""

    def make(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Table:
        columns = (Column(first, numeric=False), Column("Time", "ms"), Column("Calls"))
        shown = sorted(rows, key=lambda row: -row["s"])[:MOST_ROWS]
        texts = ((_name(row[key]), Text(MS.number(row["s"])), Text(f"{row['calls']:,}")) for row in shown)
        return Table(f"{caption}: {place(profile)}", columns, tuple(texts))

    return make


def _functions(profile: Profile, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = tuple(Column(title, numeric=False) for title in ("Function", "Thread", "File"))
    shown = [row for thread in dict.fromkeys(row["thread"] for row in rows) for row in _of_thread(rows, thread)]
    return Table(
        f"Python functions by their own time: {place(profile)}",
        (*columns, Column("Own time", "ms")),
        tuple(
            (Text(row["function"]), Text(row["thread"]), Text(row["place"]), Text(MS.number(row["s"]))) for row in shown
        ),
    )


def _of_thread(rows: Sequence[Mapping[str, Any]], thread: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["thread"] == thread][:MOST_ROWS]


def _files(profiles: Sequence[Profile]) -> Table:
    columns = tuple(Column(title, numeric=False) for title in ("Rerun", "State", "Where, in the run's directory"))
    return Table("What the reruns left", columns, tuple(_file_row(profile) for profile in profiles))


def _file_row(profile: Profile) -> tuple[Text, ...]:
    where = f"profiles/{profile.kind}/{profile.cell_id}"
    names = [*profile.data.get("files", ()), *(path.name for path in sorted(profile.directory.glob("*.parquet")))]
    said = profile.data.get("reason")
    kept = f"{where}/: {', '.join(dict.fromkeys(names))}" if names else f"{where}/"
    return Text(place(profile)), Text("taken" if profile.taken else f"not taken: {said}"), Text(kept)


def _name(text: str) -> Text:
    return Text(text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…")


_MAKERS: Mapping[str, Callable[[Profile, Any], Table]] = {
    "gaps": _gaps,
    "kernels": _kernels,
    "operators": _operators,
    "memory": _timed("Memory operations", "Operation", "name"),
    "nvtx": _timed("NVTX ranges", "Range", "range"),
    "functions": _functions,
}
"""What of a profile.json is a table, in the order of the page."""
