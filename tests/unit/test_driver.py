"""The driver's loop against a session whose every arrival is known."""

import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from enginebench.errors import SessionError
from enginebench.measure.driver import record, run_round
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.measure.windows import steady_window_ns
from enginebench.plan.load import Batch, Concurrency, Load, Rate
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
        """Request 0 is silent until it is cancelled, and answers then; request 1 goes on until after that."""

        cancelled = False

        def cancel(self, request_index: int) -> None:
            self.cancelled = request_index == 0

        def poll(self, timeout_s: float) -> Sequence[Arrival]:
            time.sleep(min(timeout_s, 0.01))
            late = [Arrival(0, time.monotonic_ns(), (7,), ended=True)] if self.cancelled else []
            return [*late, Arrival(1, time.monotonic_ns(), (7,), ended=self.cancelled)]

    found = drive(Straggler(Script()), requests(2), stall_s=0.1)
    assert found.requests.outcome[0] == "stall"
    assert set(found.chunks.request.tolist()) == {1}
    assert found.requests.tokens[0] == 0


def test_a_round_in_which_nothing_arrives_has_no_length() -> None:
    found = drive(scripted(faults={0: "silent"}), requests(1), stall_s=0.1)
    assert len(found.chunks) == 0
    assert found.ended_ns == found.started_ns


def test_what_waits_to_be_read_while_the_client_is_held_up_is_no_stall() -> None:
    class HeldUp(ScriptedSession):
        """Its process is held up for longer than a stall, and reads what came one by one then."""

        def __init__(self) -> None:
            super().__init__(Script(first_s=0.001))
            self._waiting: list[Arrival] = []

        def poll(self, timeout_s: float) -> Sequence[Arrival]:
            if not self._waiting:
                time.sleep(0.15)
                self._waiting += super().poll(timeout_s)
            return [self._waiting.pop(0)] if self._waiting else []

    assert drive(HeldUp(), requests(3, 1), Batch(3), stall_s=0.1).requests.outcome == ("ok",) * 3


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


def scheduled(*offsets_ms: float) -> list[Request]:
    made = requests(len(offsets_ms))
    return [replace(one, offset_ns=round(ms * 1e6)) for one, ms in zip(made, offsets_ms, strict=True)]


class SlowClient(ScriptedSession):
    """Takes 10 ms at least to send a request."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        sent_ns: list[int] = []
        for request in requests:
            time.sleep(0.01)
            sent_ns += super().submit([request])
        return sent_ns


def test_a_slow_client_shows_as_slip_and_moves_no_schedule() -> None:
    offsets_ms = [float(number) for number in range(12)]
    session = SlowClient(Script(first_s=0.004, gap_s=0.001))
    start_ns = time.monotonic_ns()
    raw = run_round(session, scheduled(*offsets_ms), Rate(1000, "constant"), 5.0, start_at_ns=start_ns)
    table = record(session, raw, round_index=0, warmup=False).requests
    assert (table.intended_ns - start_ns).tolist() == [round(ms * 1e6) for ms in offsets_ms]
    slip_ns = table.sent_ns - table.intended_ns
    assert (np.diff(slip_ns) > 8_000_000).all()  # 10 ms to send, 1 ms of schedule: it grows, and is never forgiven
    metrics = cell_metrics([record(session, raw, round_index=0, warmup=False)])
    assert metrics["service_ttft"].summary["max"] == pytest.approx(0.004)
    assert metrics["ttft"].summary["max"] == pytest.approx(0.004 + float(slip_ns.max()) / 1e9)
    assert metrics["slip"].summary["max"] == pytest.approx(float(slip_ns.max()) / 1e9)


def test_an_open_loop_does_not_wait_for_answers() -> None:
    class AllOrNothing(ScriptedSession):
        """Answers nothing before everything was asked."""

        def poll(self, timeout_s: float) -> Sequence[Arrival]:
            if len(self._requests) == 4:
                return super().poll(timeout_s)
            time.sleep(timeout_s)
            return []

    found = drive(AllOrNothing(Script()), scheduled(0, 5, 10, 15), Rate(200, "constant"))
    assert found.requests.outcome == ("ok",) * 4
    assert found.load == {
        "kind": "rate", "label": "r0200.00-constant", "level": 200,
        "per_s": 200, "arrival": "constant", "burstiness": 1.0, "speedup": 1.0,
    }  # fmt: skip


def test_a_concurrency_keeps_its_places_filled_and_no_more() -> None:
    found = drive(scripted(), [*requests(3, 2), *requests(9, 6)[3:]], Concurrency(3))
    table = found.requests
    assert table.index.tolist() == list(range(9))
    starts = np.sort(table.intended_ns)
    assert len(set(starts[:3].tolist())) == 1
    assert starts[3:].tolist() == np.sort(table.last_ns)[:6].tolist()  # the arrival that freed the place
    for sent_ns in table.sent_ns:
        assert np.count_nonzero((table.sent_ns <= sent_ns) & (table.last_ns > sent_ns)) <= 3


def test_a_concurrency_with_a_duration_lets_the_last_requests_finish() -> None:
    found = drive(scripted(), requests(2), Concurrency(2, duration_s=0.05))
    assert len(found.requests) > 2
    assert set(found.requests.outcome) == {"ok"}
    assert found.requests.intended_ns.max() < found.started_ns + 50_000_000
    window = steady_window_ns(found)
    assert window is not None
    assert found.started_ns <= window[0] < window[1] <= found.ended_ns


def test_rounds_can_start_together() -> None:
    start_ns = time.monotonic_ns() + 40_000_000
    for load in (Batch(2), Concurrency(2), Rate(100)):
        raw = run_round(scripted(), scheduled(0, 3), load, 5.0, start_at_ns=start_ns)
        assert min(raw.sent_ns.values()) >= start_ns
        if not isinstance(load, Batch):
            assert raw.started_ns == start_ns


@pytest.mark.parametrize("load", [Rate(100, "constant"), Concurrency(2)])
def test_when_nothing_is_heard_any_more_the_rest_is_not_sent(load: Load) -> None:
    silent = scripted(faults=dict.fromkeys(range(1, 60), "silent"))
    due_ms = [10.0 * number for number in range(60)]
    asked = scheduled(*due_ms[:10], *(10_000 + each for each in due_ms[10:]))  # late enough for every machine
    found = drive(silent, asked, load, stall_s=0.1)
    assert found.requests.outcome[0] == "ok"
    assert set(found.requests.outcome[1:]) == {"stall", "cancelled"}
    assert found.requests.sent_ns[-1] == 0
    assert "not sent" in found.requests.error[-1]
