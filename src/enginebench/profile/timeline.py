"""The joint timeline of a run, on one axis: requests, gaps, iterations, server spans, GPU samples, kernels and ranges.

Measured cells and profiled reruns stand one below the other; everything is on CLOCK_MONOTONIC. Reads the run's files
and writes a trace for ui.perfetto.dev; computes nothing new.
"""

import gzip
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, groupby
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.errors import RunError
from enginebench.files import write_aside, writing
from enginebench.measure.records import RoundRecord
from enginebench.profile import nsys
from enginebench.profile.events import Event, Slice, Track, apart, in_order, nested
from enginebench.profile.iterations import Iterations
from enginebench.profile.torch_trace import gpu_spans, read_trace
from enginebench.store import Run
from enginebench.store_profiles import Profile, read_profiles
from enginebench.store_tables import read_columns

MOST_CHUNKS = 200_000
"""Of a cell: with more, its gaps between chunks are left out, and its requests stay."""
FIRST_PID = 1_001
"""Above the lanes: Perfetto takes a thread with the number of its process for the main one, and moves it up."""

COUNTERS = {
    "active": ("active", "requests"),
    "queued": ("queued", "requests"),
    "paused": ("paused", "requests"),
    "context_tokens": ("prompt", "tokens"),
    "generation_tokens": ("generated", "tokens"),
    "kv_blocks_used": ("KV blocks", "used"),
}
"""Column → what it counts and its unit: together they are the name that Perfetto shows."""
GPU_COUNTERS = {
    "sm_clock_mhz": ("SM clock", "MHz"),
    "power_w": ("power", "W"),
    "sm_percent": ("busy", "%"),
    "used_bytes": ("memory", "bytes"),
}


def write_timeline(run: Run, path: Path) -> int:
    """Write the trace of ``run`` to ``path``, compressed where that ends in .gz; return the number of events.

    Raises:
        RunError: the run left nothing to show, its files cannot be read, or ``path`` cannot be written.
    """
    profiles = [profile for profile in read_profiles(run.directory) if profile.taken]
    cells = {cell_id: rounds for cell_id in run.cells if (rounds := run.rounds(cell_id))}
    gpu = read_columns(run.directory / "telemetry" / "gpu.parquet")
    rounds = [record for several in cells.values() for record in several]
    rounds += [record for profile in profiles for record in profile.rounds()]
    if not rounds:
        raise RunError(f"{run.directory} holds no request of any cell, so that there is nothing to show.")
    sampled = [gpu.get("stamp_ns", ()), *(profile.columns("gpu").get("stamp_ns", ()) for profile in profiles)]
    starts = [record.started_ns for record in rounds] + [int(stamps[0]) for stamps in sampled if len(stamps)]
    events = _events(gpu, cells, profiles, min(starts) - 1_000_000_000)
    return _write(path, events, {"run": run.id, "build": run.data["build"]["name"]})


def _events(
    gpu: Mapping[str, Any], cells: Mapping[str, list[RoundRecord]], profiles: Iterable[Profile], base_ns: int
) -> Iterator[Event]:
    pids = count(FIRST_PID)
    for cell_id, rounds in cells.items():
        yield from requests(Track(next(pids), f"measured: {cell_id}", base_ns), rounds, {})
    yield from gpu_samples(pids, "", gpu, base_ns)
    for profile in profiles:
        yield from _rerun(profile, pids, base_ns)


def _rerun(profile: Profile, pids: "count[int]", base_ns: int) -> Iterator[Event]:
    """What differs stands first: Perfetto cuts long names in the middle."""
    kind, cell_id = profile.kind, profile.cell_id
    track = Track(next(pids), f"{kind}: {cell_id}", base_ns)
    scheduled = {int(index): stamp for index, stamp in (profile.data.get("scheduled_ns") or {}).items()}
    lanes = yield from requests(track, profile.rounds(), scheduled)
    yield from iterations(track, lanes + 1, Iterations.of(profile.columns("iterations")))
    if spans := profile.spans():
        yield from server_spans(Track(next(pids), f"server, {kind}: {cell_id}", base_ns), spans)
    yield from gpu_samples(pids, f", {kind}: {cell_id}", profile.columns("gpu"), base_ns)
    if found := list(_recorded(profile)):
        yield from spans_of(Track(next(pids), f"{_WHAT[kind]}: {cell_id}", base_ns), found)


