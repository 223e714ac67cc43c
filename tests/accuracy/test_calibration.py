"""The error of the client is worked out right: from records and truths written down by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from enginebench.errors import ServerError, SessionError
from enginebench.measure.calibration import Calibration, Cost, Point, calibrate, times_of_null, times_of_truth
from enginebench.measure.calibrator import point_for
from enginebench.measure.records import RoundRecord, Stamps, int_array
from enginebench.measure.truth import Truth, read_truth
from enginebench.measure.truth_server import Script
from enginebench.runtimes.null import TICK_NS
from tests.support.rounds import MS, START_NS, Row, round_of

POINT = Point(streams=2, gap_s=0.010, ttft_s=0.020, tokens=3, requests=2, together=True)
COST = Cost(1e-5, 1e-5, 0.1, 1000.0)


def at(*times_ms: float) -> Stamps:
    return np.array([START_NS + round(time * MS) for time in times_ms], dtype=np.int64)


def truth_of(arrived: Sequence[float], left: Sequence[Sequence[float]], keys: Sequence[int] = (0, 1)) -> Truth:
    """Times in ms after the start of the round; a request's tokens were due 1 ms before and took 0.5 ms to leave."""
    flat = at(*(time for each in left for time in each))
    return Truth(
        key=np.array(keys),
        arrived_ns=at(*arrived),
        tokens=np.array([len(each) for each in left]),
        due_ns=flat - MS,
        before_ns=flat,
        after_ns=flat + MS // 2,
        clock_steps=0,
    )


def record_with_places(*rows: Row) -> RoundRecord:
    """A record whose token ids count within each request, as the truth server's do."""
    record = round_of(*rows)
    seen: dict[int, int] = {}
    ids: list[int] = []
    for request, tokens in zip(record.chunks.request.tolist(), record.chunks.tokens.tolist(), strict=True):
        ids += range(seen.get(request, 0), seen.get(request, 0) + tokens)
        seen[request] = seen.get(request, 0) + tokens
    return replace(record, chunks=replace(record.chunks, token_ids=int_array(ids)))


# Truth: arrived at 1 and 2 ms, first tokens 20 ms later, gaps of 10 ms. The client saw each token 1 ms late, but for
# the last two of request 1, which it read together.
TRUTH = truth_of([1, 2], [[21, 31, 41], [22, 32, 42]])
SEEN = record_with_places(
    Row(chunks=[(22, 1), (32, 1), (42, 1)], sent=0.5),
    Row(chunks=[(23, 1), (43, 2)], sent=0.75),
)


def calibration(record: RoundRecord = SEEN, truth: Truth = TRUTH) -> Calibration:
    return calibrate(record, times_of_truth(record, truth), POINT, COST, truth)


def test_ttft_counts_from_the_intended_time_on_one_side_and_from_the_arrival_on_the_other() -> None:
    pair = calibration().errors["ttft"]["p50"]
    assert (pair.truth_s, pair.client_s) == pytest.approx((0.020, 0.022))
    assert (pair.error_s, pair.relative) == pytest.approx((0.002, 0.1))


def test_e2e_latency_and_its_mean() -> None:
    pair = calibration().errors["e2e_latency"]["mean"]
    assert (pair.truth_s, pair.client_s) == pytest.approx((0.040, 0.0425))


def test_a_constant_delay_is_no_error_of_gaps() -> None:
    seen = record_with_places(Row(chunks=[(22, 1), (32, 1), (42, 1)]), Row(chunks=[(23, 1), (33, 1), (43, 1)]))
    errors = calibration(seen).errors
    assert {pair.error_s for pair in errors["itl"].values()} == {0.0}
    assert {pair.error_s for pair in errors["tpot"].values()} == {0.0}


def test_merged_tokens_are_errors_of_itl_and_of_the_stamp() -> None:
    found = calibration(
        record_with_places(Row(chunks=[(22, 1), (42, 2)]), Row(chunks=[(23, 1), (33, 1), (43, 1)])),
        truth_of([1, 2], [[21, 36, 41], [22, 32, 42]]),
    )
    assert found.errors["itl"]["p99"].truth_s == pytest.approx(0.015)
    assert found.errors["itl"]["p99"].client_s == pytest.approx(0.010)
    assert found.stamp_lateness.max == pytest.approx(0.006)
    assert found.stamp_lateness.p50 == pytest.approx(0.001)


