"""A server's ``/metrics`` page over time, about ten times a second.

A process of its own asks for the page, ``python -m enginebench.measure.server_sampler URL``, so that neither the client
nor the harness waits for it; it sends what has changed as JSON lines, ``[stamp_ns, [[family, labels, value], ...]]``,
or null for a page that did not come. Gauges are what they were at that moment: what happens in between is not seen.
"""

import argparse
import json
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from enginebench.clock import now_ns
from enginebench.errors import ServerError
from enginebench.server.metrics_page import INSTANCE, Labels, Reading, kept, parse, series
from enginebench.server.plain_http import fetch

PERIOD_S = 0.1  # as often as TensorRT-LLM's backend renews its gauges by default
SHARE = 0.02
"""Of a core: what asking and reading may cost here; dearer pages are asked for less often."""
START_TIMEOUT_S = 10.0
"""For the process to read its first page: a round that starts before would not be sampled."""


@dataclass(frozen=True, slots=True)
class PageSample:
    """What was new on one page."""

    stamp_ns: int
    changed: tuple[Reading, ...]  # against the sample before; of the first one everything


class ServerSampler:
    """The process and what it has said so far, once it has read its first page. ``stop`` ends it; samples stay.

    ``instance``: of which server the page at ``url`` is; every reading carries it as a label.
    """

    def __init__(self, url: str, instance: str, period_s: float = PERIOD_S) -> None:
        self._instance = instance
        command = [sys.executable, "-m", "enginebench.measure.server_sampler", url, "--period", str(period_s)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, text=True, bufsize=1, start_new_session=True, **pipes)
        self._lock = threading.Lock()
        self._samples: list[PageSample] = []
        self._reads = threading.Event()
        self.missed = 0  # pages that did not come
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="metrics", daemon=True)
        self._reader.start()
        self._reads.wait(START_TIMEOUT_S)

    def samples(self, since_ns: int = 0, until_ns: int | None = None) -> list[PageSample]:
        """The samples taken from ``since_ns`` to ``until_ns`` (default: now), oldest first."""
        with self._lock:
            return [each for each in self._samples if since_ns <= each.stamp_ns <= (until_ns or each.stamp_ns)]

    def stop(self) -> None:
        """End the process. May be called twice."""
        if self._process.stdin is None or self._process.stdin.closed:
            return
        with suppress(OSError):
            self._process.stdin.close()  # the end of its input ends it
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(2)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self, stream: IO[str]) -> None:
        with suppress(ValueError, OSError):  # half a line, or a closed pipe, when the process goes
            for line in stream:
                stamp_ns, changed = json.loads(line)
                with self._lock:
                    if changed is None:
                        self.missed += 1
                    else:
                        readings = tuple(_reading(self._instance, *each) for each in changed)
                        self._samples.append(PageSample(stamp_ns, readings))
                self._reads.set()
        self._reads.set()  # also where no page ever came


def merged(samplers: Sequence[ServerSampler]) -> list[PageSample]:
    """The samples of several servers, oldest first."""
    every = [sample for sampler in samplers for sample in sampler.samples()]
    return sorted(every, key=lambda sample: sample.stamp_ns)


def state_before(samples: Sequence[PageSample], stamp_ns: int) -> dict[tuple[str, Labels], float]:
    """Every value as it was last seen before ``stamp_ns``."""
    state: dict[tuple[str, Labels], float] = {}
    for sample in samples:
        if sample.stamp_ns >= stamp_ns:
            break
        state |= series(sample.changed)
    return state


def columns_of(samples: Sequence[PageSample]) -> dict[str, list[Any]]:
    """As telemetry/server.parquet holds them: a row for each value that is new or has changed; labels are JSON."""
    rows = [(sample.stamp_ns, each) for sample in samples for each in sample.changed]
    return {
        "stamp_ns": [stamp_ns for stamp_ns, _ in rows],
        "family": [each.family for _, each in rows],
        "labels": [json.dumps(dict(each.labels)) for _, each in rows],
        "value": [each.value for _, each in rows],
    }


def _reading(instance: str, family: str, labels: Mapping[str, str], value: float) -> Reading:
    return Reading(family, tuple(sorted({**labels, INSTANCE: instance}.items())), value)


def sample_until_end(url: str, period_s: float) -> None:
    """Write a sample every ``period_s``, or less often where a page is dear, until standard input ends."""
    known: dict[tuple[str, Labels], float] = {}
    wait_s = 0.0
    while not select.select([sys.stdin], [], [], wait_s)[0]:
        started_s, cpu_s, stamp_ns = time.monotonic(), time.thread_time(), now_ns()
        try:
            page = kept(parse(fetch(url, timeout_s=1.0)))
        except ServerError:
            print(json.dumps([stamp_ns, None]), flush=True)
        else:
            changed = [each for each in page if known.get((each.family, each.labels)) != each.value]
            known |= series(changed)
            rows = [[each.family, dict(each.labels), each.value] for each in changed]
            print(json.dumps([stamp_ns, rows]), flush=True)
        cost_s = time.thread_time() - cpu_s
        wait_s = max(0.0, max(period_s, cost_s / SHARE) - (time.monotonic() - started_s))


def main() -> None:
    """Sample until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the harness decides when sampling ends
    parser = argparse.ArgumentParser(prog="python -m enginebench.measure.server_sampler", description=__doc__)
    parser.add_argument("url", help="of the metrics page")
    parser.add_argument("--period", type=float, default=PERIOD_S, metavar="SECONDS")
    options = parser.parse_args()
    with suppress(BrokenPipeError):
        sample_until_end(options.url, options.period)


if __name__ == "__main__":
    main()
