"""The process that samples: ``python -m enginebench.measure.sampler``. ``telemetry`` says what its numbers mean.

Commands come as JSON lines on standard input: ``{"watch": role, "pid": pid}``, ``{"unwatch": role}`` and ``{"edge":
number, "mark": name}``. What it says leaves as JSON lines on standard output: a greeting with the facts of each GPU,
then samples ``[stamp_ns, {role: bytes}, [a row of gpu_trace.COLUMNS for each GPU] or null]``, once a second, or less
often where that is dear, a state of the GPUs, and an edge for each that is asked for. The end of the input ends it.
``--record FILE`` writes the same lines to a file, which is a trace for ``--gpu-trace FILE``: ``sleep 30 | python -m …
--record FILE``.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from statistics import median
from typing import IO, Any, Protocol

import psutil

from enginebench.clock import now_ns
from enginebench.errors import WorkerError
from enginebench.measure.gpu_trace import COLUMNS, SCHEMA, Gpus, TraceReader
from enginebench.measure.nvml import NvmlReader

LOOK_SHARE, STATE_SHARE, SAMPLE_SHARE = 0.001, 0.001, 0.006
"""Of a core: what looking up descendants, states, and samples may cost; with the waking up, less than 1% together."""

JUDGED_BY = 20  # samples, of whose costs the median counts: a single dear one must not leave gaps behind it
PERIOD_S, STATE_PERIOD_S = 0.05, 1.0

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class GpuReader(Gpus, Protocol):
    """The same, with what is asked for around rounds."""

    def edge(self, mark: str, stamp_ns: int) -> dict[str, Any]:
        """What takes milliseconds to read: ``energy_j`` and ``ecc_uncorrected`` of each GPU."""


class Trees:
    """Resident memory of process trees by role. Descendants are looked up rarely, since that reads all of /proc."""

    def __init__(self) -> None:
        self._roots: dict[str, list[psutil.Process]] = {}
        self._members: dict[str, list[int]] = {}  # by role: open /proc/PID/statm, each read at a tenth of psutil's cost
        self._next_look_s = 0.0

    def command(self, command: Mapping[str, Any]) -> None:
        """Follow one command of the harness."""
        if "watch" in command:
            with suppress(psutil.Error):
                self._roots.setdefault(command["watch"], []).append(psutil.Process(command["pid"]))
        else:
            self._roots.pop(command["unwatch"], None)
        self._next_look_s = 0.0

    def resident(self) -> dict[str, int]:
        """Bytes by role; a role without a living process is left out."""
        found = {role: sum(map(_resident, members)) for role, members in self._members.items()}
        return {role: size for role, size in found.items() if size}

    def look(self) -> None:
        """Look up descendants, when it is time to."""
        if time.monotonic() < self._next_look_s:
            return
        started_s = time.thread_time()
        for descriptor in chain.from_iterable(self._members.values()):
            os.close(descriptor)
        self._members = {role: _opened(_tree(roots)) for role, roots in self._roots.items()}
        cost_s = time.thread_time() - started_s
        self._next_look_s = time.monotonic() + max(1.0, cost_s / LOOK_SHARE)


def _tree(roots: list[psutil.Process]) -> set[int]:
    pids = {root.pid for root in roots if root.is_running()}  # and not another process that got the same pid
    for root in roots:
        with suppress(psutil.Error):
            pids |= {child.pid for child in root.children(recursive=True)}
    return pids


def _opened(pids: set[int]) -> list[int]:
    descriptors = []
    for pid in pids:
        with suppress(OSError):
            descriptors.append(os.open(f"/proc/{pid}/statm", os.O_RDONLY))
    return descriptors


def _resident(statm: int) -> int:
    """Bytes; 0 once the process is gone, also when another one got its pid."""
    try:
        return int(os.pread(statm, 128, 0).split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


class Commands:
    """The lines on standard input, read without the buffer that would hide them from select."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def within(self, timeout_s: float) -> list[Mapping[str, Any]] | None:
        """Commands that came in ``timeout_s``; None when there will be no more."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return []
        data = os.read(self._descriptor, 65536)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines] if data else None


class Voice:
    """Standard output, and the file of a recording."""

    def __init__(self, record: IO[str] | None) -> None:
        self._record = record

    def say(self, line: Any) -> None:
        """One line."""
        text = json.dumps(line, separators=(",", ":"))
        print(text, flush=True)
        if self._record is not None:
            self._record.write(text + "\n")


class Sampler:
    """Says what there is to say, when it is time to."""

    def __init__(self, gpus: GpuReader, voice: Voice) -> None:
        self._gpus = gpus
        self._voice = voice
        self._trees = Trees()
        self._next_s = time.monotonic()
        self._next_state_s = self._next_s
        self._costs_s: deque[float] = deque(maxlen=JUDGED_BY)

    def until_end(self, commands: Commands) -> None:
        """Sample until there are no more commands."""
        while (arrived := commands.within(max(0.0, self._next_s - time.monotonic()))) is not None:
            for command in arrived:
                self._follow(command)
            if time.monotonic() >= self._next_s:
                self._sample()

    def _follow(self, command: Mapping[str, Any]) -> None:
        if "edge" in command:
            stamp_ns = now_ns()
            counters = self._gpus.edge(command["mark"], stamp_ns)
            self._say_state(stamp_ns)
            line = {"edge": command["edge"], "mark": command["mark"], "stamp_ns": stamp_ns, **counters, **_host()}
            self._voice.say(line)
        else:
            self._trees.command(command)

    def _sample(self) -> None:
        """A sample, or fewer of them where they cost more than their share of a core."""
        self._trees.look()
        started_s = time.thread_time()
        stamp_ns = now_ns()
        self._voice.say([stamp_ns, self._trees.resident(), self._gpus.read(stamp_ns)])
        self._costs_s.append(time.thread_time() - started_s)
        if time.monotonic() >= self._next_state_s:
            self._say_state(stamp_ns)
        self._next_s = time.monotonic() + max(PERIOD_S, median(self._costs_s) / SAMPLE_SHARE)

    def _say_state(self, stamp_ns: int) -> None:
        started_s = time.thread_time()
        if self._gpus.gpus is not None:
            processes, events = self._gpus.state()
            self._voice.say({"stamp_ns": stamp_ns, "processes": processes, "events": events})
        cost_s = time.thread_time() - started_s
        self._next_state_s = time.monotonic() + max(STATE_PERIOD_S, cost_s / STATE_SHARE)


def _host() -> dict[str, Any]:
    """Counters of the host since it started: time of the cores that this process may use, and swapped bytes."""
    cores = os.sched_getaffinity(0)
    times = [each for core, each in enumerate(psutil.cpu_times(percpu=True)) if core in cores]
    # "guest" is a part of "user", and so on
    total_s = sum(sum(each[:8]) for each in times)
    swap = psutil.swap_memory()
    return {
        "cpu_busy_s": total_s - sum(each.idle + getattr(each, "iowait", 0.0) for each in times),
        "cpu_total_s": total_s,
        "swapped_bytes": swap.sin + swap.sout,
    }


def main() -> None:
    """Greet with the GPUs there are, then sample until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness decides when sampling ends
    parser = argparse.ArgumentParser(prog="python -m enginebench.measure.sampler", description=__doc__)
    parser.add_argument("--gpu-trace", type=Path, metavar="FILE", help="play this trace instead of asking NVML")
    parser.add_argument("--record", type=Path, metavar="FILE", help="keep what is said as a trace")
    options = parser.parse_args()
    try:
        gpus: GpuReader = TraceReader(options.gpu_trace) if options.gpu_trace else NvmlReader()
        record = options.record.open("w", encoding="utf-8") if options.record else None
    except (WorkerError, OSError) as error:
        sys.exit(str(error))
    voice = Voice(record)
    voice.say({"schema": SCHEMA, "columns": COLUMNS, "gpus": gpus.gpus, "reason": gpus.reason})
    with suppress(BrokenPipeError):
        Sampler(gpus, voice).until_end(Commands(sys.stdin.fileno()))


if __name__ == "__main__":
    main()
