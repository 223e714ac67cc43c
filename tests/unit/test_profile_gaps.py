"""The causes of gaps, one after the other, each on a round made to have it; and what holds for any round."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.measure.records import RoundRecord
from enginebench.profile import gaps
from enginebench.profile.gaps import worst_gaps
from enginebench.profile.iterations import Iterations
from tests.support.rounds import MS, START_NS, Row, round_of

GAP_MS = 90.0


def steady(until: int = 20, stall_after: int | None = None) -> list[tuple[float, int]]:
    """A token every 10 ms; after ``stall_after`` of them one comes 90 ms late."""
    late = 0.0 if stall_after is None else GAP_MS - 10
    return [
        (10.0 * (at + 1) + (late if stall_after is not None and at > stall_after else 0.0), 1) for at in range(until)
    ]


def steps(times_ms: Sequence[float], length_ms: float = 10.0, **columns: Sequence[float]) -> Iterations:
    """Steps that end at these times; columns as given, otherwise those of plain decoding."""
    count = len(times_ms)
    plain: dict[str, Any] = {"active": [2.0] * count, "queued": [0.0] * count, "paused": [0.0] * count,
                             "context_tokens": [0.0] * count, "generation_tokens": [2.0] * count,
                             "step_ns": [length_ms * MS] * count}  # fmt: skip
    stamps = [START_NS + round(time * MS) for time in times_ms]
    return Iterations.of({"stamp_ns": stamps, **plain, **columns})


def stalled(**row: Any) -> RoundRecord:
    return round_of(
        Row(chunks=steady(stall_after=9)), Row(chunks=[(185.0, 1), (195.0, 1)], sent=95.0, prompt=700, **row)
    )


STALLED_TIMES = [time for time, _ in steady(stall_after=9)]


def worst(record: RoundRecord, iterations: Iterations, gpu: Mapping[str, Any] | None = None) -> gaps.Gap:
    found = worst_gaps(record, iterations, gpu)[0]
    assert found.s == pytest.approx(GAP_MS / 1e3, rel=0.01)
    assert found.request == 0
    return found


def at_the_stall(value: float, otherwise: float = 0.0) -> list[float]:
    return [value if at == 10 else otherwise for at in range(20)]


def test_a_prefill_that_shares_the_step() -> None:
    lengths = at_the_stall(90.0 * MS, 10.0 * MS)
    found = worst(stalled(), steps(STALLED_TIMES, step_ns=lengths, context_tokens=at_the_stall(512)))
    assert found.cause == gaps.PREFILL
    assert found.explained_s == pytest.approx(0.080, rel=0.01)
    assert "512 prompt tokens for request 1 (700 tokens)" in found.evidence
    assert "the longest took 90.0 ms, a typical one 10.0 ms" in found.evidence


def test_a_long_step_that_nothing_accounts_for() -> None:
    found = worst(stalled(), steps(STALLED_TIMES, step_ns=at_the_stall(90.0 * MS, 10.0 * MS)))
    assert (found.cause, found.explained_s) == (gaps.UNEXPLAINED, None)
    assert found.evidence == "Its step took 90.0 ms, a typical one 10.0 ms."


def test_no_step_at_all() -> None:
    found = worst(stalled(), steps(STALLED_TIMES))
    assert found.cause == gaps.HOST
    assert "No step of the engine ran for 80.0 ms" in found.evidence


EVERY_TEN = [10.0 * (at + 1) for at in range(28)]  # the engine goes on while request 0 gets nothing


def test_a_pause() -> None:
    paused = [1.0 if 100 < time < 185 else 0.0 for time in EVERY_TEN]
    found = worst(stalled(), steps(EVERY_TEN, paused=paused))
    assert found.cause == gaps.PAUSED
    assert found.evidence == "9 steps went by for 1 token(s), with up to 1 paused requests."


def test_waiting_in_the_queue() -> None:
    found = worst(stalled(), steps(EVERY_TEN, queued=[3.0 if 100 < time < 185 else 0.0 for time in EVERY_TEN]))
    assert found.cause == gaps.QUEUED
    assert "up to 3 requests in the queue" in found.evidence


def test_an_eviction_is_named_before_the_pause_that_follows_from_it() -> None:
    used = [100.0 if time <= 120 else 60.0 for time in EVERY_TEN]
    paused = [1.0 if 100 < time < 185 else 0.0 for time in EVERY_TEN]
    total = [100.0] * len(EVERY_TEN)
    found = worst(stalled(), steps(EVERY_TEN, paused=paused, kv_blocks_used=used, kv_blocks_total=total))
    assert found.cause == gaps.EVICTION
    assert "KV blocks went from 100 of 100 to 60 while no request ended" in found.evidence


def test_blocks_of_a_request_that_ended_are_no_eviction() -> None:
    record = round_of(Row(chunks=steady(stall_after=9)), Row(chunks=[(50.0, 1), (125.0, 1)]))
    used = [100.0 if time <= 120 else 60.0 for time in EVERY_TEN]
    found = worst(record, steps(EVERY_TEN, kv_blocks_used=used, kv_blocks_total=[100.0] * 28, queued=[1.0] * 28))
    assert found.cause == gaps.QUEUED


def test_a_clock_that_dropped() -> None:
    gpu = {"stamp_ns": np.array([START_NS + at * 20 * MS for at in range(15)]),
           "sm_clock_mhz": np.array([1200.0 if 5 <= at <= 9 else 1980.0 for at in range(15)])}  # fmt: skip
    found = worst(stalled(), steps(STALLED_TIMES, step_ns=at_the_stall(90.0 * MS, 10.0 * MS)), gpu)
    assert found.cause == gaps.CLOCK
    assert found.evidence == "The SM clock was 1,200 MHz, in the round's median 1,980 MHz."


def test_requests_that_wait_for_one_step_are_one_gap_and_prompts_beyond_two_are_counted() -> None:
    waiting = [Row(chunks=steady(stall_after=9)) for _ in range(3)]
    prompts = [Row(chunks=[(185.0, 1), (195.0, 1)], sent=95.0, prompt=tokens) for tokens in (10, 20, 30)]
    table = steps(STALLED_TIMES, step_ns=at_the_stall(90.0 * MS, 10.0 * MS), context_tokens=at_the_stall(60))
    first, *rest = worst_gaps(round_of(*waiting, *prompts), table)
    assert (first.cause, first.request, first.others) == (gaps.PREFILL, 0, (1, 2))
    assert "60 prompt tokens for request 5 (30 tokens), request 4 (20 tokens) and 1 more" in first.evidence
    assert all(gap.cause != gaps.PREFILL for gap in rest)


def test_a_client_that_was_late() -> None:
    record = round_of(Row(chunks=steady()))
    record.chunks.read_ns[10] += 80 * MS
    record.chunks.read_ns[11:] += 80 * MS  # and stays so, so that one gap alone is long
    found = worst_gaps(record, steps([time for time, _ in steady()]))[0]
    assert found.cause == gaps.CLIENT
    assert "80.0 ms later" in found.evidence


def test_gauges_are_hints() -> None:
    times = [105.0, 205.0]
    unknown = [float("nan")] * 2
    found = worst(stalled(), steps(times, step_ns=unknown, paused=[2.0, 0.0]))
    assert (found.cause, found.explained_s) == (gaps.PAUSED, None)
    assert "likely, not certain" in found.evidence


def test_nothing_recorded_and_nothing_streamed() -> None:
    assert worst(stalled(), steps([])).evidence == "No iteration of the engine is known in it."
    assert worst_gaps(round_of(Row(chunks=[(10.0, 5)])), steps([])) == []


def test_an_ordinary_gap_has_no_cause() -> None:
    found = worst_gaps(round_of(Row(chunks=steady())), steps([time for time, _ in steady()]))
    assert {gap.cause for gap in found} == {gaps.ORDINARY_GAP}
    assert len(found) == gaps.MOST


def test_a_chunk_of_several_tokens_may_take_as_many_steps() -> None:
    chunks = [(10.0 * (at + 1), 1) for at in range(10)] + [(140.0, 4)]
    assert worst_gaps(round_of(Row(chunks=chunks)), steps(EVERY_TEN))[0].cause == gaps.ORDINARY_GAP


number = st.one_of(st.just(float("nan")), st.floats(0, 600))
rounds = st.lists(st.lists(st.floats(1, 200), min_size=1, max_size=12), min_size=1, max_size=4)
engine = st.lists(st.tuples(st.floats(0, 900), st.floats(0, 200), number, number, number, number), max_size=30)


@settings(max_examples=60, deadline=None)
@given(rounds, engine)
def test_whatever_the_round(lengths: list[list[float]], recorded: list[tuple[float, ...]]) -> None:
    record = round_of(*(Row(chunks=[(float(at), 1) for at in np.cumsum(row)]) for row in lengths))
    names = ("context_tokens", "queued", "paused", "kv_blocks_used")
    columns: dict[str, Any] = {name: [row[2 + at] for row in recorded] for at, name in enumerate(names)}
    table = steps([row[0] for row in recorded], step_ns=[row[1] * MS for row in recorded],
                  kv_blocks_total=[300.0] * len(recorded), **columns)  # fmt: skip
    found = worst_gaps(record, table)
    assert len(found) + sum(len(gap.others) for gap in found) <= len(record.chunks) - len(lengths)
    assert bool(found) == (len(record.chunks) > len(lengths))
    assert all(gap.request not in gap.others for gap in found)
    assert [gap.s for gap in found] == sorted((gap.s for gap in found), reverse=True)
    for gap in found:
        assert gap.evidence.endswith(".")
        assert gap.explained_s is None or 0 <= gap.explained_s <= gap.s