def test_slip_and_the_lateness_of_the_truth_itself() -> None:
    found = calibration()
    assert (found.slip.p50, found.slip.max) == pytest.approx((0.0005, 0.00075))
    assert found.server_lateness is not None
    assert found.server_doubt is not None
    assert (found.server_lateness.p50, found.server_doubt.p50) == pytest.approx((0.001, 0.0005))


def test_the_truth_may_tell_requests_in_any_order() -> None:
    swapped = truth_of([2, 1], [[22, 32, 42], [21, 31, 41]], keys=(1, 0))
    assert calibration(truth=swapped).errors == calibration().errors


def test_a_load_that_was_not_reached_shows() -> None:
    slow = truth_of([1, 2], [[21, 51, 81], [22, 52, 82]])
    found = calibration(truth=slow)
    assert found.sustained == pytest.approx(1 / 3)
    assert not found.holds
    assert calibration().holds


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        (truth_of([1, 2], [[21, 31, 41], [22, 32]]), "lost, doubled or reordered"),
        (truth_of([1, 2], [[21, 31, 41], [22, 32, 42]], keys=(0, 7)), "not those of the round"),
    ],
)
def test_lost_tokens_and_foreign_requests_are_errors(truth: Truth, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        calibration(truth=truth)


def test_reordered_tokens_are_an_error() -> None:
    ids = SEEN.chunks.token_ids.copy()
    ids[[0, 2]] = ids[[2, 0]]
    with pytest.raises(SessionError, match="reordered"):
        calibration(replace(SEEN, chunks=replace(SEEN.chunks, token_ids=ids)))


def test_an_empty_round_and_a_failed_request_are_errors() -> None:
    with pytest.raises(SessionError, match="empty"):
        times_of_truth(round_of(), TRUTH)
    with pytest.raises(SessionError, match="gone"):
        times_of_truth(round_of(Row(chunks=[(1, 1)], outcome="error", error="gone")), TRUTH)


def test_a_record_of_the_null_runtime_carries_its_truth() -> None:
    ticks = MS // TICK_NS
    record = round_of(Row(chunks=[(10, 1), (20.25, 1)], intended=0, sent=1))
    record = replace(record, chunks=replace(record.chunks, token_ids=int_array([9 * ticks, 19 * ticks])))
    times = times_of_null(record)
    assert list(times.left_ns) == list(at(10, 20))
    found = calibrate(record, times, replace(POINT, runtime="null"), COST, None)
    assert found.errors["ttft"]["p50"].error_s == pytest.approx(0.001)  # its slip
    assert found.errors["tpot"]["p50"].error_s == pytest.approx(0.00025)


def test_what_is_no_truth_is_refused() -> None:
    for data in (b"", b"<html>", b'{"requests": 1, "clock_steps": 0}\n12345678'):
        with pytest.raises(ServerError, match="read"):
            read_truth(data)


def test_streams_out_of_step_and_in_step() -> None:
    assert Script(0.02, 0.005).first_ns(1_000) == 20_001_000
    assert {Script(0.02, 0.005, together=True).first_ns(arrived) for arrived in (1_000, 900_000)} == {25_000_000}
    shifts = [Script(0.02, 0.005).shift_ns(number) for number in range(16)]
    assert len(set(shifts)) == 16
    assert all(0 <= shift < 5_000_000 for shift in shifts)


def test_the_point_of_a_cell_is_about_a_second_and_never_longer_than_its_answers() -> None:
    long = point_for(8, 0.0125, 1024, kind="batch", runtime="triton_http")
    assert 0.4 < long.tokens * long.gap_s < 1
    assert (long.requests, long.together) == (8, True)
    short = point_for(8, 0.0125, 4, kind="batch", runtime="triton_http")
    assert short.tokens == 4
    assert short.requests > 8
    assert point_for(1, 5.0, 100, kind="batch", runtime="null").tokens == 2


def test_points_of_cells_that_are_alike_are_the_same_and_never_lighter() -> None:
    points = {point_for(8, gap_s, 70, kind="batch", runtime="null") for gap_s in (0.0121, 0.0125, 0.014)}
    (point,) = points
    assert point.gap_s < 0.0121
    assert point.tokens == 64
