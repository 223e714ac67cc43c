"""In-flight batching, step by step on an engine that waits for the test, and at full speed on a real one."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from enginebench.errors import SessionError
from enginebench.plan.requests import Sampling
from enginebench.reference.batcher import CANCELLED, Batcher, TokenEvent
from enginebench.reference.engine import Engine
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.stage import Span
from enginebench.reference.weights import random_weights

PATIENCE_S = 60.0
OPTIONS = ReferenceOptions(
    layers=1,
    hidden=16,
    heads=2,
    kv_heads=1,
    ffn=16,
    vocab_size=600,
    max_batch_size=3,
    max_input_len=40,
    max_seq_len=100,
    max_num_tokens=8,
    min_step_ms=0,
)
GREEDY = Sampling()


class SteppedEngine(Engine):
    """Computes a step only when the test says so, and keeps what it was asked to compute."""

    def __init__(self) -> None:
        super().__init__(OPTIONS, random_weights(OPTIONS))
        self.asked: list[list[Span]] = []
        self.broken = False
        self._entered = threading.Semaphore(0)
        self._allowed = threading.Semaphore(0)

    def forward(self, spans: Sequence[Span]) -> Any:
        self.asked.append(list(spans))
        self._entered.release()
        assert self._allowed.acquire(timeout=PATIENCE_S)
        if self.broken:
            raise FloatingPointError("overflow")
        return super().forward(spans)

    def wait_entered(self) -> list[tuple[int, int]]:
        """Block until a step has begun; return (slot, tokens) of its spans."""
        assert self._entered.acquire(timeout=PATIENCE_S)
        return [(span.slot, len(span.token_ids)) for span in self.asked[-1]]

    def allow(self, steps: int = 1) -> None:
        self._allowed.release(steps)


class Events:
    """Listens to a batcher."""

    def __init__(self) -> None:
        self.all: list[TokenEvent] = []
        self.tokens: dict[int, tuple[int, ...]] = defaultdict(tuple)

    def __call__(self, event: TokenEvent) -> None:
        self.all.append(event)
        self.tokens[event.request_id] += event.token_ids

    def error(self, request_id: int) -> str | None:
        return next(event.error for event in self.all if event.request_id == request_id and event.ended)


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def engine() -> SteppedEngine:
    return SteppedEngine()


@pytest.fixture
def batcher(engine: SteppedEngine, events: Events) -> Iterator[Batcher]:
    made = Batcher(engine, events)
    yield made
    engine.allow(10_000)
    made.close()


def finish(batcher: Batcher, engine: SteppedEngine) -> None:
    engine.allow(1000)
    assert batcher.wait_idle(PATIENCE_S)


def prompt(length: int) -> tuple[int, ...]:
    return tuple(range(300, 300 + length))


def test_requests_join_and_leave_the_running_batch(batcher: Batcher, engine: SteppedEngine, events: Events) -> None:
    batcher.submit(1, prompt(2), 3, GREEDY)
    assert engine.wait_entered() == [(0, 2)]
    batcher.submit(2, prompt(3), 1, GREEDY)
    engine.allow()
    assert engine.wait_entered() == [(0, 1), (1, 3)]
    engine.allow()
    assert engine.wait_entered() == [(0, 1)]
    finish(batcher, engine)
    assert [(event.request_id, event.ended) for event in events.all] == [(1, False), (1, False), (2, True), (1, True)]


def test_long_prompts_are_chunked_beside_decodes(batcher: Batcher, engine: SteppedEngine) -> None:
    batcher.submit(1, prompt(2), 9, GREEDY)
    engine.wait_entered()
    batcher.submit(2, prompt(20), 2, GREEDY)
    shapes = []
    for _ in range(4):
        engine.allow()
        shapes.append(engine.wait_entered())
    finish(batcher, engine)
    assert shapes == [[(0, 1), (1, 7)], [(0, 1), (1, 7)], [(0, 1), (1, 6)], [(0, 1), (1, 1)]]


def test_no_step_exceeds_the_tokens_of_the_build_and_no_chunk_is_lost(
    batcher: Batcher, engine: SteppedEngine, events: Events
) -> None:
    for request_id in range(6):
        batcher.submit(request_id, prompt(10 + 5 * request_id), 4, GREEDY)
    finish(batcher, engine)
    assert max(sum(len(span.token_ids) for span in step) for step in engine.asked) == 8
    assert {request_id: len(tokens) for request_id, tokens in events.tokens.items()} == dict.fromkeys(range(6), 4)
    # Every prompt and all but the last answer token pass through the engine, once.
    computed = sum(len(span.token_ids) for step in engine.asked for span in step)
    assert computed == sum(10 + 5 * request_id + 3 for request_id in range(6))


def test_requests_beyond_the_slots_wait_in_order(batcher: Batcher, engine: SteppedEngine, events: Events) -> None:
    for request_id in range(5):
        batcher.submit(request_id, prompt(1), 2 + request_id, GREEDY)
    finish(batcher, engine)
    assert max(len(step) for step in engine.asked) == 3
    firsts = list(dict.fromkeys(event.request_id for event in events.all))
    assert firsts == [0, 1, 2, 3, 4]


def test_each_step_has_its_statistics(batcher: Batcher, engine: SteppedEngine) -> None:
    batcher.submit(0, prompt(1), 30, GREEDY)
    engine.wait_entered()
    for request_id in range(1, 5):
        batcher.submit(request_id, prompt(2), 30, GREEDY)
    engine.allow(2)
    for _ in range(2):
        engine.wait_entered()
    second = batcher.statistics()
    assert (second.iteration, second.active, second.queued, second.free_slots) == (2, 3, 2, 0)
    assert (second.context_tokens, second.generation_tokens) == (4, 1)
    assert second.step_s > 0


def test_a_cancelled_request_ends_at_the_next_step_and_frees_its_slot(
    batcher: Batcher, engine: SteppedEngine, events: Events
) -> None:
    for request_id in range(4):
        batcher.submit(request_id, prompt(1), 5, GREEDY)
    engine.wait_entered()
    batcher.cancel(0)
    batcher.cancel(99)
    finish(batcher, engine)
    assert events.error(0) == CANCELLED
    assert len(events.tokens[0]) <= 1
    assert [len(events.tokens[request_id]) for request_id in (1, 2, 3)] == [5, 5, 5]


def test_a_request_can_be_cancelled_in_the_queue(batcher: Batcher, engine: SteppedEngine, events: Events) -> None:
    for request_id in range(4):
        batcher.submit(request_id, prompt(1), 5, GREEDY)
    engine.wait_entered()
    batcher.cancel(3)
    finish(batcher, engine)
    assert events.error(3) == CANCELLED
    assert events.tokens[3] == ()


def test_a_broken_step_ends_every_request_and_the_next_ones_work(
    batcher: Batcher, engine: SteppedEngine, events: Events
) -> None:
    engine.broken = True
    for request_id in range(5):
        batcher.submit(request_id, prompt(1), 2, GREEDY)
    engine.wait_entered()
    engine.allow()
    assert batcher.wait_idle(PATIENCE_S)
    assert {str(events.error(request_id)) for request_id in range(5)} == {
        "The reference engine's step broke (FloatingPointError: overflow)."
    }
    engine.broken = False
    batcher.submit(7, prompt(1), 2, GREEDY)
    finish(batcher, engine)
    assert len(events.tokens[7]) == 2


def test_closing_ends_every_request(engine: SteppedEngine, events: Events) -> None:
    batcher = Batcher(engine, events)
    for request_id in range(5):
        batcher.submit(request_id, prompt(1), 99, GREEDY)
    engine.wait_entered()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while closing.is_alive():  # the step under way, and those that begin before the flag is seen
        engine.allow()
        closing.join(0.1)
    assert batcher.idle()
    assert {events.error(request_id) for request_id in range(5)} == {"The reference engine was closed."}
    with pytest.raises(SessionError, match="is closed"):
        batcher.submit(9, prompt(1), 1, GREEDY)


def test_a_listener_that_fails_loses_its_request_alone(engine: SteppedEngine) -> None:
    got = Events()

    def listen(event: TokenEvent) -> None:
        if event.request_id == 1:
            raise ConnectionError("gone")
        got(event)

    batcher = Batcher(engine, listen)
    batcher.submit(1, prompt(1), 50, GREEDY)
    batcher.submit(2, prompt(1), 5, GREEDY)
    finish(batcher, engine)
    batcher.close()
    assert len(got.tokens[2]) == 5
    assert len(engine.asked) < 10


@pytest.mark.parametrize(
    ("prompt_ids", "output_tokens", "message"),
    [
        ((), 1, "0 prompt and 1 output tokens"),
        (prompt(1), 0, "1 prompt and 0 output tokens"),
        (prompt(41), 1, "prompt 41 tokens exceed the build's max_input_len 40"),
        (prompt(40), 61, r"prompt 40 \+ output 61 tokens exceed the build's max_seq_len 100"),
        ((600,), 1, "vocabulary of 600"),
        ((-1,), 1, "vocabulary of 600"),
    ],
)
def test_what_the_build_cannot_do_is_refused(
    batcher: Batcher, prompt_ids: tuple[int, ...], output_tokens: int, message: str
) -> None:
    with pytest.raises(SessionError, match=message):
        batcher.submit(1, prompt_ids, output_tokens, GREEDY)
    assert batcher.idle()


def test_an_id_under_way_cannot_be_used_twice(batcher: Batcher) -> None:
    batcher.submit(1, prompt(1), 5, GREEDY)
    with pytest.raises(SessionError, match="Request 1 is already under way"):
        batcher.submit(1, prompt(1), 5, GREEDY)


def test_the_longest_request_that_fits_is_answered(batcher: Batcher, engine: SteppedEngine, events: Events) -> None:
    batcher.submit(1, prompt(40), 60, GREEDY)
    finish(batcher, engine)
    assert len(events.tokens[1]) == 60


REAL = ReferenceOptions(
    layers=3, hidden=64, heads=4, kv_heads=2, ffn=96, vocab_size=2048, max_num_tokens=24, min_step_ms=0
)
SAMPLINGS = [Sampling(), Sampling(0.7, 0, 3), Sampling(1.3, 20, 4)]


def generate(requests: Sequence[tuple[int, int, Sampling]], at_once: bool) -> dict[int, tuple[int, ...]]:
    """Answer (prompt length, output tokens, sampling) requests in one batch, or one after the other."""
    events = Events()
    batcher = Batcher(Engine(REAL, random_weights(REAL)), events)
    for request_id, (length, output_tokens, sampling) in enumerate(requests):
        batcher.submit(
            request_id, tuple(2 + (7 * request_id + i) % 2000 for i in range(length)), output_tokens, sampling
        )
        assert at_once or batcher.wait_idle(PATIENCE_S)
    assert batcher.wait_idle(PATIENCE_S)
    batcher.close()
    return events.tokens


def test_a_batch_of_any_make_up_gives_each_request_the_tokens_it_gets_alone() -> None:
    generator = np.random.default_rng(1)
    requests = [(int(generator.integers(1, 60)), int(generator.integers(1, 60)), SAMPLINGS[i % 3]) for i in range(24)]
    assert generate(requests, at_once=True) == generate(requests, at_once=False)


def test_answers_are_not_one_token_over_and_over() -> None:
    answers = generate([(12, 60, sampling) for sampling in SAMPLINGS * 2], at_once=True)
    assert min(len(set(tokens)) for tokens in answers.values()) > 20
    assert len(set(answers.values())) == 6
    assert min(min(tokens) for tokens in answers.values()) >= 258
