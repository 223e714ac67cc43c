"""Releases against simulated engines: every request once, never too many in flight, intended times that never move."""

import heapq
import random
from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from enginebench.measure.releases import (
    BatchRelease,
    ConcurrencyRelease,
    Due,
    RateRelease,
    Release,
    release_of,
)
from enginebench.plan.load import Batch, Concurrency, Rate
from enginebench.plan.requests import Request, Sampling

START = 1_000
Ask = Callable[[random.Random], int]


def requests(offsets: Sequence[int]) -> list[Request]:
    return [Request(index, "x", (1,), 4, True, Sampling(seed=index), offset) for index, offset in enumerate(offsets)]


def simulate(release: Release, seed: int, lateness_ns: int = 0) -> tuple[list[tuple[int, Due]], list[tuple[int, int]]]:
    """Drive ``release``: each request takes a random time, each look at it is late.

    Returns (when sent, what), and (sent, ended) of each request.
    """
    source = random.Random(seed)
    now, sent, spans = 0, list[tuple[int, Due]](), list[tuple[int, int]]()
    flying: list[int] = []
    while True:
        for due in release.due(now):
            end = now + source.randint(1, 500)
            sent.append((now, due))
            spans.append((now, end))
            heapq.heappush(flying, end)
        moments = [moment for moment in (release.next_due_ns(), flying[0] if flying else None) if moment is not None]
        if not moments:
            return sent, spans
        now = max(now + 1, min(moments) + source.randint(0, lateness_ns))
        while flying and flying[0] <= now:
            release.ended(heapq.heappop(flying))


def most_in_flight(spans: Sequence[tuple[int, int]]) -> int:
    """An end counts before a start of the same instant."""
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    level = most = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    return most


counts = st.integers(0, 40)
levels = st.integers(1, 9)
seeds = st.integers(0, 2**32)
lateness = st.integers(0, 300)


@given(counts, levels, seeds, lateness)
def test_batches_are_whole_and_leave_when_the_one_before_is_done(
    count: int, size: int, seed: int, late_ns: int
) -> None:
    sent, spans = simulate(BatchRelease(requests([0] * count), size, START), seed, late_ns)
    assert [due.request.index for _, due in sent] == list(range(count))
    assert all(due.intended_ns == at for at, due in sent)
    assert all(at >= START for at, _ in sent)
    for first in range(size, count, size):
        assert sent[first][0] >= max(end for _, end in spans[first - size : first])


@given(counts, levels, seeds, lateness)
def test_a_concurrency_never_exceeds_its_level_and_never_waits_longer_than_it_must(
    count: int, level: int, seed: int, late_ns: int
) -> None:
    sent, spans = simulate(ConcurrencyRelease(requests([0] * count), level, START), seed, late_ns)
    assert sorted(due.request.index for _, due in sent) == list(range(count))
    assert most_in_flight(spans) <= level
    assert [due.intended_ns for _, due in sent[:level]] == [START] * min(level, count)
    ends = sorted(end for _, end in spans)
    assert sorted(due.intended_ns for _, due in sent[level:]) == ends[: max(0, count - level)]
    assert all(at >= due.intended_ns for at, due in sent)


@given(levels, seeds, lateness, st.integers(1, 3_000))
def test_a_concurrency_with_a_duration_asks_again_until_it_is_over(
    level: int, seed: int, late_ns: int, duration_ns: int
) -> None:
    release = ConcurrencyRelease(requests([0, 0, 0]), level, START, duration_ns / 1e9)
    sent, spans = simulate(release, seed, late_ns)
    assert [due.request.index for _, due in sent] == list(range(len(sent)))
    assert all(due.request.sampling.seed == due.request.index for _, due in sent)
    assert all(due.intended_ns < START + duration_ns for _, due in sent)
    assert most_in_flight(spans) <= level
    places_left_empty = [end for _, end in spans if end < START + duration_ns]
    assert len(sent) == level + len(places_left_empty)


@given(st.lists(st.integers(0, 5_000), max_size=40), seeds, lateness)
def test_a_schedule_never_moves(offsets: list[int], seed: int, late_ns: int) -> None:
    sent, _ = simulate(RateRelease(requests(offsets), START), seed, late_ns)
    assert {due.request.index: due.intended_ns for _, due in sent} == {
        index: START + offset for index, offset in enumerate(offsets)
    }
    assert all(at >= due.intended_ns for at, due in sent)


@given(st.integers(1, 40), levels, st.integers(1, 200))
def test_what_is_given_up_is_what_was_not_sent(count: int, level: int, when: int) -> None:
    for load in (Batch(level), Concurrency(level), Rate(1)):
        release = release_of(load, requests([5 * index for index in range(count)]), 0)
        sent = [due.request.index for due in release.due(when)]
        unsent = [request.index for request in release.give_up()]
        assert sent + unsent == list(range(count))
        release.ended(when)
        assert not release.due(10**9)
        assert release.next_due_ns() is None


def test_nothing_is_given_up_where_a_duration_was_to_be_filled() -> None:
    release = ConcurrencyRelease(requests([0] * 5), 2, 0, 1.0)
    assert len(release.due(1)) == 2
    assert not release.give_up()
    release.ended(5)
    assert not release.due(10)


def test_without_requests_there_is_nothing_to_wait_for() -> None:
    for load in (Batch(1), Concurrency(1), Concurrency(1, duration_s=1.0), Rate(1)):
        release = release_of(load, [], 0)
        assert not release.due(1)
        assert release.next_due_ns() is None
