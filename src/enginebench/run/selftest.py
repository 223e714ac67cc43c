"""What the client is able to do, measured against known truth on this machine, and held against what it should reach.

One table, one command (``enginebench selftest client``), the same rows as ``bench/harness``. Figures are errors
against truth and ratios within one run; a machine that is busy with something else shows in them.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from enginebench.errors import EnginebenchError, ServerError
from enginebench.measure.calibration import Calibration, Point
from enginebench.measure.calibrator import STALL_TIMEOUT_S, Calibrator, load_of, point_of, requests_of, script_of
from enginebench.measure.records import RoundRecord
from enginebench.store import RunStore

FLAT_OUT_STREAMS = 16
_FLAT_OUT_RATE = 60_000  # tokens/s, about: to make a round last as long as asked for
_MEMORY_TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row showed. ``figures``: name → value, in the units that the names say."""

    text: str
    reached: bool
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long one measurement takes, about, and how often it is repeated: of several, the median counts."""

    seconds: float = 6.0
    repeats: int = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that the client should be able to do."""

    name: str
    load: str
    reach: str
    measure: Callable[[Calibrator, Effort], Outcome]


def _medians(found: Sequence[Calibration]) -> dict[str, float]:
    """Over repetitions: relative errors of TTFT and ITL in percent, and what it cost."""
    figures = {
        f"{metric}_{name}_error_%": statistics.median(abs(each.errors[metric][name].relative or 0) for each in found)
        * 100
        for metric in ("ttft", "itl", "e2e_latency")
        for name in ("p50", "mean", "p99")
    }
    return figures | {
        "ttft_truth_p50_ms": statistics.median(each.errors["ttft"]["p50"].truth_s for each in found) * 1e3,
        "stamp_lateness_p50_us": statistics.median(each.stamp_lateness.p50 for each in found) * 1e6,
        "stamp_lateness_p99_us": statistics.median(each.stamp_lateness.p99 for each in found) * 1e6,
        "slip_p50_us": statistics.median(each.slip.p50 for each in found) * 1e6,
        "sustained": min(each.sustained or 0.0 for each in found),
        "cpu_us_per_token": statistics.median(each.cost.cpu_s_per_token for each in found) * 1e6,
        "decode_cpu_us_per_token": statistics.median(each.cost.decode_cpu_s_per_token for each in found) * 1e6,
    }


def _paced(streams: int, rate: float, tokens: int, limits: Mapping[str, float]) -> Callable[..., Outcome]:
    def measure(calibrator: Calibrator, effort: Effort) -> Outcome:
        point = point_of(streams, rate, 0.02, tokens, effort.seconds)
        figures = _medians([calibrator.measure(point) for _ in range(effort.repeats)])
        errors = {name: figures[f"ttft_{name}_error_%"] for name in ("p50", "mean", "p99")}
        text = ", ".join(f"{name} {error:.1f} %" for name, error in errors.items())
        held = figures["sustained"] >= 0.95
        reached = held and all(errors[name] <= limit for name, limit in limits.items())
        return Outcome(f"TTFT {text}{'' if held else '; not sustained'}", reached, figures)

    return measure


def _together(calibrator: Calibrator, effort: Effort) -> Outcome:
    point = point_of(128, 50, 0.02, 100, effort.seconds, together=True)
    figures = _medians([calibrator.measure(point) for _ in range(effort.repeats)])
    middle, tail = figures["stamp_lateness_p50_us"], figures["stamp_lateness_p99_us"]
    return Outcome(f"median {middle / 1e3:.3f} ms late, p99 {tail / 1e3:.3f} ms", middle < 500, figures)


def _flat_out(calibrator: Calibrator, effort: Effort) -> Outcome:
    """Ours and the bare loop take turns, so that both meet the same machine."""
    tokens = max(1000, int(effort.seconds * _FLAT_OUT_RATE / FLAT_OUT_STREAMS))
    point = _flat_out_point(tokens)
    bare, ours = [], []
    for _ in range(effort.repeats):
        bare.append(_bare(calibrator, point))
        ours.append(calibrator.measure(point).cost)
    figures = {
        "ratio": statistics.median(our.tokens_per_s / one["tokens_per_s"] for our, one in zip(ours, bare, strict=True)),
        "tokens_per_s": statistics.median(one.tokens_per_s for one in ours),
        "bare_tokens_per_s": statistics.median(one["tokens_per_s"] for one in bare),
        "cpu_us_per_token": statistics.median(one.cpu_s_per_token for one in ours) * 1e6,
        "bare_cpu_us_per_token": statistics.median(one["cpu_s_per_token"] for one in bare) * 1e6,
        "cpu_share": statistics.median(one.cpu_share for one in ours),
    }
    rates = f"{figures['tokens_per_s']:,.0f} tokens/s, {figures['ratio']:.2f} of {figures['bare_tokens_per_s']:,.0f}"
    cpu = f"{figures['cpu_us_per_token']:.1f} µs of CPU a token against {figures['bare_cpu_us_per_token']:.1f}"
    return Outcome(f"{rates}; {cpu}", figures["ratio"] >= 0.8, figures)


def _flat_out_point(tokens: int) -> Point:
    return Point(FLAT_OUT_STREAMS, 0.0, 0.0, tokens, FLAT_OUT_STREAMS, kind="batch")


