"""When the client's numbers are to be trusted, and what is said when they are not."""

from typing import Any

import pytest

from enginebench.measure.calibration import Calibration, Cost, Pair, Point, Spread
from enginebench.measure.metrics import token_gaps_s
from enginebench.measure.validity import Gate, validity
from enginebench.run.client_check import hidden_first_s
from tests.support.rounds import Row, round_of

NOTHING = Spread(0.0, 0.0, 0.0)
MS = 1e-3


def calibrated(error_s: float = 0.0, **changes: Any) -> Calibration:
    """A client that reports every number ``error_s`` too high."""
    pairs = {name: Pair(0.010, 0.010 + error_s) for name in ("p50", "p90", "p95", "p99", "mean")}
    facts: dict[str, Any] = {
        "point": Point(8, 0.01, 0.02, 64, 8),
        "stamp_kind": "kernel",
        "clock_stepped": False,
        "errors": dict.fromkeys(("ttft", "tpot", "itl", "e2e_latency"), pairs),
        "stamp_lateness": NOTHING,
        "process_lateness": None,
        "slip": NOTHING,
        "server_lateness": NOTHING,
        "server_doubt": NOTHING,
        "cost": Cost(0, 0, 0, 0),
        "sustained": 1.0,
    }
    return Calibration(**facts | changes)


def metrics(slip_s: float = 0.0, slip_p50_s: float = 0.0, few: bool = False, **p50: float) -> dict[str, Any]:
    """Metrics of a cell with these medians; ``few``: requests, too few for a p99."""
    values = {"ttft": 0.020, "tpot": 0.010, "itl": 0.010, "e2e_latency": 1.0} | p50
    found = {name: {"summary": {"p50": value, "mean": value}} for name, value in values.items()}
    slip = {"p50": slip_p50_s, "p99": None if few else slip_s, "max": slip_s}
    return found | {"slip": {"summary": slip}}


@pytest.mark.parametrize(
    ("error_ms", "level"), [(0, "valid"), (0.2, "valid"), (0.3, "degraded"), (-0.3, "degraded"), (0.6, "invalid")]
)
def test_error_against_the_default_margin(error_ms: float, level: str) -> None:
    found = validity(metrics(), calibrated(error_ms * MS))
    assert found.level == level
    assert found.endpoints["tpot_p50"].relative == pytest.approx(error_ms * MS / 0.010)
    assert bool(found.reasons) == (level != "valid")


def test_the_reason_names_number_error_and_margin() -> None:
    reasons = validity(metrics(), calibrated(0.3 * MS)).reasons
    assert "DEGRADED: client error of TPOT p50 is 3.0%, more than half of the 5% margin" in reasons


def test_what_made_the_level_is_named_and_each_reason_tells_its_own_level_and_limit() -> None:
    found = validity(metrics(ttft=0.07, slip_s=0.0282, few=True), calibrated(), hidden_first_s=8.44 * MS)
    assert (found.level, found.cause) == ("invalid", "merged reads")
    slip, merged = found.reasons
    assert slip == "DEGRADED: requests left late: slip max is 28.2 ms, limit 3.5 ms"
    assert merged.startswith("INVALID: first tokens came in one read with later ones")
    assert merged.endswith("their median may be 8.44 ms earlier, 12.1% of TTFT p50, limit 5%")
    assert validity(metrics(slip_s=0.5), calibrated(0.6 * MS)).cause == "client error, slip"
    assert validity(metrics(slip_s=0.5, slip_p50_s=0.1, few=True), calibrated()).reasons == (
        "INVALID: requests left late: slip p50 is 100.0 ms, limit 2.0 ms",
    )
    assert validity(metrics(), calibrated()).as_json()["cause"] is None
    assert validity(metrics(), None).cause == ""


def test_a_gated_endpoint_is_held_against_its_own_margin() -> None:
    found = validity(metrics(), calibrated(0.1 * MS), [Gate("tpot_p50", 0.008), Gate("output_tokens_per_s", 0.03)])
    assert found.endpoints["tpot_p50"].level == "invalid"
    assert found.endpoints["output_tokens_per_s"].level == "valid"
    assert found.level == "invalid"


