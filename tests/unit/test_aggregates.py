"""A cell summed up in parts says what its metrics say, and shows its requests as they were."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.measure.metrics import BY_NAME, PERCENTILE_FLOORS, cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.measure.windows import NO_TRIM
from enginebench.plan.load import Trim
from enginebench.report.aggregates import SAMPLED, SLOWEST, CellAggregates, cell_aggregates
from enginebench.report.gaps import Gaps, RoundPass
from enginebench.report.quantiles import MAX_POINTS, Histogram, of_values, ranks_of
from enginebench.store import RunStore, load_run
from enginebench.store_tables import Arrivals
from tests.support.big_run import CELL, write_big_run
from tests.support.rounds import MS, START_NS, Row, round_of
from tests.unit.test_store import HEADER, result

PER_REQUEST = ("ttft", "tpot", "e2e_latency")


def aggregates(
    root: Path, rounds: Sequence[RoundRecord], trim: Trim = NO_TRIM, status: str = "measured"
) -> CellAggregates | None:
    keys = {"warmup_s": trim.warmup_s, "cooldown_s": trim.cooldown_s, "warmup": trim.warmup_share}
    scenarios = {"smoke": {"trim": {key: value for key, value in keys.items() if value}}}
    store = RunStore.create(root, HEADER | {"plan": HEADER["plan"] | {"scenarios": scenarios}})
    metrics = {name: each.as_json() for name, each in cell_metrics(rounds, None, trim).items()}
    store.write_cell("a", result(status, metrics=metrics), rounds)
    return cell_aggregates(load_run(store.directory), "a")


def some(root: Path, *rounds: RoundRecord, **more: Any) -> CellAggregates:
    found = aggregates(root, rounds, **more)
    assert found is not None
    return found


def drawn(seed: int, requests: int, *, mixed: bool = False, **head: Any) -> RoundRecord:
    """Requests that come one by one; ``mixed``: some fail, and some arrivals carry several tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(requests):
        gaps = rng.gamma(4, 5, 12)
        sizes = rng.integers(1, 4, 12) if mixed else np.ones(12, dtype=int)
        times = number * 20 + 10 + np.cumsum(gaps)
        bad = mixed and rng.random() < 0.1
        chunks = [(float(at), int(size)) for at, size in zip(times, sizes, strict=True)][: 4 if bad else 12]
        rows.append(Row(chunks, number * 20.0, number * 20 + 0.1, asked=24, outcome="error" if bad else "ok"))
    return round_of(*rows, **head)


ROUNDS = {
    "plain": [drawn(1, 90, warmup=True, round_index=-1), drawn(2, 700), drawn(3, 90, start_ns=START_NS + 10**11)],
    "failures and large chunks": [drawn(4, 400, mixed=True), drawn(5, 400, mixed=True, round_index=1)],
    "whole answers": [drawn(6, 80, streaming=False)],
    "a clock step": [drawn(7, 80, stamp_kind="kernel", clock_stepped=True), drawn(8, 80, stamp_kind="kernel")],
}


@pytest.mark.parametrize("trim", [NO_TRIM, Trim(warmup_s=0.4, cooldown_s=0.3), Trim(warmup_share=0.2)])
@pytest.mark.parametrize("rounds", ROUNDS.values(), ids=ROUNDS)
def test_quantiles_are_those_of_the_metrics(tmp_path: Path, rounds: list[RoundRecord], trim: Trim) -> None:
    found = some(tmp_path, *rounds, trim=trim)
    metrics = cell_metrics(rounds, None, trim)
    assert set(found.quantiles) - {"chunk_gap"} == {name for name in (*PER_REQUEST, "itl") if name in metrics}
    for name, curve in found.quantiles.items():
        if name == "chunk_gap":
            continue
        summary = metrics[name].summary
        assert (curve.requests, curve.failed) == (summary["count"], summary["failed"])
        for percent, floor in PERCENTILE_FLOORS.items():
            if curve.requests >= floor:
                value = curve.at(percent / 100)
                assert summary[f"p{percent}"] == (
                    pytest.approx(value, rel=1.3e-4 if name == "itl" else 1e-12) if np.isfinite(value) else None
                )
        assert BY_NAME[name].unit == "s"