def _bare(calibrator: Calibrator, point: Point) -> Mapping[str, float]:
    """Tokens per second, and CPU time per token, of the bare loop reading one answer a stream."""
    server, streams, tokens = calibrator.server(), point.streams, point.tokens
    server.follow(script_of(point))
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "enginebench.measure.bare_client", port, str(streams), str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"The bare loop failed: {done.stderr.strip().splitlines()[-1]}.")
    server.truth()
    said = json.loads(done.stdout)
    return {"tokens_per_s": said["tokens_per_s"], "cpu_s_per_token": said["cpu_s"] / (streams * tokens)}


def _cpu(calibrator: Calibrator, effort: Effort) -> Outcome:
    """Beside the bare loop's at the same pace: waking up for a token costs what the machine wants."""
    figures, seconds = {}, effort.seconds / 2
    for streams, rate, tokens in ((16, 200.0, 64), (100, 50.0, 25), (256, 100.0, 50)):
        point = point_of(streams, rate, 0.02, tokens, seconds)
        costs = [calibrator.measure(point).cost.cpu_s_per_token for _ in range(effort.repeats)]
        alone = replace(point, tokens=max(2, int(seconds * rate)))
        bare = [_bare(calibrator, alone)["cpu_s_per_token"] for _ in range(effort.repeats)]
        figures[f"{streams}x{rate:.0f}_cpu_us_per_token"] = statistics.median(costs) * 1e6
        figures[f"{streams}x{rate:.0f}_bare_cpu_us_per_token"] = statistics.median(bare) * 1e6
    ours, bare_ones = list(figures.values())[::2], list(figures.values())[1::2]
    text = f"{_list(ours)} µs at the three paced loads (the bare loop: {_list(bare_ones)})"
    return Outcome(text, all(value < 15 for value in ours), figures)


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _memory(calibrator: Calibrator, effort: Effort) -> Outcome:
    tokens = min(_MEMORY_TOKENS, int(effort.seconds * _MEMORY_TOKENS)) // FLAT_OUT_STREAMS
    point = _flat_out_point(tokens)
    calibrator.close()  # so that the worker's memory is that of a new one
    calibrator.measure(_flat_out_point(100))  # opens the session
    worker, server = calibrator.worker(), calibrator.server()
    server.follow(script_of(point))
    process = psutil.Process(worker.pid)
    worker.prepare(
        requests_of(point), load=load_of(point), round_index=0, warmup=False, stall_timeout_s=STALL_TIMEOUT_S
    )
    before = process.memory_info().rss
    worker.run()
    recording = process.memory_info().rss - before
    record = worker.fetch()
    server.truth()
    per_million = len(record.chunks.token_ids) / 1e6
    figures = {
        "recording_MB": recording / 1e6 / per_million,
        "decoding_peak_MB": (_peak_rss(worker.pid) - before) / 1e6 / per_million,
        "stored_MB": _stored_bytes(record) / 1e6 / per_million,
    }
    text = (
        f"{figures['recording_MB']:.0f} MB, {figures['stored_MB']:.1f} MB (peak {figures['decoding_peak_MB']:.0f} MB)"
    )
    return Outcome(text, figures["recording_MB"] < 300 and figures["stored_MB"] < 60, figures)


def _peak_rss(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def _stored_bytes(record: RoundRecord) -> int:
    header = dict.fromkeys(("command", "build", "attached_url", "environment", "calibration", "plan"))
    with tempfile.TemporaryDirectory(prefix="enginebench-selftest-") as scratch:
        store = RunStore.create(Path(scratch), header)
        store.write_cell("cell", {}, [record])
        return sum(path.stat().st_size for path in (store.directory / "cells").rglob("*.parquet"))


ROWS = (
    Row(
        "16x200",
        "16 streams × 200 tok/s, TTFT truth 20 ms",
        "TTFT p50 within 1.5 %, mean 3 %, p99 10 % of truth",
        _paced(16, 200, 64, {"p50": 1.5, "mean": 3, "p99": 10}),
    ),
    Row(
        "100x50",
        "100 streams × 50 tok/s",
        "TTFT p50 and mean within 5 %, p99 10 %",
        _paced(100, 50, 25, {"p50": 5, "mean": 5, "p99": 10}),
    ),
    Row(
        "256x100",
        "256 streams × 100 tok/s",
        "sustained; TTFT p50 within 5 %",
        _paced(256, 100, 50, {"p50": 5}),
    ),
    Row("together", "128 streams × 50 tok/s stepping together", "median stamp under 0.5 ms late", _together),
    Row("flat-out", "flat out, 16 streams", "at least 0.8 of a bare epoll-and-recv loop", _flat_out),
    Row("cpu", "CPU per token, paced", "under 15 µs", _cpu),
    Row("memory", "per million tokens: recording, stored", "under 300 MB, under 60 MB", _memory),
)
"""What the client should be able to do on two cores that also run the server."""


def run_row(row: Row, calibrator: Calibrator, effort: Effort) -> Outcome:
    """Measure one row; what goes wrong is an outcome, too."""
    try:
        return row.measure(calibrator, effort)
    except EnginebenchError as error:
        return Outcome(f"failed: {error}", reached=False)


def markdown(outcomes: Mapping[str, Outcome]) -> str:
    """The table, to be pasted."""
    lines = ["| load | reach | measured | reached |", "| --- | --- | --- | --- |"]
    found = [(row, outcomes[row.name]) for row in ROWS if row.name in outcomes]
    lines += [f"| {row.load} | {row.reach} | {one.text} | {'yes' if one.reached else 'no'} |" for row, one in found]
    return "\n".join(lines)
