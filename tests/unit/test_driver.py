"""The driver's loop against a session whose every arrival is known."""

import gc
import time
from collections.abc import Sequence
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.measure.driver import record, run_round
from enginebench.measure.records import RoundRecord
from enginebench.plan.load import Batch, Load
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Chunk
from enginebench.runtimes.scripted import Script, ScriptedSession, token_id


def requests(count: int, output_tokens: int = 4, *, streaming: bool = True) -> list[Request]:
    return [Request(index, "x", (1, 2, 3), output_tokens, streaming, Sampling()) for index in range(count)]


PAIRS = Batch(2)


def drive(session: ScriptedSession, asked: Sequence[Request], load: Load = PAIRS, stall_s: float = 5.0) -> RoundRecord:
    return record(session, run_round(session, asked, load, stall_s), round_index=0, warmup=False)


def scripted(**script: Any) -> ScriptedSession:
    return ScriptedSession(Script(**({"first_s": 0.004, "gap_s": 0.001} | script)))


def test_a_batch_is_released_when_the_one_before_is_done() -> None:
    found = drive(scripted(), requests(5))
    intended = found.requests.intended_ns.tolist()
    assert intended[0] == intended[1] < intended[2] == intended[3] < intended[4]
    assert max(found.requests.last_ns[:2]) <= intended[2]
    assert max(found.requests.last_ns[2:4]) <= intended[4]
    assert found.started_ns == intended[0]
    assert found.ended_ns == max(found.requests.last_ns)


def test_stamps_and_ids_are_those_of_the_session() -> None:
    found = drive(scripted(chunk_tokens=3), requests(2))
    table = found.requests
    assert ((table.first_ns - table.sent_ns) / 1e6).tolist() == [4, 4]
    assert ((table.last_ns - table.first_ns) / 1e6).tolist() == [1, 1]
    assert (table.first_tokens.tolist(), table.tokens.tolist()) == ([3, 3], [4, 4])
    assert (table.sent_ns >= table.intended_ns).all()
    assert table.reported_prompt_tokens.tolist() == [3, 3]
    assert table.outcome == ("ok", "ok")
    ids: list[list[int]] = [[], []]
    for request, chunk in zip(found.chunks.request, found.chunks.ids(), strict=True):
        ids[request] += chunk.tolist()
    assert ids == [[token_id(request, place) for place in range(4)] for request in requests(2)]


def test_without_streaming_there_is_one_chunk() -> None:
    found = drive(scripted(), requests(2, streaming=False))
    assert not found.streaming
    assert found.chunks.tokens.tolist() == [4, 4]
    assert (found.requests.first_ns == found.requests.last_ns).all()


@pytest.mark.parametrize("fault", ["error", "short", "long", "wrong_input"])
def test_a_fault_is_that_requests_outcome_and_no_others(fault: str) -> None:
    found = drive(scripted(faults={1: fault}), requests(3))
    assert found.requests.outcome == ("ok", fault, "ok")
    assert bool(found.requests.error[1]) == (fault == "error")


@pytest.mark.parametrize(("fault", "tokens"), [("silent", 0), ("stall", 1)])
def test_a_request_without_an_event_is_given_up_and_the_rest_goes_on(fault: str, tokens: int) -> None:
    found = drive(scripted(faults={0: fault}), requests(4), stall_s=0.1)
    assert found.requests.outcome == ("stall", "ok", "ok", "ok")
    assert found.requests.tokens[0] == tokens
    assert "nothing arrived for 0.1 s" in found.requests.error[0]


def test_a_slow_request_with_events_is_no_stall() -> None:
    found = drive(scripted(gap_s=0.05), requests(1, output_tokens=6), stall_s=0.15)
    assert found.requests.outcome == ("ok",)


