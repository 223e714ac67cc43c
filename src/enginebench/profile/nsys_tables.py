"""What a report of Nsight Systems holds: kernels, memory operations, NVTX ranges, and the GPU's time.

Read from its SQLite export. ``nsys stats`` would make tables, too, but its versions call them by different names, and
none lists ranges that overlap, as those of requests do.
"""

import csv
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import RunError
from enginebench.files import writing
from enginebench.profile.kernels import KernelTime, families, family_of, longest, occupation

Span: TypeAlias = tuple[str, int, int]
"""A name, its start and its end, ns."""

_KERNELS, _COPIES, _FILLS = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_MEMCPY", "CUPTI_ACTIVITY_KIND_MEMSET"

# What is asked of each table: name, number and nanoseconds; or start and end.
_KERNEL_TOTALS = {
    _KERNELS: """
        SELECT COALESCE(name.value, 'unnamed'), COUNT(*), SUM(kernel.end - kernel.start)
        FROM CUPTI_ACTIVITY_KIND_KERNEL kernel LEFT JOIN StringIds name ON name.id = kernel.demangledName
        GROUP BY 1""",
}
_MEMORY_TOTALS = {
    _COPIES: """
        SELECT 'memcpy ' || COALESCE(kind.label, copy.copyKind), COUNT(*), SUM(copy.end - copy.start)
        FROM CUPTI_ACTIVITY_KIND_MEMCPY copy LEFT JOIN ENUM_CUDA_MEMCPY_OPER kind ON kind.id = copy.copyKind
        GROUP BY 1""",
    _FILLS: """
        SELECT 'memset', COUNT(*), SUM(fill.end - fill.start) FROM CUPTI_ACTIVITY_KIND_MEMSET fill GROUP BY 1""",
}
_TIMES = {
    _KERNELS: "SELECT each.start, each.end FROM CUPTI_ACTIVITY_KIND_KERNEL each",
    _COPIES: "SELECT each.start, each.end FROM CUPTI_ACTIVITY_KIND_MEMCPY each",
    _FILLS: "SELECT each.start, each.end FROM CUPTI_ACTIVITY_KIND_MEMSET each",
}
_RANGES = {
    "NVTX_EVENTS": """
        SELECT COALESCE(mark.text, name.value, 'unnamed'), mark.start, mark.end
        FROM NVTX_EVENTS mark LEFT JOIN StringIds name ON name.id = mark.textId
        WHERE mark.end IS NOT NULL ORDER BY mark.start, mark.end DESC""",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded. ``times_ns``: start and end of every kernel and memory operation, shape (n, 2)."""

    kernels: Sequence[KernelTime]
    memory: Sequence[KernelTime]
    times_ns: NDArray[np.int64]
    ranges: Sequence[Span]

    def summary(self, round_name: str) -> dict[str, Any]:
        """Kernels, families, memory operations, ranges; how the GPU spent the round (None: no GPU in it)."""
        return {
            "kernels": longest(self.kernels),
            "families": families([*self.kernels, *self.memory]),
            "memory": [{"name": each.name, "calls": each.calls, "s": each.s} for each in _ranked(self.memory)],
            "nvtx": [{"range": each.name, "calls": each.calls, "s": each.s} for each in _ranked(_by_name(self.ranges))],
            "gpu": self._occupation(round_name),
        }

    def write(self, prefix: Path) -> None:
        """Keep tables beside the report; those in which nothing is are left out. Raises RunError."""
        header = ("name", "family", "calls", "total_s")
        for kind, times in (("kernels", self.kernels), ("memory", self.memory)):
            _write(_table(prefix, kind), header, [(e.name, family_of(e.name), e.calls, e.s) for e in _ranked(times)])
        _write(_table(prefix, "ranges"), ("name", "start_ns", "end_ns"), self.ranges)

    def _occupation(self, round_name: str) -> dict[str, Any] | None:
        """Of the round's range; without one, from the first operation of the GPU to the last."""
        if not len(self.times_ns):
            return None
        starts, ends = self.times_ns[:, 0], self.times_ns[:, 1]
        rounds = ((start, end) for name, start, end in self.ranges if name == round_name)
        return dict(occupation(starts, ends, next(rounds, (int(starts.min()), int(ends.max())))))


def read_export(path: Path) -> Recorded:
    """Read what ``nsys export --type=sqlite`` made. Raises RunError."""
    try:
        with closing(sqlite3.connect(path)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            return Recorded(
                kernels=_totals(_rows(database, tables, _KERNEL_TOTALS)),
                memory=_totals(_rows(database, tables, _MEMORY_TOTALS)),
                times_ns=np.array(_rows(database, tables, _TIMES), dtype=np.int64).reshape(-1, 2),
                ranges=_rows(database, tables, _RANGES),
            )
    except sqlite3.Error as error:
        raise RunError(
            f"{path.name} is not as Nsight Systems exports it ({error}): open its report instead."
        ) from error


def read_ranges(report: Path) -> Iterator[Span]:
    """The NVTX ranges that ``Recorded.write`` kept beside ``report``; none where there was none."""
    path = _table(report.with_suffix(""), "ranges")
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            yield from ((row["name"], int(row["start_ns"]), int(row["end_ns"])) for row in csv.DictReader(file))


def _rows(database: sqlite3.Connection, tables: set[str], queries: dict[str, str]) -> list[Any]:
    """What each query finds in its table; nsys makes a table only if there is something in it."""
    return [row for table, query in queries.items() if table in tables for row in database.execute(query)]


def _totals(rows: Iterable[tuple[str, int, int]]) -> list[KernelTime]:
    return [KernelTime(name, calls, total_ns / 1e9) for name, calls, total_ns in rows]


def _by_name(spans: Iterable[Span]) -> list[KernelTime]:
    found: dict[str, tuple[int, int]] = {}
    for name, start, end in spans:
        calls, total = found.get(name, (0, 0))
        found[name] = (calls + 1, total + end - start)
    return _totals((name, calls, total) for name, (calls, total) in found.items())


def _ranked(times: Iterable[KernelTime]) -> list[KernelTime]:
    return sorted(times, key=lambda each: -each.s)


def _table(prefix: Path, kind: str) -> Path:
    return prefix.with_name(f"{prefix.name}_{kind}.csv")


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    if rows:
        with writing(path), path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
