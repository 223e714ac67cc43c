"""Drives the real worker against known truth: a truth server for clients of Triton, the null runtime in process.

One calibrator serves a run; it starts what it needs when it is needed, and remembers what it has measured. What the
numbers mean is ``calibration``'s and ``validity``'s.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from enginebench.measure.calibration import Calibration, Cost, Point, calibrate, times_of_null, times_of_truth
from enginebench.measure.records import RoundRecord
from enginebench.measure.shard_calibration import calibrate_parts
from enginebench.measure.shards import Client, Shards, pids_of
from enginebench.measure.truth import TruthServer
from enginebench.measure.truth_server import GOLDEN, Script
from enginebench.measure.worker_process import Worker
from enginebench.plan.load import Batch, Concurrency, Load
from enginebench.plan.requests import Request, Sampling

STALL_TIMEOUT_S = 20.0
SHORT_S = 0.8
"""How long the calibration of a cell is, about."""

_WARM_UP_TOKENS = 8
_SHORT_TTFT_S = 0.02  # whatever the cell's is: the error is a time, not a share


class Calibrator:
    """Measures the client's error at a point; a context manager. ``directory`` is where workers' logs land.

    ``start``: starts the client of a server, given the place of its log; one worker by default.
    """

    def __init__(self, directory: Path, start: Callable[[Path], Client] | None = None) -> None:
        self._directory = directory
        self._start = start
        self.of_shards: dict[Point, tuple[Calibration | None, ...]] = {}  # where the client is several processes
        self._open = ExitStack()
        self._server: TruthServer | None = None
        self._workers: dict[tuple[str, str | None], Client] = {}
        self._known: dict[tuple[Point, str | None], Calibration] = {}

    def measure(self, point: Point, python: str | None = None) -> Calibration:
        """Calibrate at ``point``; under the interpreter ``python`` (None: the harness's own).

        Raises:
            EnginebenchError: something did not start, broke, or lost tokens.
        """
        worker = self._worker(point.runtime, python)
        server = self._truth_server() if point.runtime != "null" else None
        self._open_session(worker, server, point)
        warm_up = replace(point, requests=point.streams, tokens=_WARM_UP_TOKENS)
        self._drive(worker, warm_up)
        if server is not None:
            server.follow(script_of(point))
        record, cost = self._drive(worker, point)
        truth = server.truth() if server is not None else None
        times = times_of_truth(record, truth) if truth is not None else times_of_null(record)
        if isinstance(worker, Shards) and truth is not None:
            self.of_shards[point] = calibrate_parts(worker.parts, point, cost, truth)
        return calibrate(record, times, point, cost, truth)

    def short(self, point: Point, python: str | None = None) -> Calibration:
        """``measure``, once for each point. Raises as ``measure`` does."""
        key = (point, python)
        if key not in self._known:
            self._known[key] = self.measure(*key)
        return self._known[key]

    def worker(self) -> Worker:
        """The worker that drives the client of Triton, where that is one process, for measurements of other kinds."""
        found = self._worker("triton_http", None)
        assert isinstance(found, Worker)
        return found

    def server(self) -> TruthServer:
        """The truth server, for measurements of other kinds."""
        return self._truth_server()

    def close(self) -> None:
        """End every process."""
        self._server = None
        self._workers.clear()
        self._open.close()

    def __enter__(self) -> "Calibrator":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _truth_server(self) -> TruthServer:
        if self._server is None:
            self._server = self._open.enter_context(TruthServer.start())
        return self._server

    def _worker(self, runtime: str, python: str | None) -> Client:
        key = (runtime, python)
        if key not in self._workers:
            log = self._directory / f"calibration-{runtime}.log"
            worker = self._start(log) if self._start and runtime != "null" else Worker.start(python, log)
            self._workers[key] = worker
            self._open.callback(worker.close)
        return self._workers[key]

    @staticmethod
    def _open_session(worker: Client, server: TruthServer | None, point: Point) -> None:
        if server is None:
            worker.open(point.runtime, {"first_s": point.ttft_s, "gap_s": point.gap_s})
        else:
            server.follow(Script(first_s=0.001, gap_s=0.001))  # for the warm-up
            connections = {"connections": point.streams}
            worker.open(point.runtime, {"urls": [server.url], "model": server.model, **connections})

    @staticmethod
    def _drive(worker: Client, point: Point) -> tuple[RoundRecord, Cost]:
        return drive(worker, load_of(point), requests_of(point))


def drive(worker: Client, load: Load, requests: list[Request]) -> tuple[RoundRecord, Cost]:
    """Run one round; return its record and what it cost the worker. Raises EnginebenchError."""
    worker.prepare(requests, load=load, round_index=0, warmup=False, stall_timeout_s=STALL_TIMEOUT_S)
    tokens = sum(request.output_tokens for request in requests)
    cpu_s = cpu_seconds_of(worker)
    wall_s = worker.run()["makespan_s"]
    running_s = cpu_seconds_of(worker) - cpu_s
    record = worker.fetch()
    decoding_s = cpu_seconds_of(worker) - cpu_s - running_s
    return record, Cost(running_s / tokens, decoding_s / tokens, running_s / wall_s, tokens / wall_s)


def load_of(point: Point) -> Load:
    """The load that a point stands for."""
    return Batch(point.streams) if point.kind == "batch" else Concurrency(point.streams)


def script_of(point: Point) -> Script:
    """What the truth server does at a point."""
    return Script(point.ttft_s, point.gap_s, point.together)


def requests_of(point: Point) -> list[Request]:
    """The requests of a point; the input id is the index, by which the truth knows them."""
    return [Request(index, "", (index,), _tokens_of(point, index), True, Sampling()) for index in range(point.requests)]


def _tokens_of(point: Point, index: int) -> int:
    return max(2, round(point.tokens * (0.5 + index * GOLDEN % 1.0))) if point.varied else point.tokens


def point_of(
    streams: int,
    rate: float,
    ttft_s: float,
    tokens: int,
    seconds: float,
    *,
    kind: str = "concurrency",
    together: bool = False,
    runtime: str = "triton_http",
) -> Point:
    """``streams`` at ``rate`` tokens/s each, for about ``seconds``; in a closed loop, answers of varied length."""
    gap_s = 1 / rate
    rounds = max(1, round(seconds / (ttft_s + gap_s * tokens)))
    varied = kind == "concurrency"
    return Point(streams, gap_s, ttft_s, tokens, streams * rounds, kind, together, varied, runtime)


def point_for(streams: int, gap_s: float, tokens: int, *, kind: str, runtime: str) -> Point:
    """The short calibration of a cell that showed this much: ``SHORT_S`` long, its tokens in step, never lighter.

    ``gap_s`` and ``tokens`` (of a request of the cell) are rounded down, to half octaves and powers of two, so that
    cells that are alike share a point; answers are not longer than the cell's: errors of TPOT shrink with length.
    """
    gap_s = 2 ** (math.floor(math.log2(gap_s) * 2) / 2)
    most = max(2, min(tokens, int((SHORT_S - _SHORT_TTFT_S) / gap_s)))
    tokens = 1 << (most.bit_length() - 1)
    rounds = max(1, int(SHORT_S / (_SHORT_TTFT_S + gap_s * tokens)))
    return Point(streams, gap_s, _SHORT_TTFT_S, tokens, streams * rounds, kind, together=True, runtime=runtime)


def cpu_seconds_of(client: Client) -> float:
    """CPU time of all processes of a client so far."""
    return sum(cpu_seconds(pid) for pid in pids_of(client))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads; to the nanosecond, unlike that in /proc."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9  # the clock id of another process: see clock_getcpuclockid(3)
