"""Memory over time: resident memory of process trees, by role, and used memory of the GPUs, about 20 times a second.

A process of its own takes the samples, so that the interpreter that drives a round never waits for them; a thread of
the harness reads them from a pipe. The sampler keeps below 1% of a core by stretching its period where reading is dear.
Resident memory counts pages that processes share once for each of them; nothing is asked of NVML that takes longer
than some microseconds.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from enginebench.clock import now_ns
from enginebench.errors import WorkerError

START_TIMEOUT_S = 30.0
FRESH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What was used at one moment, bytes."""

    stamp_ns: int
    host: Mapping[str, int]  # by role; a role whose processes are gone is missing
    gpu: tuple[int, ...] | None  # of each GPU; None without one

    def rows(self) -> list[tuple[str, str, int]]:
        """(kind, owner, bytes) for each role and GPU."""
        gpu = [("gpu", str(index), used) for index, used in enumerate(self.gpu or ())]
        return [("host", role, used) for role, used in self.host.items()] + gpu


class Telemetry:
    """The sampler process and what it has said so far. Use as a context manager, or ``start`` and ``stop``.

    ``gpu_trace``: a file with one JSON list a line, the used bytes of each GPU, played back instead of asking NVML
    (one line a sample, the last one for ever): a recorded trace for machines without a GPU.
    """

    def __init__(self, gpu_trace: Path | None = None, period_s: float = 0.05):
        self._arguments = ["--period", str(period_s), *(["--gpu-trace", str(gpu_trace)] if gpu_trace else [])]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._samples: list[Sample] = []
        self._news = threading.Condition()
        self._silent = False  # the sampler has said its last word
        self.gpus: tuple[str, ...] | None = None  # their UUIDs
        self.gpu_reason: str | None = None  # why there are none

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
            raise WorkerError(
                "The telemetry sampler did not start: run 'python -m enginebench.measure.sampler' to see why."
            )
        hello = json.loads(greeting)
        self.gpus = None if hello["gpus"] is None else tuple(hello["gpus"])
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
            process.wait(2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(2)
        if process.stdout is not None:
            process.stdout.close()

    def watch(self, role: str, pid: int) -> None:
        """Count the process ``pid`` and its descendants under ``role``, beside those already there."""
        self._send({"watch": role, "pid": pid})

    def unwatch(self, role: str) -> None:
        """Count nothing under ``role`` any more."""
        self._send({"unwatch": role})

    def samples(self, since_ns: int = 0, until_ns: int | None = None) -> list[Sample]:
        """The samples taken from ``since_ns`` to ``until_ns`` (default: now), oldest first."""
        with self._news:
            return [
                each
                for each in self._samples
                if since_ns <= each.stamp_ns and (until_ns or each.stamp_ns) >= each.stamp_ns
            ]

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
        return sample.gpu if sample else None

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
                stamp_ns, host, gpu = json.loads(line)
                with self._news:
                    self._samples.append(Sample(stamp_ns, host, None if gpu is None else tuple(gpu)))
                    self._news.notify_all()
        with self._news:
            self._silent = True
            self._news.notify_all()


def peaks(samples: Sequence[Sample]) -> dict[str, Any]:
    """The most used at once, as a cell stores it: by all GPUs together (None without), and by role on the host."""
    gpu = [sum(sample.gpu) for sample in samples if sample.gpu is not None]
    host: dict[str, int] = {}
    for sample in samples:
        for role, used in sample.host.items():
            host[role] = max(used, host.get(role, 0))
    return {"gpu_peak_bytes": max(gpu, default=None), "host_peak_bytes": host}


class MemoryPhases:
    """Memory of one session by phase: call the methods in the order of their names here; ``as_json`` at any time."""

    def __init__(self, telemetry: Telemetry):
        self._telemetry = telemetry
        self._phases: dict[str, Sample | None] = {}
        self._started_ns = now_ns()
        self._ended_ns: int | None = None

    def before_load(self) -> None:
        """Nothing of the session is there yet."""
        self._phases["before_load"] = self._telemetry.fresh()
        self._started_ns = now_ns()

    def after_load(self) -> None:
        """The engine is loaded and has served nothing."""
        self._phases["after_load"] = self._telemetry.fresh()

    def after_unload(self) -> None:
        """The session and its processes are gone."""
        self._phases["after_unload"] = self._telemetry.fresh()
        self._ended_ns = now_ns()

    def as_json(self) -> dict[str, Any]:
        """The ``memory`` of a session in run.json: bytes; None where there was no sample or no GPU."""
        most = peaks(self._telemetry.samples(self._started_ns, self._ended_ns))
        gpu = None
        if self._telemetry.gpus is not None:
            gpu = {phase: self._gpu(phase) for phase in ("before_load", "after_load")}
            gpu |= {"peak": most["gpu_peak_bytes"], "after_unload": self._gpu("after_unload")}
        return {"gpu": gpu, "host": {role: self._host(role, peak) for role, peak in most["host_peak_bytes"].items()}}

    def _gpu(self, phase: str) -> int | None:
        sample = self._phases.get(phase)
        return sum(sample.gpu) if sample is not None and sample.gpu is not None else None

    def _host(self, role: str, peak: int) -> dict[str, int | None]:
        before, after = (self._phases.get(phase) for phase in ("before_load", "after_load"))
        return {
            "before_load": before.host.get(role) if before else None,
            "after_load": after.host.get(role) if after else None,
            "peak": peak,
        }
