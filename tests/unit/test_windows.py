"""Which requests count, and the steady window, of rounds that are written down by hand."""

import pytest

from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.measure.windows import NO_TRIM, batch_windows_s, counted, steady_window_ns
from enginebench.plan.load import Batch, Concurrency, Rate, Trim, load_to_json
from tests.support.rounds import MS, START_NS, Row, round_of


def row(intended: float, first: float, last: float, tokens: int = 4, **more: object) -> Row:
    """One token at ``first``, the others at ``last``, ms."""
    return Row([(first, 1), (last, tokens - 1)], intended=intended, sent=intended, **more)  # type: ignore[arg-type]


PAIR = round_of(
    row(0, 10, 100), row(0, 10, 150), row(100, 110, 200), row(150, 160, 300), row(200, 210, 400),
    load=load_to_json(Concurrency(2)),
)  # fmt: skip
OPEN = round_of(
    row(0, 10, 100), row(100, 110, 200), row(200, 210, 300), row(300, 310, 400), row(400, 410, 500),
    load=load_to_json(Rate(10)),
)  # fmt: skip


def window_ms(record: RoundRecord, trim: Trim = NO_TRIM) -> tuple[float, float] | None:
    window = steady_window_ns(record, trim)
    return None if window is None else ((window[0] - START_NS) / MS, (window[1] - START_NS) / MS)


def test_a_concurrency_is_steady_until_the_first_place_stays_empty() -> None:
    assert window_ms(PAIR) == (0, 300)  # the end at 200 still found a request to follow it


def test_a_rate_is_steady_from_the_first_end_to_the_last_release() -> None:
    assert window_ms(OPEN) == (100, 400)


def test_batches_are_never_steady_unless_trimmed() -> None:
    batches = round_of(row(0, 10, 100), row(100, 110, 200))
    assert window_ms(batches) is None
    assert window_ms(batches, Trim(warmup_s=0.02)) == (20, 100)


def test_trimming_takes_its_part_off_both_ends() -> None:
    assert window_ms(PAIR, Trim(warmup_s=0.05)) == (50, 300)
    assert window_ms(PAIR, Trim(cooldown_s=0.05)) == (0, 150)
    assert window_ms(OPEN, Trim(warmup_s=0.15, cooldown_share=0.25)) == (150, 300)
    assert window_ms(OPEN, Trim(warmup_s=0.3, cooldown_s=0.2)) is None


def test_there_is_no_steady_window_where_a_request_failed_or_places_stayed_empty() -> None:
    assert window_ms(round_of(row(0, 1, 2), row(0, 1, 2, outcome="error"), load=load_to_json(Rate(1)))) is None
    assert window_ms(round_of(row(0, 1, 2), load=load_to_json(Concurrency(2)))) is None
    assert window_ms(round_of(load=load_to_json(Rate(1)))) is None


def test_only_requests_between_the_trimmed_ends_count_in_latencies() -> None:
    assert counted(OPEN) is OPEN
    assert counted(OPEN, Trim(warmup_s=0.1, cooldown_s=0.1)).requests.index.tolist() == [1, 2, 3]
    whole, trimmed = cell_metrics([OPEN]), cell_metrics([OPEN], trim=Trim(warmup_s=0.25))
    assert (whole["ttft"].summary["count"], trimmed["ttft"].summary["count"]) == (5, 2)
    assert whole["output_tokens_per_s"] == trimmed["output_tokens_per_s"]


def test_steady_rates_count_what_arrived_in_the_window() -> None:
    metrics = cell_metrics([PAIR])
    assert metrics["steady_requests_per_s"].summary["value"] == pytest.approx(4 / 0.3)
    in_window = 4 * 4 + 1  # the last request's first token arrived in it, the others did not
    assert metrics["steady_output_tokens_per_s"].summary["value"] == pytest.approx(in_window / 0.3)
    assert metrics["output_tokens_per_s"].summary["value"] == pytest.approx(20 / 0.4)
    assert metrics["steady_requests_per_s"].per_round == pytest.approx((4 / 0.3,))


def test_a_round_without_a_window_leaves_none() -> None:
    short = round_of(row(0, 1, 2), load=load_to_json(Concurrency(2)))
    metrics = cell_metrics([PAIR, short])
    steady, none = metrics["steady_requests_per_s"].per_round
    assert steady == pytest.approx(4 / 0.3)
    assert none is None
    assert "steady_requests_per_s" not in cell_metrics([short])


def test_totals_are_not_enough_for_a_steady_rate_of_tokens() -> None:
    texts = round_of(*(Row([(1, -1), (9, -1)], asked=4) for _ in range(4)), load=load_to_json(Concurrency(2)))
    assert "steady_output_tokens_per_s" not in cell_metrics([texts])


def test_batches_are_timed_from_their_release_to_their_last_token() -> None:
    rows = (row(0, 10, 100), row(0, 10, 150), row(160, 170, 260), row(160, 170, 250))
    record = round_of(*rows, load=load_to_json(Batch(2)))
    assert batch_windows_s(record) == pytest.approx(0.150 + 0.100)  # the 10 ms between them are nobody's
    assert batch_windows_s(PAIR) is None