_WHAT = {"torch": "kernels", "nsys": "NVTX ranges"}


def _recorded(profile: Profile) -> Iterator[Slice]:
    """Kernels of a torch trace, ranges of Nsight Systems: what can be put on the axis."""
    started_ns, round_name = profile.data.get("round_started_ns"), str(profile.data.get("round"))
    if started_ns is None:
        return
    if profile.kind == "torch":
        for path in sorted(profile.directory.glob("torch-trace*")):
            yield from (Slice(*each) for each in gpu_spans(read_trace(path), round_name, started_ns))
    if profile.kind == "nsys":
        for report in nsys.find_reports(profile.directory):
            yield from (Slice(*each) for each in nsys.ranges(report, round_name, started_ns))


def requests(
    track: Track, rounds: Iterable[RoundRecord], scheduled_ns: Mapping[int, int]
) -> Generator[Event, None, int]:
    """A span a request with what it did and the gaps between its chunks; return how many lanes that took."""
    rounds = list(rounds)
    with_chunks = sum(len(record.chunks) for record in rounds) <= MOST_CHUNKS
    whole = [(record, row, _request(record, row)) for record in rounds for row in range(len(record.requests))]
    sent = [each for each in whole if each[2] is not None]
    lanes = apart([each for _, _, each in sent if each is not None])
    yield from track.names({lane + 1: "requests" for lane in sorted(set(lanes))})
    for (record, row, each), lane in zip(sent, lanes, strict=True):
        assert each is not None
        parts = list(_parts(record, row, each, scheduled_ns))
        yield from (track.span(lane + 1, part) for part in (each, *parts))
        if with_chunks and parts and parts[-1].name == "decode":
            yield from (track.span(lane + 1, gap) for gap in _gaps(parts[-1], record, row))
    return len(set(lanes))


def _request(record: RoundRecord, row: int) -> Slice | None:
    """The whole of it; None for one that never left."""
    table = record.requests
    if not table.sent_ns[row]:
        return None
    stamps = in_order(int(stamp) for stamp in _stamps(record, row))
    args = {
        "round": record.round_index,
        "warm-up": record.warmup,
        "prompt tokens": int(table.prompt_tokens[row]),
        "tokens": int(table.tokens[row]),
        "ended": table.outcome[row],
    }
    return Slice(f"request {table.index[row]}", stamps[0], stamps[-1], args)


def _stamps(record: RoundRecord, row: int) -> tuple[int, ...]:
    table = record.requests
    return int(table.intended_ns[row]), int(table.sent_ns[row]), int(table.first_ns[row]), int(table.last_ns[row])


def _parts(record: RoundRecord, row: int, whole: Slice, scheduled_ns: Mapping[int, int]) -> Iterator[Slice]:
    """Client, queue, prefill and decode, each where its end is known; none reaches beyond the ``whole``."""
    intended, sent, first, last = _stamps(record, row)
    taken = scheduled_ns.get(int(record.requests.index[row])) if not record.warmup else None
    ends = [
        ("client", sent),
        ("queued", taken),
        ("prefill" if taken else "queued and prefill", first),
        ("decode", last),
    ]
    known = [(name, min(end, whole.end_ns)) for name, end in ends if end]
    stamps = in_order([intended, *(end for _, end in known)])
    for (name, _), start, end in zip(known, stamps, stamps[1:], strict=False):
        if end > start:
            yield Slice(name, start, end)


def _gaps(decode: Slice, record: RoundRecord, row: int) -> Iterator[Slice]:
    """From each arrival to the next, those of one moment being one."""
    chunks = record.chunks
    rows = np.flatnonzero(chunks.request == record.requests.index[row])
    start = decode.start_ns
    for stamp, several in groupby(rows[np.argsort(chunks.stamp_ns[rows], kind="stable")], chunks.stamp_ns.__getitem__):
        if not start < stamp <= decode.end_ns:
            continue
        at = list(several)
        late_us = (chunks.read_ns[at[-1]] - stamp) / 1e3 if chunks.read_ns[at[-1]] > 0 else None
        yield Slice("gap", start, int(stamp), {"tokens": int(chunks.tokens[at].sum()), "read late, us": late_us})
        start = int(stamp)


