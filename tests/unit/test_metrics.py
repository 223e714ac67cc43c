"""Every metric against values worked out by hand; failures, unknown counts and percentile floors."""

import json
import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.measure.metrics import METRICS, OF_THE_CLIENT, cell_metrics, nearest_rank, request_values
from enginebench.measure.records import RoundRecord
from tests.support.rounds import START_NS, Row, round_of

OF_RECORDS = [metric for metric in METRICS if "gpu" not in metric.needs]

# Two requests: five tokens in chunks of 2, 1 and 2, and three tokens one by one. All times in ms.
EXAMPLE = round_of(
    Row([(100, 2), (130, 1), (170, 2)], intended=0, sent=1),
    Row([(110, 1), (120, 1), (160, 1)], intended=0, sent=2),
    ended=200,
)


def summary(record: RoundRecord, name: str, **slo_s: float) -> dict[str, float | int | None]:
    return dict(cell_metrics([record], slo_s)[name].summary)


def p50_min_max_mean_ms(name: str) -> list[float]:
    found = summary(EXAMPLE, name)
    assert (found["count"], found["failed"]) == (2, 0)
    return [round(float(found[key] or math.nan) * 1e3, 6) for key in ("p50", "min", "max", "mean")]


def test_ttft_is_first_minus_intended() -> None:
    assert p50_min_max_mean_ms("ttft") == [100, 100, 110, 105]


def test_service_ttft_is_first_minus_sent() -> None:
    assert p50_min_max_mean_ms("service_ttft") == [99, 99, 108, 103.5]


def test_lateness_is_the_worst_read_of_a_request_after_its_stamp() -> None:
    record = round_of(Row([(10, 1), (20, 1)]), Row([(30, 1)]))  # each read 1 µs after its stamp
    reads_ns = record.chunks.read_ns + np.where(record.chunks.stamp_ns == record.chunks.stamp_ns[1], 4_000, 0)
    late = replace(record, chunks=replace(record.chunks, read_ns=reads_ns))
    assert sorted(request_values("lateness", late)) == pytest.approx([1e-6, 5e-6])
    unknown = replace(record, chunks=replace(record.chunks, read_ns=np.full_like(reads_ns, -1)))
    assert "lateness" not in cell_metrics([unknown])


def test_slip_is_sent_minus_intended() -> None:
    assert p50_min_max_mean_ms("slip") == [1, 1, 2, 1.5]


def test_tpot_leaves_out_the_tokens_of_the_first_chunk() -> None:
    # (170 - 100) / (5 - 2) and (160 - 110) / (3 - 1)
    assert p50_min_max_mean_ms("tpot") == pytest.approx([70 / 3, 70 / 3, 25, (70 / 3 + 25) / 2], abs=1e-5)


def test_itl_is_pooled_over_tokens() -> None:
    # 30 once; 40 / 2 twice; 10; 40 → sorted 10 20 20 30 40
    assert p50_min_max_mean_ms("itl") == [20, 10, 40, 24]


def test_e2e_latency_is_last_minus_intended() -> None:
    assert p50_min_max_mean_ms("e2e_latency") == [160, 160, 170, 165]


def test_tokens_per_s_per_user() -> None:
    found = summary(EXAMPLE, "tokens_per_s_per_user")
    assert [found["min"], found["max"]] == pytest.approx([2 / 0.05, 3 / 0.07])


@pytest.mark.parametrize(
    ("name", "value"),
    [("output_tokens_per_s", 8 / 0.2), ("total_tokens_per_s", 28 / 0.2), ("requests_per_s", 2 / 0.2)],
)
def test_rates_are_over_the_whole_window(name: str, value: float) -> None:
    assert summary(EXAMPLE, name) == {"value": pytest.approx(value)}


def test_goodput_and_attainment_need_every_slo_to_be_met() -> None:
    limits = {"ttft": 0.105, "tpot": 0.024}
    assert summary(EXAMPLE, "goodput", **limits) == {"value": pytest.approx(1 / 0.2)}
    assert summary(EXAMPLE, "slo_attainment", **limits) == {"value": 0.5}
    assert summary(EXAMPLE, "slo_attainment", ttft=0.11, tpot=0.01) == {"value": 0.0}
    assert summary(EXAMPLE, "slo_attainment", e2e_latency=0.17) == {"value": 1.0}


def test_over_rounds_sums_are_divided_by_sums_and_percentiles_pooled() -> None:
    short = round_of(Row([(10, 1), (20, 1)]))
    long = round_of(Row([(30, 1), (100, 1)]), Row([(50, 1), (90, 1)]), round_index=1)
    results = cell_metrics([short, long])
    assert results["output_tokens_per_s"].summary["value"] == pytest.approx(6 / 0.12)
    assert results["output_tokens_per_s"].per_round == pytest.approx((2 / 0.02, 4 / 0.1))
    assert results["ttft"].summary["p50"] == pytest.approx(0.03)
    assert results["ttft"].per_round == pytest.approx((0.01, 0.03))
    assert results["ttft"].headline == results["ttft"].summary["p50"]


