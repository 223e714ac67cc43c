"""The joint timeline, held to the rules of the format: spans of a track nest or lie apart, each where it belongs."""

import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.measure.profilers import ROUND
from enginebench.profile.events import Slice, Track, apart, nested
from enginebench.profile.iterations import Iterations
from enginebench.profile.timeline import iterations, requests, server_spans, spans_of, write_timeline
from enginebench.store import load_run
from enginebench.store_profiles import profile_directory, write_json, write_profile, write_records, write_table
from tests.support.detailed_run import CELLS, write_detailed_run
from tests.support.rounds import MS, START_NS, Row, round_of

TRACK = Track(1, "a track", START_NS)
ROUNDING_US = 1e-6

Event = Mapping[str, Any]


def check_format(events: Sequence[Event]) -> None:
    """What ui.perfetto.dev demands of Chrome's format: raises AssertionError."""
    tracks: dict[tuple[int, int], list[Event]] = defaultdict(list)
    named = {each["pid"] for each in events if each["ph"] == "M" and each["name"] == "process_name"}
    for each in events:
        assert each["ph"] in {"M", "X", "C"}
        assert each["pid"] in named
        assert isinstance(each["name"], str)
        if each["ph"] == "X":
            assert each["dur"] >= 0
            tracks[each["pid"], each["tid"]].append(each)
        if each["ph"] == "C":
            assert all(np.isfinite(value) for value in each["args"].values())
    for spans in tracks.values():
        check_nesting(spans)


def check_nesting(spans: Sequence[Event]) -> None:
    open_: list[float] = []
    for each in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
        while open_ and open_[-1] <= each["ts"] + ROUNDING_US:
            open_.pop()
        assert not open_ or each["ts"] + each["dur"] <= open_[-1] + ROUNDING_US, each
        open_.append(each["ts"] + each["dur"])


slices = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 300)).map(lambda it: Slice("x", it[0], it[0] + it[1])), max_size=40
)


@settings(max_examples=100, deadline=None)
@given(slices)
def test_lanes(spans: list[Slice]) -> None:
    check_format(list(spans_of(TRACK, spans)))
    lanes: dict[int, list[Slice]] = defaultdict(list)
    for each, lane in zip(spans, apart(spans), strict=True):
        lanes[lane].append(each)
    for members in lanes.values():
        members.sort(key=lambda each: (each.start_ns, each.end_ns))
        assert all(one.end_ns <= two.start_ns for one, two in pairwise(members))
    assert max(nested(spans), default=0) <= max(apart(spans), default=0)  # nesting never takes more room