def test_bins_hold_what_ended_in_them(tmp_path: Path) -> None:
    spoilt = drawn(1, 30, stamp_kind="kernel", clock_stepped=True)
    record = drawn(4, 400, mixed=True)
    found = some(tmp_path, record, spoilt)
    bins, requests = found.bins, record.requests
    assert found.arrivals == len(record.chunks) + len(spoilt.chunks)
    assert (bins.completed.sum(), bins.failed.sum()) == (requests.ok.sum(), (~requests.ok).sum())
    assert bins.tokens is not None
    assert bins.tokens.sum() == record.chunks.tokens.sum()
    place = np.digitize((requests.last_ns - found.start_ns) / 1e9, bins.edges_s) - 1
    latency_s = (requests.last_ns - requests.intended_ns) / 1e9
    assert np.any(np.diff(requests.last_ns) < 0)  # they do not end in the order in which they left
    for number, median_s in enumerate(bins.p50_s["e2e_latency"]):
        inside = np.sort(latency_s[(place == number) & requests.ok])
        if len(inside):
            assert median_s == inside[(len(inside) - 1) // 2]
        else:
            assert np.isnan(median_s)


def test_a_cell_without_numbers_has_none(tmp_path: Path) -> None:
    assert aggregates(tmp_path, []) is None
    assert aggregates(tmp_path, [drawn(1, 4)], status="failed") is None
    assert aggregates(tmp_path, [drawn(1, 4, warmup=True)]) is None
    assert aggregates(tmp_path, [drawn(1, 4, stamp_kind="kernel", clock_stepped=True)]) is None


def test_arrivals_that_do_not_say_what_they_carry_leave_gaps_between_chunks_alone(tmp_path: Path) -> None:
    found = some(tmp_path, round_of(Row([(5, -1), (9, -1), (14, -1)], told=7)))
    assert set(found.quantiles) == {"ttft", "e2e_latency", "chunk_gap"}
    assert found.quantiles["chunk_gap"].values_s == pytest.approx([0.004, 0.005], rel=1.3e-4)
    assert found.bins.tokens is None


def test_time_starts_with_the_first_measured_round(tmp_path: Path) -> None:
    warm = [round_of(Row([(5, 1), (9, 1)]), warmup=True, round_index=-1 - n, start_ns=START_NS + n * 20 * MS)
            for n in range(2)]  # fmt: skip
    measured = [
        round_of(
            Row([(4, 1), (8, 1), (12, 2)]),
            Row([(3, 1)], asked=9, outcome="stall", sent=1.0, intended=1.0),
            round_index=n,
            start_ns=START_NS + (50 + n * 40) * MS,
            block=n,
        )
        for n in range(2)
    ]
    more_warm = round_of(Row([(2, 1)]), warmup=True, start_ns=START_NS + 80 * MS)
    found = some(tmp_path, *warm, measured[0], more_warm, measured[1])
    assert found.start_ns == START_NS + 50 * MS
    assert np.array(found.warmups_s) == pytest.approx(np.array([(-0.05, -0.021), (0.03, 0.032)]))
    assert 0.0 in found.bins.edges_s
    assert (found.requests, found.failed, found.arrivals) == (4, 2, 13)
    bins = found.bins
    assert bins.tokens is not None
    assert (bins.completed.sum(), bins.failed.sum(), bins.tokens.sum()) == (5, 2, 15)

    def at(time_s: float) -> int:
        return int(np.searchsorted(bins.edges_s, time_s, side="right") - 1)

    assert bins.p50_s["e2e_latency"][at(0.012)] == pytest.approx(0.012)
    assert bins.p90_s["ttft"][at(0.012)] == pytest.approx(0.004)
    assert np.isnan(bins.p50_s["ttft"][at(-0.035)])
    width_s = bins.edges_s[1] - bins.edges_s[0]
    busy_s = 2 * 0.009 + 2 * (0.012 + 0.002) + 0.002  # between send and end: warm-ups, both requests of each round
    assert bins.in_flight.sum() * width_s == pytest.approx(busy_s)


def test_requests_are_shown_as_they_were(tmp_path: Path) -> None:
    record = round_of(
        Row([(5, 1), (6, 1), (7, 1), (57, 1), (58, 1)], intended=0.0, sent=2.0),
        Row([], asked=3, outcome="error", error="no", intended=1.0, sent=1.5),
        Row([(9, 1), (10, 1), (11, 1)], intended=8.0, sent=8.0),
    )
    rows = some(tmp_path, record).rows
    assert [(row.request, row.outcome, row.slow) for row in rows] == [
        (0, "ok", True), (1, "error", False), (2, "ok", True)
    ]  # fmt: skip
    slow, failed, _ = rows
    assert (slow.intended_s, slow.sent_s, slow.first_s, slow.last_s) == (0.0, 0.002, 0.005, 0.058)
    assert slow.stalls_s == ((0.007, 0.057),)
    assert (failed.intended_s, failed.sent_s, failed.first_s, failed.last_s) == (0.001, 0.0005, None, None)
    assert failed.stalls_s == ()


def test_the_slowest_and_the_same_sample_of_the_others(tmp_path: Path) -> None:
    record = drawn(9, 300, mixed=True)
    one, other = (some(tmp_path, record).rows for _ in range(2))
    assert one == other
    latency = (record.requests.last_ns - record.requests.intended_ns) * record.requests.ok
    assert {row.request for row in one if row.slow} == set(np.argsort(-latency)[:SLOWEST])
    assert (sum(row.slow for row in one), len(one)) == (SLOWEST, SLOWEST + SAMPLED)
    assert [row.intended_s for row in one] == sorted(row.intended_s for row in one)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 50), st.integers(1, 3)), min_size=1, max_size=40),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_parts_make_no_difference(arrivals: list[tuple[int, int, int]], cuts: list[int]) -> None:
    """Gaps and stamps of requests are the same however the arrivals are cut into parts."""
    record = round_of(*[Row([(1, 1)]) for _ in range(5)])
    request, step, tokens = np.array(arrivals, dtype=np.int32).T
    stamps = np.cumsum(step).astype(np.int64) * MS
    everyone = np.ones(5, dtype=bool)

    def read(ends: list[int]) -> tuple[Any, list[list[int]]]:
        one, gaps = RoundPass(record, everyone, everyone), Gaps()
        for rows in np.split(np.arange(len(request)), ends):
            if len(rows):
                one.add(Arrivals(0, request[rows], stamps[rows], tokens[rows]), gaps)
        curve = gaps.itl.quantiles(requests=1, failed=0, infinite=0)
        return None if curve is None else curve.values_s.tolist(), [list(one.stamps_of(row)) for row in range(5)]

    whole = read([])
    assert read(sorted(cuts)) == whole
    expected = sorted(
        gap / MS / 1e3 / count
        for row in range(5)
        for gap, count in zip(np.diff(stamps[request == row]), tokens[request == row][1:], strict=True)
        for _ in range(count)
    )
    assert expected == pytest.approx(whole[0] or [], rel=1.3e-4)
    assert whole[1] == [list(stamps[request == row]) for row in range(5)]


