"""The contract that every runtime meets, as tests.

A runtime plugs in with a subclass of ``RuntimeContract`` in a file of its own and two fixtures: ``session`` (open, and
closed afterwards) and ``make_request`` (a ``MakeRequest``). Nothing here is timed: waits end when the thing waited for
has come.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Session

PATIENCE_S = 60.0
"""A runtime that is silent for so long is broken, on any machine."""

NOT_ENDING_TOKENS = 400
"""An answer long enough to be cancelled before it ends; the build under test must allow it."""


class MakeRequest(Protocol):
    """Make a request for ``prompt`` as the runtime's build tokenises it."""

    def __call__(
        self,
        index: int,
        prompt: str = "你是谁？",
        output_tokens: int = 8,
        streaming: bool = True,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> Request: ...


def requests_with(encode: Callable[[str], tuple[int, ...]]) -> MakeRequest:
    """Make requests whose prompts ``encode`` tokenises."""

    def make(
        index: int,
        prompt: str = "你是谁？",
        output_tokens: int = 8,
        streaming: bool = True,
        sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    ) -> Request:
        return Request(index, prompt, encode(prompt), output_tokens, streaming, sampling)

    return make


def collect(session: Session, ends: int) -> list[Arrival]:
    """Poll until ``ends`` requests have ended; return everything that arrived."""
    arrivals: list[Arrival] = []
    while sum(arrival.ended for arrival in arrivals) < ends:
        news = session.poll(PATIENCE_S)
        assert news, f"nothing arrived for {PATIENCE_S:g} s"
        arrivals += news
    return arrivals


def answers(session: Session, requests: Sequence[Request]) -> dict[int, tuple[int, ...]]:
    """Submit ``requests`` at once; return the token ids of each by its index. No request may fail."""
    session.submit(requests)
    tokens: dict[int, tuple[int, ...]] = defaultdict(tuple)
    for chunk in session.decode(collect(session, len(requests))):
        assert chunk.error is None
        tokens[chunk.request_index] += chunk.token_ids
    return dict(tokens)


class RuntimeContract:
    """What the driver relies on."""

    def test_a_streamed_answer_arrives_in_several_chunks(self, session: Session, make_request: MakeRequest) -> None:
        session.submit([make_request(0)])
        chunks = session.decode(collect(session, 1))
        assert len(chunks) >= 2
        assert sum(len(chunk.token_ids) for chunk in chunks) == 8

    def test_an_answer_without_streaming_arrives_once(self, session: Session, make_request: MakeRequest) -> None:
        session.submit([make_request(0, streaming=False)])
        chunks = session.decode(collect(session, 1))
        assert [len(chunk.token_ids) for chunk in chunks] == [8]

    def test_streaming_does_not_change_the_answer(self, session: Session, make_request: MakeRequest) -> None:
        streamed = answers(session, [make_request(0)])
        assert answers(session, [make_request(0, streaming=False)]) == streamed

    @pytest.mark.parametrize("output_tokens", [1, 2, 37])
    @pytest.mark.parametrize("streaming", [True, False])
    def test_an_answer_has_exactly_the_length_asked(
        self, session: Session, make_request: MakeRequest, output_tokens: int, streaming: bool
    ) -> None:
        tokens = answers(session, [make_request(0, output_tokens=output_tokens, streaming=streaming)])
        assert len(tokens[0]) == output_tokens

    def test_each_of_many_requests_gets_its_own_answer(self, session: Session, make_request: MakeRequest) -> None:
        requests = [make_request(i, prompt="天地玄黄" * (i + 1), output_tokens=5 + i) for i in range(12)]
        together = answers(session, requests)
        assert {index: len(tokens) for index, tokens in together.items()} == {i: 5 + i for i in range(12)}
        alone = {request.index: answers(session, [request])[request.index] for request in requests[:3]}
        assert alone == {index: together[index] for index in alone}

    def test_a_seeded_answer_can_be_had_again(self, session: Session, make_request: MakeRequest) -> None:
        warm = Sampling(temperature=1.0, top_k=50, seed=7)
        first = answers(session, [make_request(0, sampling=warm, output_tokens=16)])
        assert answers(session, [make_request(0, sampling=warm, output_tokens=16)]) == first
        other = answers(session, [make_request(0, sampling=replace(warm, seed=8), output_tokens=16)])
        assert other != first

    def test_stamps_are_monotonic_and_lie_within_the_request(self, session: Session, make_request: MakeRequest) -> None:
        before_ns = time.monotonic_ns()
        (sent_ns,) = session.submit([make_request(0)])
        arrivals = collect(session, 1)
        after_ns = time.monotonic_ns()
        stamps = [before_ns, sent_ns, *(arrival.stamp_ns for arrival in arrivals), after_ns]
        assert stamps == sorted(stamps)

    def test_only_the_last_arrival_says_that_the_request_ended(
        self, session: Session, make_request: MakeRequest
    ) -> None:
        session.submit([make_request(0)])
        ended = [arrival.ended for arrival in collect(session, 1)]
        assert ended == [False] * (len(ended) - 1) + [True]

    def test_poll_comes_back_empty_handed_when_nothing_was_asked(self, session: Session) -> None:
        assert list(session.poll(0.0)) == []
        assert list(session.poll(0.01)) == []

    def test_nothing_arrives_for_a_cancelled_request(self, session: Session, make_request: MakeRequest) -> None:
        session.submit([make_request(0, output_tokens=NOT_ENDING_TOKENS), make_request(1, output_tokens=20)])
        before = session.poll(PATIENCE_S)
        session.cancel(0)
        over = {arrival.request_index for arrival in before if arrival.ended}  # a test that is held up may see it all
        after = [] if 1 in over else collect(session, 1)
        session.drain(PATIENCE_S)
        after += session.poll(0.0)
        assert {arrival.request_index for arrival in [*before, *after] if arrival.ended} == over | {1}
        assert {arrival.request_index for arrival in after} <= {1}

    def test_a_cancelled_request_leaves_the_next_ones_alone(self, session: Session, make_request: MakeRequest) -> None:
        expected = answers(session, [make_request(0)])
        session.submit([make_request(0, output_tokens=NOT_ENDING_TOKENS)])
        session.poll(PATIENCE_S)
        session.cancel(0)
        assert answers(session, [make_request(0)]) == expected

    def test_cancelling_what_is_unknown_or_over_does_nothing(self, session: Session, make_request: MakeRequest) -> None:
        session.cancel(0)
        answers(session, [make_request(0)])
        session.cancel(0)
        assert len(answers(session, [make_request(0)])[0]) == 8

    def test_drain_returns_when_all_has_ended(self, session: Session, make_request: MakeRequest) -> None:
        session.drain(PATIENCE_S)
        answers(session, [make_request(0)])
        session.drain(PATIENCE_S)
        assert list(session.poll(0.0)) == []

    def test_a_request_that_is_refused_ends_with_one_sentence(
        self, session: Session, make_request: MakeRequest
    ) -> None:
        session.submit([make_request(0, output_tokens=1_000_000), make_request(1)])
        arrivals = collect(session, 2)
        errors = {chunk.request_index: chunk.error for chunk in session.decode(arrivals) if chunk.error}
        assert set(errors) == {0}
        assert "1000000" in str(errors[0])
        assert "\n" not in str(errors[0])

    def test_decoding_gives_the_input_length_or_says_nothing(self, session: Session, make_request: MakeRequest) -> None:
        request = make_request(0)
        session.submit([request])
        reported = {chunk.prompt_tokens for chunk in session.decode(collect(session, 1))}
        assert reported - {None} <= {len(request.prompt_ids)}

    def test_nothing_decodes_to_nothing(self, session: Session) -> None:
        assert list(session.decode([])) == []

    def test_facts_and_the_kind_of_stamp_are_stated(self, session: Session) -> None:
        assert session.facts()
        assert session.stamp_kind in ("kernel", "user", "engine")

    def test_closing_twice_is_fine_even_in_the_middle_of_an_answer(
        self, session: Session, make_request: MakeRequest
    ) -> None:
        session.submit([make_request(0, output_tokens=NOT_ENDING_TOKENS)])
        session.close()
        session.close()
