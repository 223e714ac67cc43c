"""What a GPU says of itself, as plain data, and traces of it: recorded by a sampler, played back without a GPU.

A trace is a file of what the sampler said, line by line: a greeting with the facts of each GPU, samples, edges and
states. No NVML here, and no clock: whoever plays a trace back asks for one sample after the other.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from enginebench.errors import WorkerError

SCHEMA = "enginebench/gpu-trace/1"
"""Of the greeting, and so of a trace."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment; None where it does not tell."""

    used_bytes: int | None = None  # without what the driver reserves, where the driver tells them apart
    reserved_bytes: int | None = None
    sm_percent: int | None = None  # of the time, over the last tenths of a second, in which any kernel ran
    memory_percent: int | None = None  # of the time in which memory was read or written
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_w: float | None = None
    temperature_c: int | None = None
    event_reasons: int | None = None  # bit mask: why the clocks are what they are

    def row(self) -> list[float | None]:
        """The values in the order of ``COLUMNS``."""
        return list(astuple(self))


COLUMNS = tuple(field.name for field in fields(GpuReading))

GpuFacts = Mapping[str, Any]
"""What does not change while a run lasts, see ``nvml.facts_of``."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """Once a second, what is too slow for every sample; one entry a GPU."""

    stamp_ns: int
    processes: tuple[Mapping[int, int | None] | None, ...]  # bytes by process id, of whoever computes; None: unknown
    events: tuple[tuple[int, str, int], ...] = ()  # since the last state: GPU, kind ("xid", "ecc"), XID or 0


@dataclass(frozen=True, slots=True)
class Edge:
    """What was read on demand, at the edge of a round or phase; None where it is not told."""

    stamp_ns: int
    mark: str
    energy_j: tuple[float | None, ...] | None  # of each GPU, since its driver was loaded
    ecc_uncorrected: tuple[int | None, ...] | None  # of each GPU, since its driver was loaded
    cpu_busy_s: float | None  # of the cores that this process may use, together
    cpu_total_s: float | None
    swapped_bytes: int | None  # in and out, by the whole host, since it started


def read_reading(row: Sequence[Any]) -> GpuReading:
    """The inverse of ``GpuReading.row``."""
    return GpuReading(*row)


def read_edge(line: Mapping[str, Any]) -> Edge:
    """An edge as the sampler says it."""
    energy, ecc = line["energy_j"], line["ecc_uncorrected"]
    return Edge(
        stamp_ns=line["stamp_ns"],
        mark=line["mark"],
        energy_j=None if energy is None else tuple(energy),
        ecc_uncorrected=None if ecc is None else tuple(ecc),
        cpu_busy_s=line["cpu_busy_s"],
        cpu_total_s=line["cpu_total_s"],
        swapped_bytes=line["swapped_bytes"],
    )


def read_state(line: Mapping[str, Any]) -> GpuState:
    """A state as the sampler says it."""
    processes = tuple(None if each is None else {int(pid): size for pid, size in each} for each in line["processes"])
    return GpuState(line["stamp_ns"], processes, tuple((gpu, kind, code) for gpu, kind, code in line["events"]))


class _Sampled(Protocol):
    @property
    def stamp_ns(self) -> int: ...
    @property
    def gpu(self) -> Sequence[GpuReading] | None: ...


def gpu_columns(samples: Iterable[_Sampled]) -> dict[str, list[Any]]:
    """The readings in ``samples`` as a table: ``stamp_ns``, ``gpu`` (its place) and ``COLUMNS``, a row a GPU."""
    known = [(each.stamp_ns, place, *one.row()) for each in samples for place, one in enumerate(each.gpu or ())]
    return {name: [row[place] for row in known] for place, name in enumerate(("stamp_ns", "gpu", *COLUMNS))}


class Gpus(Protocol):
    """What is asked of the GPUs: of ``nvml.NvmlReader``, or of a trace."""

    gpus: tuple[GpuFacts, ...] | None
    reason: str | None

    def read(self, stamp_ns: int) -> list[list[Any]] | None:
        """What each GPU says, in the order of ``COLUMNS``; None without one."""

    def state(self) -> tuple[list[Any], list[Any]]:
        """Processes of each GPU, and the events since the last call."""


class TraceReader:
    """A recorded trace in the place of the GPUs: a sample of it for every one that is asked for.

    Marked edges divide a trace: it stays at the last sample before the next mark until that edge is asked for, and
    goes on from there; an edge that does not come any more is looked for from the start (more rounds than were
    recorded). Its energy is the integral of the power that it played, over the time of who plays it.
    """

    def __init__(self, path: Path) -> None:
        hello, self._lines = _read_trace(path)
        self.gpus: tuple[GpuFacts, ...] | None = tuple(hello["gpus"])
        self.reason: str | None = None
        self._place = 0  # of the next line
        self._row: list[list[Any]] = next(line[2] for line in self._lines if isinstance(line, list))
        self._processes: list[Any] = [None] * len(self.gpus)
        self._events: list[Any] = []
        self._energy_j = [0.0] * len(self.gpus)
        self._played_ns: int | None = None

    def read(self, stamp_ns: int) -> list[list[Any]] | None:
        """The next sample of each GPU, in the order of ``COLUMNS``."""
        self._add_energy(stamp_ns)
        taken = False
        while (line := self._next()) is not None and not (taken and isinstance(line, list)):
            self._place += 1
            if isinstance(line, list):
                self._row, taken = line[2], True
            else:  # a state belongs to the sample before it
                self._take_state(self._place - 1)
        return self._row

    def state(self) -> tuple[list[Any], list[Any]]:
        """Processes of each GPU, and the events since the last call."""
        events, self._events = self._events, []
        return self._processes, events

    def edge(self, mark: str, stamp_ns: int) -> dict[str, Any]:
        """Go on to ``mark``; return the counters of each GPU there."""
        self._add_energy(stamp_ns)
        found = self._find(mark, self._place)
        found = self._find(mark, 0) if found is None else found
        if found is not None:
            if found != self._place:  # its state was not passed on the way
                self._take_state(found - 1)
            self._place = found + 1
        known = self.gpus is not None and all(gpu.get("energy_counter") for gpu in self.gpus)
        ecc = None if found is None else self._lines[found]["ecc_uncorrected"]
        return {"energy_j": list(self._energy_j) if known else None, "ecc_uncorrected": ecc}

    def _next(self) -> Any:
        """The next line; None at a mark, and at the end."""
        line = self._lines[self._place] if self._place < len(self._lines) else None
        return None if isinstance(line, dict) and "mark" in line else line

    def _take_state(self, place: int) -> None:
        """Of the line at ``place``; an edge has one before it."""
        line = self._lines[place] if place >= 0 else None
        if isinstance(line, dict) and "processes" in line:
            self._processes, self._events = line["processes"], self._events + line["events"]

    def _find(self, mark: str, start: int) -> int | None:
        for place, line in enumerate(self._lines[start:], start):
            if isinstance(line, dict) and line.get("mark") == mark:
                return place
        return None

    def _add_energy(self, stamp_ns: int) -> None:
        if self._played_ns is not None:
            power_w = COLUMNS.index("power_w")
            for gpu, row in enumerate(self._row):
                self._energy_j[gpu] += (row[power_w] or 0.0) * (stamp_ns - self._played_ns) / 1e9
        self._played_ns = stamp_ns


def _read_trace(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """The greeting, and all that follows but samples without a GPU."""
    try:
        hello, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise WorkerError(f"{path} cannot be read as a trace of GPUs ({error}): record one anew.") from error
    if not isinstance(hello, dict) or hello.get("schema") != SCHEMA or not hello["gpus"]:
        raise WorkerError(f"{path} is no trace of GPUs: its first line must have the schema {SCHEMA!r} and GPUs.")
    if tuple(hello["columns"]) != COLUMNS:
        raise WorkerError(f"{path} has the columns {hello['columns']}, not {list(COLUMNS)}: record it anew.")
    known = [line for line in lines if isinstance(line, dict) or line[2] is not None]
    if not any(isinstance(line, list) for line in known):
        raise WorkerError(f"{path} holds no sample of a GPU: record it where there is one.")
    return hello, known