def test_when_a_whole_batch_stalls_the_rest_is_not_sent() -> None:
    found = drive(scripted(faults={0: "silent", 1: "stall"}), requests(6), stall_s=0.1)
    assert found.requests.outcome == ("stall", "stall", *["cancelled"] * 4)
    assert found.requests.sent_ns[2:].tolist() == [0, 0, 0, 0]
    assert "not sent" in found.requests.error[5]


def test_a_session_that_breaks_ends_the_round() -> None:
    with pytest.raises(SessionError, match="breaks"):
        run_round(scripted(faults={2: "break"}), requests(4), Batch(2), 5.0)
    assert gc.isenabled()


def test_late_arrivals_of_a_request_that_was_given_up_are_ignored() -> None:
    class Straggler(ScriptedSession):
        def cancel(self, request_index: int) -> None:
            """It cannot: what was sent will come."""

    late = Straggler(Script(first_s=0.25, gap_s=0.001, faults={1: "silent"}))
    found = drive(late, requests(2), stall_s=0.1)
    assert found.requests.outcome == ("stall", "stall")
    assert len(found.chunks) == 0
    assert found.ended_ns == found.started_ns


def test_the_garbage_collector_rests_during_a_round_and_works_after_it() -> None:
    seen: list[bool] = []

    class Watching(ScriptedSession):
        def poll(self, timeout_s: float) -> Sequence[Arrival]:
            seen.append(gc.isenabled())
            return super().poll(timeout_s)

    run_round(Watching(Script(first_s=0.001, gap_s=0.001)), requests(2), Batch(2), 5.0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_nothing_is_decoded_before_the_round_is_over() -> None:
    class Undecodable(ScriptedSession):
        def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
            raise AssertionError(f"{len(arrivals)} arrivals were decoded in the loop")

    raw = run_round(Undecodable(Script(first_s=0.001, gap_s=0.001)), requests(2), Batch(2), 5.0)
    assert len(raw.arrivals) == 8


def test_progress_is_told_now_and_then() -> None:
    told: list[tuple[int, int]] = []
    run_round(scripted(gap_s=0.1), requests(2, 8), Batch(2), 5.0, lambda tokens, ended: told.append((tokens, ended)))
    assert 1 <= len(told) <= 4  # of 0.7 s, every 0.25 s; slow machines tell less often
    assert told == sorted(told)
    assert told[-1][0] <= 16


def test_unknown_tokens_stay_unknown() -> None:
    class Texts(ScriptedSession):
        def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
            return [Chunk(each.request_index, each.stamp_ns, (), counted=False) for each in arrivals]

    found = drive(Texts(Script(first_s=0.001, gap_s=0.001)), requests(2))
    assert found.requests.tokens.tolist() == [-1, -1]
    assert found.requests.first_tokens.tolist() == [-1, -1]
    assert found.requests.outcome == ("ok", "ok")
    assert found.chunks.tokens.tolist() == [-1] * 8
    assert len(found.chunks.token_ids) == 0


def test_an_error_inside_a_response_is_the_requests_error() -> None:
    class Apologetic(ScriptedSession):
        def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
            return [Chunk(each.request_index, each.stamp_ns, (), "out of memory") for each in arrivals]

    found = drive(Apologetic(Script(first_s=0.001, gap_s=0.001)), requests(1))
    assert (found.requests.outcome, found.requests.error) == (("error",), ("out of memory",))
    assert found.requests.first_ns.tolist() == [0]


def test_a_round_without_requests_is_over_at_once() -> None:
    found = drive(scripted(), [])
    assert len(found.requests) == 0
    assert found.window_s == 0


def test_a_clock_step_during_the_round_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.clock_gettime_ns
    steps = iter([0] * 9 + [10**9] * 9)
    monkeypatch.setattr("time.clock_gettime_ns", lambda clock: real(clock) + next(steps))
    assert drive(scripted(), requests(1)).clock_stepped
    monkeypatch.undo()
    assert not drive(scripted(), requests(1)).clock_stepped
