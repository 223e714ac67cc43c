"""One round, driven: release what is due, poll until the next is due, keep what arrives. One loop for every runtime.

While a round is under way nothing is decoded, counted or written, and the garbage collector is off; ``record`` turns
what arrived into a record afterwards. Times are those that the session stamped, but for the moment of release.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from enginebench.clock import measure_offset, now_ns
from enginebench.measure.records import UNKNOWN, ChunkTable, RequestTable, RoundRecord, int_array, stamp_array
from enginebench.measure.releases import Release, release_of
from enginebench.plan.load import Load, load_to_json
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, Session

PROGRESS_S = 0.25
"""``on_progress`` is called this often, whether something arrived or not."""

OnProgress: TypeAlias = Callable[[int, int], None]
"""Takes the number of tokens so far (of arrivals, where tokens come as raw bytes) and of requests that ended."""


@dataclass(slots=True)
class RawRound:
    """What a round left, undecoded."""

    load: Load
    requests: list[Request] = field(default_factory=list)  # in the order of release
    intended_ns: dict[int, int] = field(default_factory=dict)  # by request index
    sent_ns: dict[int, int] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    given_up: dict[int, tuple[str, str]] = field(default_factory=dict)  # request index → outcome, why
    clock_stepped: bool = False

    @property
    def started_ns(self) -> int:
        """The release of the first request."""
        return min(self.intended_ns.values(), default=0)

    @property
    def ended_ns(self) -> int:
        """The last arrival; ``started_ns`` when nothing arrived."""
        return max((arrival.stamp_ns for arrival in self.arrivals), default=self.started_ns)


def run_round(
    session: Session,
    requests: Sequence[Request],
    load: Load,
    stall_timeout_s: float,
    on_progress: OnProgress | None = None,
    start_at_ns: int | None = None,
) -> RawRound:
    """Drive one round of ``requests`` under ``load``; return when each has ended, failed, or been silent for too long.

    ``start_at_ns``: when the round starts (CLOCK_MONOTONIC), for rounds that start together; now by default.
    A request without an event for ``stall_timeout_s`` is cancelled. When nothing is heard of any other request either,
    the engine is taken for dead, and the rest is not sent. Raises what the session raises when it breaks.
    """
    raw = RawRound(load)
    before = measure_offset()
    with _no_garbage_collection():
        release = release_of(load, requests, now_ns() if start_at_ns is None else start_at_ns)
        _Loop(session, raw, release, stall_timeout_s, on_progress).run()
    raw.clock_stepped = before.stepped(measure_offset())
    return raw


class _Loop:
    def __init__(
        self, session: Session, raw: RawRound, release: Release, stall_timeout_s: float, on_progress: OnProgress | None
    ):
        self._session = session
        self._raw = raw
        self._release = release
        self._last_event_ns: dict[int, int] = {}  # of the requests in flight; at first, when they were sent
        self._last_end_ns = 0  # when a request was last seen to end by itself
        self._stall_ns = int(stall_timeout_s * 1e9)
        self._tick_s = min(PROGRESS_S, stall_timeout_s / 4)
        self._next_tick_ns = now_ns() + int(self._tick_s * 1e9)
        self._on_progress = on_progress
        self._counted, self._tokens, self._ended = 0, 0, 0

    def run(self) -> None:
        """Until nothing is in flight and nothing is left to send."""
        while self._send_due() or self._last_event_ns or self._release.next_due_ns() is not None:
            self._take(self._session.poll(self._wait_s()))
            if now_ns() >= self._next_tick_ns:
                self._tick()

    def _wait_s(self) -> float:
        next_ns = self._release.next_due_ns()
        return self._tick_s if next_ns is None else min(self._tick_s, max(0, next_ns - now_ns()) / 1e9)

    def _send_due(self) -> bool:
        due = self._release.due(now_ns())
        if not due:
            return False
        requests = [request for request, _ in due]
        for (request, intended_ns), sent_ns in zip(due, self._session.submit(requests), strict=True):
            self._raw.sent_ns[request.index] = sent_ns
            self._raw.intended_ns[request.index] = intended_ns
            self._last_event_ns[request.index] = sent_ns
        self._raw.requests += requests
        return True

    def _take(self, arrivals: Sequence[Arrival]) -> None:
        seen_ns = now_ns()
        for arrival in arrivals:
            if arrival.request_index not in self._last_event_ns:
                continue  # the tail of a request that was given up
            self._raw.arrivals.append(arrival)
            self._last_event_ns[arrival.request_index] = seen_ns
            if arrival.ended:
                del self._last_event_ns[arrival.request_index]
                self._ended += 1
                self._last_end_ns = seen_ns
                self._release.ended(arrival.stamp_ns)

    def _tick(self) -> None:
        """What need not be done for every arrival: look for stalls, tell how far the round is."""
        now = now_ns()
        self._next_tick_ns = now + int(self._tick_s * 1e9)
        stalled = [index for index, seen_ns in self._last_event_ns.items() if now - seen_ns >= self._stall_ns]
        for index in stalled:
            self._give_up(index, "stall", f"nothing arrived for {self._stall_ns / 1e9:g} s", now)
        if stalled and self._silent_since(min(self._raw.sent_ns[index] for index in stalled)):
            self._engine_is_dead(now)
        if self._on_progress is not None:
            self._tokens += sum(_size(arrival) for arrival in self._raw.arrivals[self._counted :])
            self._counted = len(self._raw.arrivals)
            self._on_progress(self._tokens, self._ended)

    def _silent_since(self, sent_ns: int) -> bool:
        """Whether no request has ended since then, and nothing arrived for any that is in flight."""
        heard = (seen_ns > self._raw.sent_ns[index] for index, seen_ns in self._last_event_ns.items())
        return self._last_end_ns < sent_ns and not any(heard)

    def _give_up(self, index: int, outcome: str, why: str, now: int) -> None:
        self._session.cancel(index)
        del self._last_event_ns[index]
        self._raw.given_up[index] = (outcome, why)
        self._release.ended(now)

    def _engine_is_dead(self, now: int) -> None:
        for index in list(self._last_event_ns):
            self._give_up(index, "cancelled", "given up: every request before it stalled", now)
        unsent = self._release.give_up()
        self._raw.requests += unsent
        why = "not sent: every request before it stalled"
        self._raw.given_up |= {request.index: ("cancelled", why) for request in unsent}


def _size(arrival: Arrival) -> int:
    return 1 if isinstance(arrival.payload, bytes) else len(arrival.payload)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a round would delay whatever arrives meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def record(session: Session, raw: RawRound, *, round_index: int, warmup: bool, block: int = 0) -> RoundRecord:
    """Decode a round that is over, and hold each request against what it asked for."""
    chunks = session.decode(raw.arrivals)
    return RoundRecord(
        round_index=round_index,
        warmup=warmup,
        block=block,
        streaming=all(request.streaming for request in raw.requests),
        load=load_to_json(raw.load),
        stamp_kind=session.stamp_kind,
        started_ns=raw.started_ns,
        ended_ns=raw.ended_ns,
        clock_stepped=raw.clock_stepped,
        requests=_request_table(raw, chunks),
        chunks=_chunk_table(chunks),
    )


def _chunk_table(chunks: Sequence[Chunk]) -> ChunkTable:
    chunks = [chunk for chunk in chunks if _tokens(chunk)]
    return ChunkTable(
        request=int_array([chunk.request_index for chunk in chunks]),
        stamp_ns=stamp_array([chunk.stamp_ns for chunk in chunks]),
        tokens=int_array([_tokens(chunk) for chunk in chunks]),
        token_ids=np.array([token for chunk in chunks for token in chunk.token_ids], dtype=np.int32),
    )


def _tokens(chunk: Chunk) -> int:
    """How many tokens came; unknown where the path gives text that does not identify them."""
    return len(chunk.token_ids) if chunk.counted else UNKNOWN


@dataclass(slots=True)
class _Answer:
    """What came for one request, added up."""

    first_ns: int = 0
    last_ns: int = 0
    tokens: int = 0
    first_tokens: int = 0
    prompt_tokens: int = UNKNOWN
    error: str = ""

    def add(self, chunk: Chunk) -> None:
        if chunk.prompt_tokens is not None:
            self.prompt_tokens = chunk.prompt_tokens
        self.error = self.error or chunk.error or ""
        tokens = _tokens(chunk)
        if not tokens:
            return
        if not self.first_ns:
            self.first_ns, self.first_tokens = chunk.stamp_ns, tokens
        self.last_ns = chunk.stamp_ns
        self.tokens = UNKNOWN if UNKNOWN in (tokens, self.tokens) else self.tokens + tokens


def _request_table(raw: RawRound, chunks: Sequence[Chunk]) -> RequestTable:
    answers = {request.index: _Answer() for request in raw.requests}
    for chunk in chunks:
        answers[chunk.request_index].add(chunk)
    for arrival in raw.arrivals:
        if arrival.error:
            answers[arrival.request_index].error = arrival.error
    rows = [answers[request.index] for request in raw.requests]
    outcomes = [_outcome(request, answers[request.index], raw.given_up) for request in raw.requests]
    return RequestTable(
        index=int_array([request.index for request in raw.requests]),
        prompt_tokens=int_array([len(request.prompt_ids) for request in raw.requests]),
        reported_prompt_tokens=int_array([row.prompt_tokens for row in rows]),
        requested_tokens=int_array([request.output_tokens for request in raw.requests]),
        intended_ns=stamp_array([raw.intended_ns.get(request.index, 0) for request in raw.requests]),
        sent_ns=stamp_array([raw.sent_ns.get(request.index, 0) for request in raw.requests]),
        first_ns=stamp_array([row.first_ns for row in rows]),
        last_ns=stamp_array([row.last_ns for row in rows]),
        tokens=int_array([row.tokens for row in rows]),
        first_tokens=int_array([row.first_tokens for row in rows]),
        outcome=tuple(outcome for outcome, _ in outcomes),
        error=tuple(why for _, why in outcomes),
    )


def _outcome(request: Request, answer: _Answer, given_up: Mapping[int, tuple[str, str]]) -> tuple[str, str]:
    """How a request ended, and why when it is known; the gravest first."""
    if request.index in given_up:
        return given_up[request.index]
    if answer.error:
        return "error", answer.error
    if answer.prompt_tokens not in (UNKNOWN, len(request.prompt_ids)):
        return "wrong_input", ""
    if answer.tokens in (UNKNOWN, request.output_tokens):
        return "ok", ""
    return ("short" if answer.tokens < request.output_tokens else "long"), ""
