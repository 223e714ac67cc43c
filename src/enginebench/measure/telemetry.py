"""What hosts and GPUs do over time: resident memory of process trees, by role, and what each GPU says of itself.

A process of its own takes about 20 samples a second, so that the interpreter that drives a round never waits for them;
a thread of the harness reads them from a pipe. The sampler keeps to about 1% of a core by stretching its period where
reading is dear. Resident memory counts pages that processes share once for each of them. What takes NVML longer than
some microseconds is read on demand, as an edge, before and after a round. A call that never returns holds up the
sampler, and nothing else: what follows has no samples.
"""

import json
import subprocess
import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from enginebench.clock import now_ns
from enginebench.errors import WorkerError
from enginebench.measure.gpu_trace import Edge, GpuFacts, GpuReading, GpuState, read_edge, read_reading, read_state

START_TIMEOUT_S = 30.0
FRESH_TIMEOUT_S = 5.0
EDGE_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 2.0
UNLOAD_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used at one moment, bytes, and what the GPUs did."""

    stamp_ns: int
    host: Mapping[str, int]  # by role; a role whose processes are gone is missing
    gpu: tuple[GpuReading, ...] | None  # of each GPU; None without one

    @property
    def gpu_used(self) -> tuple[int, ...] | None:
        """Used bytes of each GPU; None without one, and when one does not tell."""
        used = [each.used_bytes for each in self.gpu or ()]
        known = tuple(each for each in used if each is not None)
        return known if known and len(known) == len(used) else None

    def rows(self) -> list[tuple[str, str, int]]:
        """(kind, owner, bytes) for each role and GPU."""
        gpu = [("gpu", str(index), used) for index, used in enumerate(self.gpu_used or ())]
        return [("host", role, used) for role, used in self.host.items()] + gpu


class Telemetry:
    """The sampler process and what it has said so far. Use as a context manager, or ``start`` and ``stop``.

    ``gpu_trace``: a recorded trace that is played back instead of asking NVML, for machines without a GPU.
    ``record``: where a trace is written, for that use.
    """

    def __init__(self, gpu_trace: Path | None = None, *, record: Path | None = None):
        self._arguments: list[str] = []
        self._arguments += ["--gpu-trace", str(gpu_trace)] if gpu_trace else []
        self._arguments += ["--record", str(record)] if record else []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._samples: list[Sample] = []
        self._states: list[GpuState] = []
        self._edges: dict[int, Edge] = {}
        self._asked = 0  # edges so far
        self._watched: dict[str, list[int]] = {}  # pids by role
        self._news = threading.Condition()
        self._silent = False  # the sampler has said its last word
        self.gpus: tuple[str, ...] | None = None  # their UUIDs
        self.gpu_facts: tuple[GpuFacts, ...] = ()  # what does not change
        self.gpu_reason: str | None = None  # why there are none
        self.plays_trace = gpu_trace is not None

    def __enter__(self) -> "Telemetry":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the sampler; its samples join those of an earlier one. Raises WorkerError when it does not start."""
        self._silent = False
        command = [sys.executable, "-m", "enginebench.measure.sampler", *self._arguments]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, bufsize=1, start_new_session=True, **pipes)
        assert self._process.stdout is not None
        greeting = self._process.stdout.readline()
        if not greeting:
            self.stop()
            raise WorkerError(f"The telemetry sampler did not start: run '{' '.join(command[1:])}' to see why.")
        hello = json.loads(greeting)
        self.gpu_facts = tuple(hello["gpus"] or ())
        self.gpus = tuple(gpu["uuid"] for gpu in self.gpu_facts) or None
        self.gpu_reason = hello["reason"]
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="telemetry", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """Stop the sampler and wait for it; the samples stay. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()  # the end of its input ends it
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with suppress(subprocess.TimeoutExpired):  # a call of the driver that nothing interrupts
                process.wait(STOP_TIMEOUT_S)
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        if process.stdout is not None and not (self._reader and self._reader.is_alive()):
            process.stdout.close()

    def watch(self, role: str, pid: int) -> None:
        """Count the process ``pid`` and its descendants under ``role``, beside those already there."""
        self._watched.setdefault(role, []).append(pid)
        self._send({"watch": role, "pid": pid})

    def unwatch(self, role: str) -> None:
        """Count nothing under ``role`` any more."""
        self._watched.pop(role, None)
        self._send({"unwatch": role})

    @property
    def watched(self) -> frozenset[int]:
        """The processes that are watched now, without their descendants."""
        return frozenset(pid for pids in self._watched.values() for pid in pids)

    def samples(self, since_ns: int = 0, until_ns: int | None = None) -> list[Sample]:
        """The samples taken from ``since_ns`` to ``until_ns`` (default: now), oldest first."""
        with self._news:
            return _between(self._samples, since_ns, until_ns)

    def states(self, since_ns: int = 0, until_ns: int | None = None) -> list[GpuState]:
        """The states of the GPUs between these stamps, as for ``samples``."""
        with self._news:
            return _between(self._states, since_ns, until_ns)

    def edge(self, mark: str, timeout_s: float = EDGE_TIMEOUT_S) -> Edge | None:
        """Read what is dear, now: 4 ms on a GPU. None when the sampler does not answer in time."""
        if self._process is None:
            return None
        self._asked += 1
        number = self._asked
        self._send({"edge": number, "mark": mark})
        with self._news:
            self._news.wait_for(lambda: self._silent or number in self._edges, timeout_s)
            return self._edges.pop(number, None)

    @property
    def silent(self) -> bool:
        """Whether the sampler has died: what follows has no memory."""
        return self._silent and self._process is not None

    def fresh(self, timeout_s: float = FRESH_TIMEOUT_S) -> Sample | None:
        """The first sample that is taken from now on; None when the sampler gives none in ``timeout_s``."""
        asked_ns = now_ns()
        with self._news:
            self._news.wait_for(lambda: self._silent or self._newest_ns >= asked_ns, timeout_s)
            taken = [sample for sample in self._samples[-2:] if sample.stamp_ns >= asked_ns]
        return taken[0] if taken else None

    def gpu_used(self) -> tuple[int, ...] | None:
        """Used bytes of each GPU now; None without one."""
        if self.gpus is None:
            return None
        sample = self.fresh()
        return sample.gpu_used if sample else None

    @property
    def _newest_ns(self) -> int:
        return self._samples[-1].stamp_ns if self._samples else 0

    def _send(self, command: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise WorkerError("The telemetry sampler is not running: start it before watching a process.")
        with suppress(OSError):  # a sampler that died gives no more samples, and a run goes on without them
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def _read(self, stream: IO[str]) -> None:
        with suppress(ValueError, OSError):  # half a line, or a closed pipe, when the sampler goes
            for line in stream:
                said = json.loads(line)
                with self._news:
                    self._hear(said)
                    self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()

    def _hear(self, said: Any) -> None:
        if isinstance(said, list):
            stamp_ns, host, gpu = said
            self._samples.append(Sample(stamp_ns, host, None if gpu is None else tuple(map(read_reading, gpu))))
        elif "edge" in said:
            self._edges[said["edge"]] = read_edge(said)
        else:
            self._states.append(read_state(said))


_Stamped = TypeVar("_Stamped", Sample, GpuState)


def _between(stamped: list[_Stamped], since_ns: int, until_ns: int | None) -> list[_Stamped]:
    def stamp_of(each: _Stamped) -> int:
        return each.stamp_ns

    end = len(stamped) if until_ns is None else bisect_right(stamped, until_ns, key=stamp_of)
    return stamped[bisect_left(stamped, since_ns, key=stamp_of) : end]


def peaks(samples: Sequence[Sample], gpus: int | None = None) -> dict[str, Any]:
    """The most used at once, as a cell stores it: by the first ``gpus`` together, None without, and by host role."""
    gpu = [sum(used[:gpus]) for sample in samples if (used := sample.gpu_used) is not None]
    host: dict[str, int] = {}
    for sample in samples:
        for role, resident in sample.host.items():
            host[role] = max(resident, host.get(role, 0))
    return {"gpu_peak_bytes": max(gpu, default=None), "host_peak_bytes": host}


class MemoryPhases:
    """Memory of one session by phase: call the methods in the order of their names here; ``as_json`` at any time.

    ``gpus``: how many of the visible ones, from the first, the session uses.
    """

    def __init__(self, telemetry: Telemetry, gpus: int = 1):
        self._telemetry = telemetry
        self._gpus = gpus
        self._phases: dict[str, Sample | None] = {}
        self._started_ns = now_ns()
        self._ended_ns: int | None = None
        self.before: GpuState | None = None  # who computed on the GPUs before loading

    def before_load(self) -> None:
        """Nothing of the session is there yet."""
        self._telemetry.edge("before_load")
        self._phases["before_load"] = self._telemetry.fresh()
        self.before = next(iter(self._telemetry.states()[-1:]), None)
        self._started_ns = now_ns()

    def after_load(self) -> None:
        """The engine is loaded and has served nothing."""
        self._telemetry.edge("after_load")
        self._phases["after_load"] = self._telemetry.fresh()

    def after_unload(self) -> None:
        """The session and its processes are gone; a driver takes a moment to give their memory back."""
        self._telemetry.edge("after_unload")
        tries_end_ns = now_ns() + round(UNLOAD_WAIT_S * 1e9)
        while True:
            self._phases["after_unload"] = self._telemetry.fresh()
            before, after = self._gpu("before_load"), self._gpu("after_unload")
            if before is None or after is None or after <= before or now_ns() > tries_end_ns:
                break
        self._ended_ns = now_ns()

    @property
    def loaded(self) -> bool:
        """Whether an engine was seen to be loaded here."""
        return "after_load" in self._phases

    @property
    def samples(self) -> list[Sample]:
        """Everything from before loading until now, or until it was gone."""
        return self._telemetry.samples(self._started_ns, self._ended_ns)

    def as_json(self) -> dict[str, Any]:
        """The ``memory`` of a session in run.json: bytes; None where there was no sample or no GPU."""
        most = peaks(self.samples, self._gpus)
        gpu = None
        if self._telemetry.gpus is not None:
            gpu = {phase: self._gpu(phase) for phase in ("before_load", "after_load")}
            gpu |= {"peak": most["gpu_peak_bytes"], "after_unload": self._gpu("after_unload")}
        return {"gpu": gpu, "host": {role: self._host(role, peak) for role, peak in most["host_peak_bytes"].items()}}

    def by_gpu(self, phase: str) -> tuple[int, ...] | None:
        """Bytes in use on each GPU of the session in a phase, the name of a method here; None without a sample."""
        sample = self._phases.get(phase)
        used = sample.gpu_used if sample is not None else None
        return None if used is None else used[: self._gpus]

    def _gpu(self, phase: str) -> int | None:
        used = self.by_gpu(phase)
        return None if used is None else sum(used)

    def _host(self, role: str, peak: int) -> dict[str, int | None]:
        before, after = (self._phases.get(phase) for phase in ("before_load", "after_load"))
        return {
            "before_load": before.host.get(role) if before else None,
            "after_load": after.host.get(role) if after else None,
            "peak": peak,
        }
