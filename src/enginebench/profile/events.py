"""Events of a trace in Chrome's format, which Perfetto reads: spans that nest, counters, names of tracks.

Pure. Times go in as CLOCK_MONOTONIC nanoseconds and come out as microseconds after a base, so that floats keep them
exact; the base lies before all of them, because Perfetto drops what has a negative time. The format demands that spans
on one track nest or lie apart: ``nested`` and ``apart`` find a lane for each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Event: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slice:
    """Something that lasted."""

    name: str
    start_ns: int
    end_ns: int
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Track:
    """One process of the trace: a name, and below it its threads."""

    pid: int
    name: str
    base_ns: int

    def names(self, threads: Mapping[int, str] | None = None) -> Iterator[Event]:
        """What it and its threads are called, in their order. Perfetto adds each one's number to its name."""
        yield {"ph": "M", "pid": self.pid, "name": "process_name", "args": {"name": self.name}}
        yield {"ph": "M", "pid": self.pid, "name": "process_sort_index", "args": {"sort_index": self.pid}}
        for tid, name in (threads or {}).items():
            yield {"ph": "M", "pid": self.pid, "tid": tid, "name": "thread_name", "args": {"name": name}}
            yield {"ph": "M", "pid": self.pid, "tid": tid, "name": "thread_sort_index", "args": {"sort_index": tid}}

    def span(self, tid: int, each: Slice) -> Event:
        """A complete event."""
        place = {"ph": "X", "pid": self.pid, "tid": tid, "ts": self._us(each.start_ns)}
        return {**place, "dur": (each.end_ns - each.start_ns) / 1e3, "name": each.name, "args": dict(each.args)}

    def counter(self, name: str, unit: str, stamp_ns: int, value: float) -> Event:
        """A value from one moment on. Perfetto writes ``name`` and ``unit`` one after the other."""
        return {"ph": "C", "pid": self.pid, "ts": self._us(stamp_ns), "name": name, "args": {unit: value}}

    def _us(self, stamp_ns: int) -> float:
        return (stamp_ns - self.base_ns) / 1e3


def apart(slices: Sequence[Slice]) -> list[int]:
    """A lane for each, so that those of one lane follow each other; as few lanes as can be."""
    return _lanes(slices, nest=False)


def nested(slices: Sequence[Slice]) -> list[int]:
    """A lane for each, so that those of one lane nest or follow each other."""
    return _lanes(slices, nest=True)


def _lanes(slices: Sequence[Slice], *, nest: bool) -> list[int]:
    order = sorted(range(len(slices)), key=lambda at: (slices[at].start_ns, -slices[at].end_ns))
    open_: list[list[int]] = []  # by lane: the ends of what is open, the innermost last
    chosen = [0] * len(slices)
    for at in order:
        each = slices[at]
        for ends in open_:
            while ends and ends[-1] <= each.start_ns:
                ends.pop()
        chosen[at] = next((lane for lane, ends in enumerate(open_) if _fits(ends, each, nest=nest)), len(open_))
        if chosen[at] == len(open_):
            open_.append([])
        open_[chosen[at]].append(each.end_ns)
    return chosen


def _fits(ends: Sequence[int], each: Slice, *, nest: bool) -> bool:
    return not ends or (nest and each.end_ns <= ends[-1])


def in_order(stamps_ns: Iterable[int]) -> list[int]:
    """``stamps_ns``, none before the one before it: what follows cannot be earlier."""
    kept: list[int] = []
    for stamp in stamps_ns:
        kept.append(max(stamp, kept[-1]) if kept else stamp)
    return kept
