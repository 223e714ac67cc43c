"""The process that samples memory: ``python -m enginebench.measure.sampler``. ``telemetry`` says what its numbers mean.

Commands come as JSON lines on standard input, ``{"watch": role, "pid": pid}`` and ``{"unwatch": role}``; samples leave
as JSON lines on standard output, ``[stamp_ns, {role: bytes}, [bytes of each GPU] or null]``. The end of the input ends
it. This module and ``environment`` alone know pynvml.
"""

import argparse
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Protocol

import psutil

from enginebench.clock import now_ns

LOOK_SHARE, SAMPLE_SHARE = 0.002, 0.006
"""Of a core: what looking up descendants and what sampling may cost; together below 1% with the waking up."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class GpuReader(Protocol):
    """Where used memory of GPUs comes from."""

    uuids: tuple[str, ...] | None
    reason: str | None

    def used(self) -> list[int] | None:
        """Used bytes of each GPU; None without one."""


class NvmlReader:
    """The GPUs of this machine."""

    def __init__(self) -> None:
        import pynvml

        self._nvml = pynvml
        self._handles: list[Any] = []
        self.uuids: tuple[str, ...] | None = None
        self.reason: str | None = None
        try:
            pynvml.nvmlInit()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self.uuids = tuple(pynvml.nvmlDeviceGetUUID(handle) for handle in self._handles) or None
        except pynvml.NVMLError as error:
            self.reason = f"no GPU ({error})"

    def used(self) -> list[int] | None:
        """Used bytes of each GPU, without what the driver reserves; 6 µs a GPU."""
        if self.uuids is None:
            return None
        try:
            return [int(self._memory(handle).used) for handle in self._handles]
        except self._nvml.NVMLError:  # a GPU that fell off the bus: no value, not zero
            return None

    def _memory(self, handle: Any) -> Any:
        return self._nvml.nvmlDeviceGetMemoryInfo(handle, version=self._nvml.nvmlMemory_v2)


class TraceReader:
    """A recorded trace: one JSON list a line."""

    def __init__(self, path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        self._rows: Iterator[list[int]] = chain(rows, repeat(rows[-1]))
        self.uuids: tuple[str, ...] | None = tuple(f"trace-{index}" for index in range(len(rows[0])))
        self.reason: str | None = None

    def used(self) -> list[int] | None:
        """The next row of the trace."""
        return next(self._rows)


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


def sample_until_end(gpus: GpuReader, period_s: float, commands: Commands) -> None:
    """Write a sample every ``period_s``, or less often where a sample costs more than its share of a core."""
    trees = Trees()
    next_s = time.monotonic()
    while (arrived := commands.within(max(0.0, next_s - time.monotonic()))) is not None:
        for command in arrived:
            trees.command(command)
        if time.monotonic() < next_s:
            continue
        trees.look()
        started_s = time.thread_time()
        print(json.dumps([now_ns(), trees.resident(), gpus.used()]), flush=True)
        next_s = time.monotonic() + max(period_s, (time.thread_time() - started_s) / SAMPLE_SHARE)


def main() -> None:
    """Greet with the GPUs there are, then sample until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness decides when sampling ends
    parser = argparse.ArgumentParser(prog="python -m enginebench.measure.sampler", description=__doc__)
    parser.add_argument("--period", type=float, default=0.05, metavar="SECONDS")
    parser.add_argument("--gpu-trace", type=Path, metavar="FILE")
    options = parser.parse_args()
    gpus: GpuReader = TraceReader(options.gpu_trace) if options.gpu_trace else NvmlReader()
    print(json.dumps({"gpus": gpus.uuids, "reason": gpus.reason}), flush=True)
    with suppress(BrokenPipeError):
        sample_until_end(gpus, options.period, Commands(sys.stdin.fileno()))


if __name__ == "__main__":
    main()