def test_the_error_is_held_against_the_number_of_the_cell() -> None:
    found = validity(metrics(ttft=0.5, tpot=0.5, itl=0.5), calibrated(1 * MS))
    assert found.level == "valid"
    assert found.worst_relative == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("slip_ms", "ttft_s", "level"),
    [(0.9, 0.002, "valid"), (1.5, 0.002, "degraded"), (2.5, 0.002, "invalid"), (2.5, 0.1, "valid")],
)
def test_slip(slip_ms: float, ttft_s: float, level: str) -> None:
    found = validity(metrics(slip_s=slip_ms * MS, ttft=ttft_s), calibrated())
    assert found.level == level
    assert any("slip" in reason for reason in found.reasons) == (level != "valid")


def test_one_late_request_of_a_few_degrades_and_a_late_median_invalidates() -> None:
    assert validity(metrics(slip_s=0.5, few=True), calibrated()).level == "degraded"
    assert validity(metrics(slip_s=0.5, slip_p50_s=0.1, few=True), calibrated()).level == "invalid"


def test_uncalibrated_is_said_and_does_not_hide_what_is_worse() -> None:
    found = validity(metrics(), None, why_uncalibrated="no server")
    assert (found.level, found.reasons) == ("uncalibrated", ("client error: uncalibrated (no server)",))
    assert found.worst_relative is None
    assert validity(metrics(slip_s=0.01), None).level == "invalid"


@pytest.mark.parametrize(
    ("hidden_s", "level"), [(0.0, "valid"), (0.4 * MS, "valid"), (0.7 * MS, "degraded"), (1.5 * MS, "invalid")]
)
def test_first_tokens_that_came_with_later_ones_may_have_come_earlier(hidden_s: float, level: str) -> None:
    found = validity(metrics(ttft=0.02), calibrated(), hidden_first_s=hidden_s)
    assert found.level == level
    assert any("in one read" in reason for reason in found.reasons) == (level != "valid")


def test_a_read_that_brought_more_than_the_first_token_hides_when_that_came() -> None:
    paced = Row([(20, 1), (30, 1), (40, 1), (50, 1)])
    late = Row([(40, 1), (40, 1), (40, 1), (50, 1)])  # tokens of three steps in its first read
    swallowed = Row([(50, 1), (50, 1), (50, 1), (50, 1)])
    assert hidden_first_s([round_of(paced, paced)]) == 0.0
    assert hidden_first_s([round_of(late, late, paced)]) == pytest.approx(20 * MS)  # two gaps of 10 ms
    assert hidden_first_s([round_of(late, paced, paced)]) == 0.0  # it moves no median
    assert hidden_first_s([round_of(swallowed)]) == pytest.approx(50 * MS)  # no gap is known
    assert hidden_first_s([round_of(Row([(50, 4)]), streaming=False)]) == 0.0
    assert token_gaps_s(round_of(Row([(20, 1), (40, 1), (40, 1)]))).tolist() == [10 * MS, 10 * MS]


@pytest.mark.parametrize(("spoilt", "level"), [(0, "valid"), (1, "degraded"), (5, "invalid")])
def test_clock_steps(spoilt: int, level: str) -> None:
    assert validity(metrics(), calibrated(), spoilt_rounds=spoilt, rounds=5).level == level


@pytest.mark.parametrize("changes", [{"sustained": 0.5}, {"clock_stepped": True}])
def test_a_calibration_that_did_not_show_the_load_degrades(changes: dict[str, Any]) -> None:
    found = validity(metrics(), calibrated(**changes))
    assert found.level == "degraded"
    assert len(found.reasons) == 1


def test_without_streaming_only_e2e_latency_is_judged() -> None:
    found = validity({"e2e_latency": {"summary": {"p50": 1.0}}}, calibrated(0.01))
    assert list(found.endpoints) == ["e2e_latency_p50"]
    assert found.level == "valid"
