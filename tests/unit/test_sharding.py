"""Dividing a round and putting it together again: nothing is lost, doubled, moved or averaged."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.errors import WorkerError
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import ChunkTable, RoundRecord, columns, head
from enginebench.measure.releases import release_of
from enginebench.measure.sharding import ShardClock, ShardRecord, merge, split
from enginebench.plan.arrivals import offsets_ns
from enginebench.plan.load import Batch, Concurrency, Load, Rate, load_from_json, load_to_json
from enginebench.plan.requests import Request, Sampling
from tests.support.rounds import MS, START_NS, Row, assert_same_record, round_of

HERE = ShardClock("here", "boot")
SHARDS = st.integers(1, 9)
LOADS = st.one_of(
    st.builds(Batch, st.integers(1, 20)),
    st.builds(Concurrency, st.integers(1, 20)),
    st.builds(Concurrency, st.integers(1, 4), duration_s=st.just(0.1)),
    st.builds(Rate, st.floats(0.5, 50), requests=st.integers(1, 60)),
)


def requests_for(load: Load, count: int, seed: int = 0) -> list[Request]:
    offsets = offsets_ns(load, random.Random(seed)) if isinstance(load, Rate) else (0,) * count
    return [Request(index, "x", (7,), 3, True, Sampling(seed=index), offset) for index, offset in enumerate(offsets)]


@given(LOADS, st.integers(1, 60), SHARDS)
def test_every_request_goes_to_one_shard_as_it_is(load: Load, count: int, shards: int) -> None:
    requests = requests_for(load, count)
    parts = split(load, requests, shards)
    assert len(parts) == shards
    assert sorted((request for part in parts for request in part.requests), key=lambda each: each.index) == requests
    assert all([*part.requests] == sorted(part.requests, key=lambda each: each.offset_ns) for part in parts)
    assert all(part.load == load_from_json(load_to_json(part.load)) for part in parts)


@given(
    st.sampled_from(["constant", "poisson", "gamma"]),
    st.floats(0.5, 2000),
    st.integers(1, 80),
    SHARDS,
    st.integers(0, 99),
    st.floats(0.5, 50) | st.none(),
)
def test_the_schedules_of_all_shards_are_the_schedule_asked_for(
    arrival: Any, per_s: float, count: int, shards: int, seed: int, ramp: float | None
) -> None:
    load = Rate(per_s, arrival, burstiness=0.5, ramp_to_per_s=ramp, requests=count)
    requests = requests_for(load, count, seed)

    def schedule(part: Load, asked: Sequence[Request]) -> list[tuple[int, int]]:
        return [(at, request.index) for request, at in release_of(part, asked, START_NS).due(2**62)]

    sent = [each for part in split(load, requests, shards) for each in schedule(*part)]
    assert sorted(sent) == schedule(load, requests)


@given(st.integers(1, 60), st.integers(1, 200), SHARDS)
def test_places_and_requests_are_divided_in_proportion(level: int, count: int, shards: int) -> None:
    parts = split(Concurrency(level), requests_for(Concurrency(level), count), shards)
    levels = [part.load.level for part in parts]
    assert sum(levels) == level
    assert max(levels) - min(levels) <= 1
    for part in parts:
        assert abs(len(part.requests) - count * part.load.level / level) < max(1.0, part.load.level)


def test_ten_places_over_four_shards() -> None:
    parts = split(Concurrency(10), requests_for(Concurrency(10), 20), 4)
    assert [part.load.level for part in parts] == [3, 3, 2, 2]
    assert [[request.index for request in part.requests] for part in parts] == [
        [0, 4, 8, 10, 14, 18],
        [1, 5, 9, 11, 15, 19],
        [2, 6, 12, 16],
        [3, 7, 13, 17],
    ]


@given(st.integers(1, 8), st.integers(1, 4), SHARDS, st.integers(1, 60))
def test_requests_that_are_repeated_to_fill_a_time_get_indices_of_their_own(
    level: int, laps: int, shards: int, ends: int
) -> None:
    load = Concurrency(level, duration_s=1.0)
    requests = requests_for(load, 4 * level)
    sent: list[Request] = []
    for part in split(load, requests, shards):
        release = release_of(part.load, part.requests, START_NS)
        for now_ns in range(START_NS, START_NS + laps * 8 * MS, MS):
            due = release.due(now_ns)
            sent += [request for request, _ in due]
            for _ in due:
                release.ended(now_ns)
    assert len({request.index for request in sent}) == len(sent) > len(requests) * (laps - 1)
    for request in sent:  # as one process would have asked under this index
        again = requests[request.index % len(requests)]
        assert request.sampling.seed == request.index
        assert request == replace(again, index=request.index, sampling=request.sampling)


@pytest.mark.parametrize(
    ("size", "count", "sizes"), [(8, 8, [3, 3, 2]), (8, 16, [16, 0, 0]), (2, 2, [1, 1, 0]), (8, 5, [2, 2, 1])]
)
def test_a_single_batch_is_divided_and_several_stay_together(size: int, count: int, sizes: list[int]) -> None:
    parts = split(Batch(size), requests_for(Batch(size), count), 3)
    assert [len(part.requests) for part in parts] == sizes
    if count > size:
        assert parts[0].load == Batch(size)
    else:
        assert all(part.load.connections >= len(part.requests) for part in parts)


# --- Merging ---------------------------------------------------------------------------------------------------------


def part_of(record: RoundRecord, keep: Sequence[int], load: Load, offset_ns: int = 0) -> ShardRecord:
    """What the shard that drove the requests in ``keep`` would have recorded, on a clock that is behind by so much."""
    rows = np.flatnonzero(np.isin(record.requests.index, keep))
    of_request = np.isin(record.chunks.request, keep)
    ids = [each for each, wanted in zip(record.chunks.ids(), of_request, strict=True) if wanted]

    def chosen(table: Any, wanted: Any) -> dict[str, Any]:
        return {
            name: tuple(values[row] for row in wanted) if isinstance(values, tuple) else values[wanted]
            for name, values in columns(table).items()
            if name != "token_ids"
        }

    def behind(values: dict[str, Any]) -> dict[str, Any]:
        stamps = {name: np.where(each > 0, each - offset_ns, each) for name, each in values.items() if "_ns" in name}
        return values | stamps

    chunks = behind(chosen(record.chunks, of_request))
    requests = behind(chosen(record.requests, rows))
    stamps = [*requests["intended_ns"][requests["intended_ns"] > 0], *chunks["stamp_ns"]]
    part = replace(
        record,
        load=load_to_json(load),
        started_ns=int(min(requests["intended_ns"], default=0)),
        ended_ns=int(max(stamps, default=0)),
        requests=type(record.requests)(**requests),
        chunks=ChunkTable(**chunks, token_ids=np.concatenate([record.chunks.token_ids[:0], *ids])),
    )
    return ShardRecord(part, replace(HERE, offset_ns=offset_ns, error_ns=1 if offset_ns else 0))


ROWS = st.lists(
    st.builds(
        lambda sent, first, gaps, counts, good: Row(
            chunks=[(sent + first + sum(gaps[:place]), count) for place, count in enumerate(counts[: len(gaps) + 1])],
            intended=sent / 2,
            sent=sent,
            outcome="ok" if good else "error",
            error="" if good else "broken",
        ),
        sent=st.integers(0, 50).map(float),
        first=st.integers(1, 40).map(float),
        gaps=st.lists(st.integers(0, 9).map(float), min_size=3, max_size=3),
        counts=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        good=st.integers(0, 9).map(bool),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=60)
@given(ROWS, SHARDS, st.sampled_from(["batch", "concurrency", "rate"]), st.lists(st.integers(-9, 9), min_size=9))
def test_splitting_and_merging_gives_the_round_back(
    rows: list[Row], shards: int, kind: str, offsets: list[int]
) -> None:
    loads: dict[str, Load] = {"batch": Batch(len(rows)), "concurrency": Concurrency(3), "rate": Rate(5.0)}
    load = loads[kind]
    whole = round_of(*rows, load=load_to_json(load))
    asked = [Request(index, "x", (7,), row.tokens, True, Sampling()) for index, row in enumerate(rows)]
    parts = [
        part_of(whole, [request.index for request in part.requests], part.load, offset * MS)
        for part, offset in zip(split(load, asked, shards), offsets, strict=False)
    ]
    merged = merge(load, parts)
    if len(set(whole.chunks.stamp_ns)) == len(whole.chunks):  # chunks of one instant have no order of their own
        assert_same_record(merged, replace(whole, started_ns=merged.started_ns))
    assert head(merged) == head(replace(whole, started_ns=int(whole.requests.intended_ns.min())))
    assert sorted(merged.chunks.token_ids) == sorted(whole.chunks.token_ids)
    assert list(merged.chunks.stamp_ns) == list(whole.chunks.stamp_ns)
    limits = {"ttft": 0.03, "e2e_latency": 0.05}
    assert cell_metrics([merged], limits) == cell_metrics([replace(whole, started_ns=merged.started_ns)], limits)


def test_each_shards_own_order_is_kept_where_stamps_run_backwards() -> None:
    record = round_of(Row([(3.0, 1), (5.0, 1)]), Row([(4.0, 1)]))
    backwards = record.chunks.stamp_ns.copy()
    backwards[1] = backwards[0] - MS  # read later, stamped earlier
    mine = replace(record, chunks=replace(record.chunks, stamp_ns=backwards))
    assert merge(Batch(2), [ShardRecord(mine, HERE)]).chunks.token_ids.tolist() == [0, 1, 2]


def test_a_shard_without_requests_and_a_stepped_clock() -> None:
    whole = round_of(Row([(3.0, 1)]), Row([(4.0, 1)]))
    empty = part_of(replace(whole, clock_stepped=True), [], Batch(1))
    merged = merge(Batch(2), [ShardRecord(whole, HERE), empty])
    assert (merged.started_ns, merged.ended_ns, len(merged.requests)) == (whole.started_ns, whole.ended_ns, 2)
    assert merged.clock_stepped
    assert merge(Batch(2), [empty]).window_s == 0


def test_unknown_counts_and_missing_stamps_stay_unknown() -> None:
    whole = round_of(Row([(3.0, -1)]), Row([], outcome="cancelled", error="not sent"))
    unsent = whole.requests.sent_ns.copy()
    unsent[1] = 0
    whole = replace(whole, requests=replace(whole.requests, sent_ns=unsent))
    merged = merge(Batch(2), [part_of(whole, [0], Batch(1), 5 * MS), part_of(whole, [1], Batch(1), -5 * MS)])
    assert merged.requests.sent_ns.tolist() == unsent.tolist()
    assert merged.requests.first_ns.tolist() == whole.requests.first_ns.tolist()
    assert merged.chunks.tokens.tolist() == [-1]
    assert merged.chunks.token_ids.tolist() == []


def test_ids_are_dropped_where_one_shard_has_none() -> None:
    whole = round_of(Row([(3.0, 1)]), Row([(4.0, 2)]))
    one, other = (part_of(whole, [index], Batch(1)) for index in (0, 1))
    bare = replace(other.record, chunks=replace(other.record.chunks, token_ids=other.record.chunks.token_ids[:0]))
    merged = merge(Batch(2), [one, ShardRecord(bare, HERE)])
    assert merged.chunks.token_ids.tolist() == []
    assert merged.chunks.tokens.tolist() == [1, 2]


def test_parts_that_do_not_fit_together_are_refused() -> None:
    record = round_of(Row([(3.0, 1)]))
    with pytest.raises(WorkerError, match="same request"):
        merge(Batch(2), [ShardRecord(record, HERE)] * 2)
    with pytest.raises(WorkerError, match="different rounds"):
        merge(Batch(2), [ShardRecord(record, HERE), ShardRecord(replace(record, round_index=1), HERE)])