def iterations(track: Track, tid: int, table: Iterations) -> Iterator[Event]:
    """A span a step and counters; both begin with the step where its length is known."""
    if not len(table):
        return
    yield from track.names({tid: "engine steps"})
    ended_ns = 0
    for row, stamp_ns in enumerate(table.stamp_ns.tolist()):
        values = {name: value for name in COUNTERS if np.isfinite(value := table[name][row])}
        start_ns = stamp_ns
        if np.isfinite(step_ns := table["step_ns"][row]):
            start_ns = min(stamp_ns, max(ended_ns, stamp_ns - int(step_ns)))  # one step at a time
            name = "step with a prompt" if values.get("context_tokens") else "step"
            args = {" ".join(COUNTERS[name]): value for name, value in values.items()}
            yield track.span(tid, Slice(name, start_ns, stamp_ns, args))
            ended_ns = stamp_ns
        yield from (track.counter(*COUNTERS[name], start_ns, value) for name, value in values.items())


def server_spans(track: Track, trees: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """Triton's spans, model by model, with queue and compute in them; those of a request on lanes of its own."""
    groups = [slices for tree in trees if (slices := list(_server_slices(tree)))]
    within = [nested(slices) for slices in groups]
    wide = 1 + max((max(lanes) for lanes in within), default=0)
    rows = apart([Slice("", min(it.start_ns for it in each), max(it.end_ns for it in each)) for each in groups])
    lanes = [row * wide + lane for row, group in zip(rows, within, strict=True) for lane in group]
    yield from _on_lanes(track, list(chain.from_iterable(groups)), lanes)


def _server_slices(tree: Mapping[str, Any]) -> Iterator[Slice]:
    stamps = {name: values[0] for name, values in tree["stamps_ns"].items() if values}
    pairs = [(tree["model"], "REQUEST_START", "REQUEST_END"), ("queue", "QUEUE_START", "COMPUTE_START"),
             ("compute", "COMPUTE_START", "COMPUTE_END")]  # fmt: skip
    for name, begins, ends in pairs:
        if begins in stamps and stamps.get(ends, 0) >= stamps[begins]:
            yield Slice(name, stamps[begins], stamps[ends], {"request": tree["id"], "model": tree["model"]})
    for child in tree["children"]:
        yield from _server_slices(child)


def spans_of(track: Track, slices: list[Slice]) -> Iterator[Event]:
    """Any spans, on lanes in which they nest."""
    yield from _on_lanes(track, slices, nested(slices))


def _on_lanes(track: Track, slices: Sequence[Slice], lanes: Sequence[int]) -> Iterator[Event]:
    yield from track.names({lane + 1: "lane" for lane in sorted(set(lanes))})
    order = sorted(range(len(slices)), key=lambda at: (slices[at].start_ns, -slices[at].end_ns))
    yield from (track.span(lanes[at] + 1, slices[at]) for at in order)


def gpu_samples(pids: "count[int]", suffix: str, columns: Mapping[str, Any], base_ns: int) -> Iterator[Event]:
    """Counters of each GPU."""
    if not len(columns.get("stamp_ns", ())):
        return
    gpus = np.asarray(columns.get("gpu", np.zeros(len(columns["stamp_ns"]))))
    for gpu in np.unique(gpus):
        track = Track(next(pids), f"GPU {gpu}{suffix}", base_ns)
        yield from track.names()
        for name, (what, unit) in GPU_COUNTERS.items():
            for row in np.flatnonzero(gpus == gpu) if name in columns else ():
                value = columns[name][row]
                if value is not None and np.isfinite(value):
                    yield track.counter(what, unit, int(columns["stamp_ns"][row]), float(value))


def _write(path: Path, events: Iterable[Event], about: Mapping[str, str]) -> int:
    written = 0

    def write(aside: Path) -> None:
        nonlocal written
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(aside, "wt", encoding="utf-8") as file:
            file.write(f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": [\n')
            for event in events:
                file.write(("" if not written else ",\n") + json.dumps(event))
                written += 1
            file.write("\n]}\n")

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, write)
    return written