def test_warm_ups_count_nowhere() -> None:
    warm = round_of(Row([(900, 1), (990, 1)]), warmup=True)
    assert cell_metrics([warm, EXAMPLE]) == cell_metrics([EXAMPLE])
    assert cell_metrics([warm]) == {}


def test_a_failed_request_is_infinite_and_stored_as_null() -> None:
    failed = round_of(Row([(10, 1), (20, 1)]), Row([(11, 1)], asked=2, outcome="stall"), ended=40)
    results = cell_metrics([failed], {"ttft": 1.0})
    assert results["ttft"].summary["p50"] == pytest.approx(0.01)  # the lower of two
    assert results["ttft"].summary["max"] is None
    assert results["ttft"].summary["mean"] is None
    assert (results["ttft"].summary["count"], results["ttft"].summary["failed"]) == (2, 1)
    assert results["itl"].summary["max"] is None
    assert results["output_tokens_per_s"].summary["value"] == pytest.approx(2 / 0.04)  # its token does not count
    assert results["slo_attainment"].summary["value"] == 0.5
    assert results["tokens_per_s_per_user"].summary["min"] is None  # where higher is better, failing is lowest
    assert results["tokens_per_s_per_user"].summary["max"] == pytest.approx(100)


@pytest.mark.parametrize("outcome", ["error", "stall", "short", "long", "cancelled", "wrong_input"])
def test_when_most_fail_the_median_is_unbounded(outcome: str) -> None:
    bad = Row([(1, 1), (2, 1)], outcome=outcome)
    results = cell_metrics([round_of(bad, bad, Row([(1, 1), (2, 1)]))])
    for name in ("ttft", "tpot", "itl", "e2e_latency"):
        assert results[name].summary["p50"] is None, name
        assert results[name].per_round == (None,)
        assert results[name].summary["failed"] == 2


def test_how_late_the_client_sent_is_known_of_failed_requests_too() -> None:
    found = summary(round_of(Row([], sent=3, asked=1, outcome="error")), "slip")
    assert [found["p50"], found["failed"]] == pytest.approx([0.003, 0])


def test_when_everything_fails_rates_are_none_and_attainment_is_zero() -> None:
    results = cell_metrics([round_of(Row([], asked=4, outcome="error"), ended=50)], {"e2e_latency": 1.0})
    assert results["output_tokens_per_s"].summary == {"value": None}
    assert results["requests_per_s"].summary == {"value": None}
    assert results["slo_attainment"].summary == {"value": 0.0}
    assert results["goodput"].summary == {"value": 0.0}


def test_without_streaming_there_is_no_ttft_tpot_or_itl() -> None:
    results = cell_metrics([round_of(Row([(100, 5)]), streaming=False)], {"ttft": 1.0})
    rates = {"output_tokens_per_s", "total_tokens_per_s", "requests_per_s"}
    assert set(results) == {"slip", "lateness", "e2e_latency"} | rates


def test_slos_that_need_no_stream_work_without_one() -> None:
    results = cell_metrics([round_of(Row([(100, 5)]), streaming=False)], {"e2e_latency": 0.1})
    assert results["slo_attainment"].summary == {"value": 1.0}


def test_unknown_token_counts_take_the_token_metrics_away() -> None:
    results = cell_metrics([round_of(Row([(10, -1), (20, -1)]))], {"ttft": 0.5})
    assert set(results) == {
        "ttft", "service_ttft", "slip", "lateness", "e2e_latency", "requests_per_s", "goodput", "slo_attainment"
    }  # fmt: skip
    assert "goodput" not in cell_metrics([round_of(Row([(10, -1), (20, -1)]))], {"tpot": 0.5})


def test_totals_that_the_server_gives_are_enough_for_rates_and_no_more() -> None:
    failed = Row([(10, -1)], outcome="error", error="gone")
    results = cell_metrics([round_of(Row([(10, -1), (20, -1)], told=7), failed, ended=1000)], {"ttft": 0.5})
    assert results["output_tokens_per_s"].summary["value"] == 7
    assert results.keys().isdisjoint({"tpot", "itl", "tokens_per_s_per_user"})


def test_an_answer_in_one_chunk_has_no_tpot_and_cannot_miss_it() -> None:
    single = round_of(Row([(10, 1)]), Row([(10, 1), (30, 1)]))
    results = cell_metrics([single], {"tpot": 0.02})
    assert results["tpot"].summary["count"] == 1
    assert results["itl"].summary["count"] == 1
    assert results["slo_attainment"].summary == {"value": 1.0}
    alone = cell_metrics([round_of(Row([(10, 1)]))])
    assert alone["tpot"].summary["p50"] is None
    assert alone["tpot"].summary["count"] == 0