def test_requests_far_apart_are_told_apart_too() -> None:
    record = round_of(*[Row([(1, 1)]) for _ in range(70_000)])
    everyone = np.ones(70_000, dtype=bool)
    one, gaps = RoundPass(record, everyone, ~everyone), Gaps()
    request = np.array([0, 65_536, 65_536, 0], dtype=np.int32)  # alike in their last 16 bits
    one.add(Arrivals(0, request, np.array([1, 2, 4, 8], dtype=np.int64) * MS, np.ones(4, dtype=np.int32)), gaps)
    curve = gaps.itl.quantiles(requests=1, failed=0, infinite=0)
    assert curve is not None
    assert curve.values_s == pytest.approx([0.002, 0.007], rel=1.3e-4)


@given(st.integers(1, 10**9))
def test_curves_have_few_points_and_every_percentile(count: int) -> None:
    ranks = ranks_of(count)
    assert len(ranks) <= MAX_POINTS
    assert (ranks[0], ranks[-1]) == (1, count)
    assert np.all(np.diff(ranks) > 0)
    assert {-(-count * percent // 100) for percent in PERCENTILE_FLOORS} <= set(ranks.tolist())


@given(st.lists(st.floats(1e-7, 1e4), min_size=1, max_size=60), st.integers(0, 5))
def test_a_histogram_is_right_to_half_a_bin(values: list[float], infinite: int) -> None:
    histogram = Histogram()
    for part in np.array_split(np.array(values, dtype=np.float32), 3):
        histogram.add(part)
    curve = histogram.quantiles(requests=1, failed=0, infinite=infinite)
    exact = of_values(np.array(values + [np.inf] * infinite))
    assert curve is not None
    assert exact is not None
    assert curve.shares.tolist() == exact.shares.tolist()
    assert curve.values_s == pytest.approx(exact.values_s, rel=1.3e-4)


def test_nothing_is_no_curve() -> None:
    assert Histogram().quantiles(requests=0, failed=0, infinite=0) is None
    assert of_values(np.array([np.nan])) is None


def test_a_run_made_for_size_is_summed_up(tmp_path: Path) -> None:
    """Small here; bench/harness/test_report.py does the same with a million requests."""
    found = cell_aggregates(load_run(write_big_run(tmp_path / "run", 2_000, tokens=10, rounds=2)), CELL.id)
    assert found is not None
    assert (found.requests, found.failed, found.arrivals, len(found.warmups_s)) == (2_000, 0, 20_000, 0)
    assert found.quantiles["tpot"].at(0.5) == pytest.approx(0.010, rel=0.02)
    assert json.dumps(found.rows[0].stalls_s)  # numbers of Python