times = st.floats(0, 500)
request_rows = st.lists(
    st.tuples(times, times, st.lists(times, max_size=6), st.sampled_from(["ok", "stall", "error"])),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(request_rows, st.dictionaries(st.integers(0, 7), times))
def test_whatever_requests_do(rows: list[Any], scheduled_ms: dict[int, float]) -> None:
    """Also with stamps that contradict each other, as those of two clocks may."""
    record = round_of(*(
        Row(chunks=[(at, 1) for at in sorted(chunks)], intended=intended, sent=sent, outcome=outcome)
        for intended, sent, chunks, outcome in rows
    ))  # fmt: skip
    scheduled = {index: START_NS + round(at * MS) for index, at in scheduled_ms.items()}
    check_format(list(requests(TRACK, [record], scheduled)))


def test_a_request_has_its_phases_in_order() -> None:
    record = round_of(Row(chunks=[(50.0, 1), (70.0, 1), (70.0, 2), (80.0, 1)], intended=0.0, sent=2.0))
    events = list(requests(TRACK, [record], {0: START_NS + 20 * MS}))
    spans = [(each["name"], each["ts"], each["dur"]) for each in events if each["ph"] == "X"]
    assert spans == [
        ("request 0", 0.0, 80_000.0),
        ("client", 0.0, 2_000.0),
        ("queued", 2_000.0, 18_000.0),
        ("prefill", 20_000.0, 30_000.0),
        ("decode", 50_000.0, 30_000.0),
        ("gap", 50_000.0, 20_000.0),
        ("gap", 70_000.0, 10_000.0),
    ]
    assert [each["args"]["tokens"] for each in events if each["name"] == "gap"] == [3, 1]
    unknown = list(requests(TRACK, [record], {}))
    assert "queued and prefill" in {each["name"] for each in unknown}


def test_steps_follow_each_other_though_their_times_overlap() -> None:
    table = Iterations.of({"stamp_ns": [START_NS + 10 * MS, START_NS + 20 * MS], "step_ns": [10 * MS, 15 * MS],
                           "context_tokens": [0, 64], "active": [1, 2]})  # fmt: skip
    events = list(iterations(TRACK, 1, table))
    check_format([*TRACK.names(), *events])
    spans = [(each["name"], each["ts"], each["dur"]) for each in events if each["ph"] == "X"]
    assert spans == [("step", 0.0, 10_000.0), ("step with a prompt", 10_000.0, 10_000.0)]
    counted = [(each["ts"], each["args"]) for each in events if each["ph"] == "C" and each["name"] == "active"]
    assert counted == [(0.0, {"requests": 1.0}), (10_000.0, {"requests": 2.0})]  # with the steps


def span(model: str, start: int, end: int, *children: Any) -> dict[str, Any]:
    moments = {"REQUEST_START": 0, "QUEUE_START": 1, "COMPUTE_START": 2, "COMPUTE_END": end - start - 1}
    stamps = {name: [START_NS + start + after] for name, after in moments.items()}
    stamps["REQUEST_END"] = [START_NS + end]
    return {"id": start, "model": model, "parent": None, "stamps_ns": stamps, "children": list(children)}


def test_models_of_an_ensemble_overlap_and_are_still_told_apart() -> None:
    tree = span("ensemble", 0, 1000, span("preprocessing", 10, 100), span("tensorrt_llm", 100, 900),
                span("postprocessing", 300, 950))  # fmt: skip
    events = list(server_spans(TRACK, [tree]))
    check_format(events)
    lanes = {each["name"]: each["tid"] for each in events if each["ph"] == "X"}
    assert lanes["tensorrt_llm"] != lanes["postprocessing"]
    assert sum(each["ph"] == "X" for each in events) == 4 * 3


def test_each_request_has_the_lanes_of_its_spans_to_itself() -> None:
    together = [span("ensemble", start, 1000, span("core", 100, 900)) for start in (0, 10)]
    lanes = defaultdict(set)
    for each in server_spans(TRACK, [*together, span("ensemble", 2000, 3000)]):
        if each["ph"] == "X":
            lanes[each["args"]["request"] if each["name"] == "ensemble" else None].add(each["tid"])
    assert lanes[0] | lanes[10] == {1, 2}
    assert lanes[2000] == {1}


def test_the_trace_of_a_run(tmp_path: Path) -> None:
    directory = write_detailed_run(tmp_path)
    rerun = profile_directory(directory, "iterations", CELLS[0].id)
    record = round_of(Row(chunks=[(50.0, 1), (80.0, 1)], sent=2.0), start_ns=START_NS + 10_000 * MS)
    write_records(rerun, [record])
    stamps = [record.started_ns + 50 * MS, record.started_ns + 80 * MS]
    write_table(
        rerun,
        "iterations",
        {"stamp_ns": stamps, "step_ns": [40 * MS, 30 * MS], "active": [1, 1], "paused": [None, None]},
    )
    write_table(
        rerun,
        "gpu",
        {
            "stamp_ns": [START_NS - 60_000 * MS, stamps[0]],
            "gpu": [0, 0],
            "sm_clock_mhz": [1980, None],
            "power_w": [300.5, 310.0],
        },
    )
    write_json(rerun / "spans.json", [span("ensemble", 0, 1000)])
    head = {"kind": "iterations", "cell": CELLS[0].id, "status": "taken"}
    write_profile(rerun, {**head, "scheduled_ns": {"0": record.started_ns + 20 * MS}})
    marked = profile_directory(directory, "nsys", CELLS[0].id)
    write_profile(marked, {**head, "kind": "nsys", "round": ROUND, "round_started_ns": record.started_ns})
    (marked / "report.nsys-rep").touch()
    rows = ("name,start_ns,end_ns", f"{ROUND},500000,12500000", "request 0: decode,6000000,12000000")
    (marked / "report_ranges.csv").write_text("\n".join(rows))
    path = tmp_path / "trace.json.gz"
    written = write_timeline(load_run(directory), path)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert len(events) == written
    check_format(events)
    assert all(each.get("ts", 0) >= 0 for each in events)  # Perfetto drops what has a negative time
    names = {each["args"]["name"] for each in events if each["name"] == "process_name"}
    assert {f"measured: {cell.id}" for cell in CELLS} <= names
    rerun_name = f"iterations: {CELLS[0].id}"
    assert {rerun_name, f"server, {rerun_name}", f"GPU 0, {rerun_name}"} <= names
    assert f"NVTX ranges: {CELLS[0].id}" in names
    found = {each["name"] for each in events if each["ph"] in "XC"}
    assert {
        "queued",
        "prefill",
        "decode",
        "step",
        "ensemble",
        "SM clock",
        "power",
        "request 0: decode",
    } <= found
    steps = [each for each in events if each["name"] == "step"]
    prefill = next(each for each in events if each["name"] == "prefill")
    assert steps[0]["ts"] + steps[0]["dur"] == pytest.approx(prefill["ts"] + prefill["dur"])  # one axis