def test_a_round_spoilt_by_a_clock_step_leaves_none() -> None:
    spoilt = round_of(Row([(1, 1), (2, 1)]), clock_stepped=True, stamp_kind="kernel")
    results = cell_metrics([spoilt, EXAMPLE])
    assert results["ttft"].per_round == pytest.approx((None, 0.1))
    assert results["ttft"].summary == cell_metrics([EXAMPLE])["ttft"].summary
    harmless = round_of(Row([(1, 1), (2, 1)]), clock_stepped=True, stamp_kind="engine")
    assert cell_metrics([harmless])["ttft"].per_round == pytest.approx((0.001,))


@pytest.mark.parametrize(("key", "floor"), [("p50", 1), ("p90", 64), ("p95", 130), ("p99", 662)])
def test_a_percentile_needs_enough_requests(key: str, floor: int) -> None:
    rows = [Row([(number + 1, 1), (number + 9, 1)]) for number in range(floor)]
    expected_ms = math.ceil(floor * int(key[1:]) / 100)
    assert summary(round_of(*rows), "ttft")[key] == pytest.approx(expected_ms / 1e3)
    if floor > 1:
        assert summary(round_of(*rows[:-1]), "ttft")[key] is None
        assert summary(round_of(*rows[:-1]), "itl")[key] is None  # of requests, however many tokens there are


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=300), st.sampled_from([50, 90, 95, 99]))
def test_nearest_rank_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    enough = [value for value in ordered if sum(other <= value for other in ordered) * 100 >= percent * len(ordered)]
    assert nearest_rank(np.array(ordered), percent) == enough[0]


def test_nearest_rank_agrees_with_numpy() -> None:
    values = np.sort(np.random.default_rng(3).random(1001))
    for percent in (50, 90, 95, 99):
        assert nearest_rank(values, percent) == np.quantile(values, percent / 100, method="inverted_cdf")


chunk_lists = st.lists(
    st.lists(st.tuples(st.integers(1, 10_000), st.integers(1, 4)), min_size=1, max_size=6), min_size=1, max_size=6
)


def _rows(chunk_lists: list[list[tuple[int, int]]], outcome: str = "ok") -> list[Row]:
    return [Row([(float(time), tokens) for time, tokens in sorted(chunks)], outcome=outcome) for chunks in chunk_lists]


@given(chunk_lists, st.integers(-START_NS + 1, 2**61))
def test_shifting_the_clock_changes_nothing(chunks: list[list[tuple[int, int]]], shift_ns: int) -> None:
    here = cell_metrics([round_of(*_rows(chunks))], {"ttft": 2.0})
    there = cell_metrics([round_of(*_rows(chunks), start_ns=START_NS + shift_ns)], {"ttft": 2.0})
    assert here == there


@given(chunk_lists, st.randoms(use_true_random=False))
def test_the_order_of_requests_changes_nothing(chunks: list[list[tuple[int, int]]], random: Random) -> None:
    rows = _rows(chunks)
    shuffled = random.sample(rows, len(rows))
    here, there = cell_metrics([round_of(*rows)]), cell_metrics([round_of(*shuffled)])
    for name, result in here.items():
        assert dict(there[name].summary) == pytest.approx(dict(result.summary)), name


@given(chunk_lists)
def test_a_failure_more_never_makes_anything_better(chunks: list[list[tuple[int, int]]]) -> None:
    good, bad = _rows(chunks), _rows(chunks[:1], "error")
    window = 20_000.0
    before = cell_metrics([round_of(*good, ended=window)], {"e2e_latency": 5.0})
    after = cell_metrics([round_of(*good, *bad, ended=window)], {"e2e_latency": 5.0})
    for metric in OF_RECORDS:
        if metric.name in OF_THE_CLIENT or "steady" in metric.needs:
            continue
        old, new = before[metric.name].headline, after[metric.name].headline
        if new is not None and old is not None:
            assert new >= old if metric.better == "lower" else new <= old, metric.name


@given(chunk_lists)
def test_results_are_json_without_infinities(chunks: list[list[tuple[int, int]]]) -> None:
    results = cell_metrics([round_of(*_rows(chunks), *_rows(chunks, "stall"))], {"tpot": 0.1})
    assert set(results) == {metric.name for metric in OF_RECORDS if "steady" not in metric.needs}
    json.dumps({name: result.as_json() for name, result in results.items()}, allow_nan=False)


def test_per_request_values_line_up_with_the_requests() -> None:
    record = round_of(Row([(10, 1)]), Row([], asked=3, outcome="stall"), Row([(10, 1), (30, 2)]))
    assert request_values("tpot", record).tolist() == [pytest.approx(math.nan, nan_ok=True), math.inf, 0.01]


def test_the_table_explains_every_metric() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.title and metric.unit and metric.formula for metric in METRICS)
