"""One round, driven: release what is due, poll until the next is due, keep what arrives. One loop for every runtime.

While a round is under way nothing is decoded, counted or written, and the garbage collector is off; ``record`` turns
what arrived into a record afterwards. Times are those that the session stamped, but for the moment of release.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from enginebench.clock import measure_offset, now_ns
from enginebench.measure.assembly import chunk_table, request_table
from enginebench.measure.records import UNKNOWN, RoundRecord
from enginebench.measure.releases import Release, release_of
from enginebench.plan.load import Load, load_to_json
from enginebench.plan.requests import Request
from enginebench.runtimes import sse
from enginebench.runtimes.base import Arrival, Session
from enginebench.runtimes.columns import ArrivalLog, ChunkLog

PROGRESS_S = 0.25
"""``on_progress`` is called this often, whether something arrived or not."""

_NEVER = 1 << 63
"""Later than every stamp."""

OnProgress: TypeAlias = Callable[[int, int], None]
"""Takes the number of tokens so far (of arrivals, where tokens come as raw bytes) and of requests that ended."""


@dataclass(slots=True)
class RawRound:
    """What a round left, undecoded."""

    load: Load
    requests: list[Request] = field(default_factory=list)  # in the order of release
    intended_ns: dict[int, int] = field(default_factory=dict)  # by request index
    sent_ns: dict[int, int] = field(default_factory=dict)
    arrivals: ArrivalLog = field(default_factory=ArrivalLog)
    given_up: dict[int, tuple[str, str]] = field(default_factory=dict)  # request index → outcome, why
    clock_stepped: bool = False

    @property
    def started_ns(self) -> int:
        """The release of the first request."""
        return min(self.intended_ns.values(), default=0)

    @property
    def ended_ns(self) -> int:
        """The last arrival; ``started_ns`` when nothing arrived."""
        return self.arrivals.last_stamp_ns or self.started_ns


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
        self._ended = 0
        self._places_freed = False  # since the release was asked
        self._next_due_ns = _NEVER

    def run(self) -> None:
        """Until nothing is in flight and nothing is left to send."""
        self._send_due()
        while self._last_event_ns or self._next_due_ns < _NEVER:
            self._take(self._session.poll(self._tick_s if self._next_due_ns == _NEVER else self._wait_s()))
            now = now_ns()
            if now >= self._next_tick_ns:
                self._tick()
            if self._places_freed or now >= self._next_due_ns:
                self._send_due()

    def _wait_s(self) -> float:
        return min(self._tick_s, max(0, self._next_due_ns - now_ns()) / 1e9)

    def _send_due(self) -> None:
        """Ask the release, which may be slow, only when its answer can have changed."""
        self._places_freed = False
        due = self._release.due(now_ns())
        next_ns = self._release.next_due_ns()
        self._next_due_ns = _NEVER if next_ns is None else next_ns
        if not due:
            return
        requests = [request for request, _ in due]
        for (request, intended_ns), sent_ns in zip(due, self._session.submit(requests), strict=True):
            self._raw.sent_ns[request.index] = sent_ns
            self._raw.intended_ns[request.index] = intended_ns
            self._last_event_ns[request.index] = sent_ns
        self._raw.requests += requests

    def _take(self, arrivals: Sequence[Arrival]) -> None:
        seen_ns, in_flight, keep = now_ns(), self._last_event_ns, self._raw.arrivals.append
        for arrival in arrivals:
            index = arrival.request_index
            if index not in in_flight:
                continue  # the tail of a request that was given up
            keep(arrival if arrival.read_ns != UNKNOWN else arrival._replace(read_ns=seen_ns))
            if arrival.payload[:1] != sse.COMMENT:  # which servers send to a request of which they hear nothing, either
                in_flight[index] = seen_ns
            if arrival.ended:
                del in_flight[index]
                self._ended += 1
                self._last_end_ns = seen_ns
                self._release.ended(arrival.stamp_ns)
                self._places_freed = True

    def _tick(self) -> None:
        """What need not be done for every arrival: look for stalls, tell how far the round is."""
        now = now_ns()
        self._next_tick_ns = now + int(self._tick_s * 1e9)
        if self._silent(now):
            self._catch_up()  # this process may have been held up, and not the server
        stalled = self._silent(now)
        for index in stalled:
            self._give_up(index, "stall", f"nothing arrived for {self._stall_ns / 1e9:g} s", now)
        if stalled and self._silent_since(min(self._raw.sent_ns[index] for index in stalled)):
            self._engine_is_dead(now)
        if self._on_progress is not None:
            self._on_progress(self._raw.arrivals.tokens, self._ended)

    def _silent(self, now: int) -> list[int]:
        """The requests without an event for too long."""
        return [index for index, seen_ns in self._last_event_ns.items() if now - seen_ns >= self._stall_ns]

    def _catch_up(self) -> None:
        """Take what waits to be read. A poll may end with an answer, of which there are as many as requests."""
        for _ in range(len(self._last_event_ns)):
            if not (arrivals := self._session.poll(0.0)):
                return
            self._take(arrivals)

    def _silent_since(self, sent_ns: int) -> bool:
        """Whether no request has ended since then, and nothing arrived for any that is in flight."""
        heard = (seen_ns > self._raw.sent_ns[index] for index, seen_ns in self._last_event_ns.items())
        return self._last_end_ns < sent_ns and not any(heard)

    def _give_up(self, index: int, outcome: str, why: str, now: int) -> None:
        self._session.cancel(index)
        del self._last_event_ns[index]
        self._raw.given_up[index] = (outcome, why)
        self._release.ended(now)
        self._places_freed = True

    def _engine_is_dead(self, now: int) -> None:
        for index in list(self._last_event_ns):
            self._give_up(index, "cancelled", "given up: every request before it stalled", now)
        unsent = self._release.give_up()
        self._raw.requests += unsent
        why = "not sent: every request before it stalled"
        self._raw.given_up |= {request.index: ("cancelled", why) for request in unsent}


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
    chunks = ChunkLog.of(session.decode(raw.arrivals))
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
        requests=request_table(raw.requests, raw.intended_ns, raw.sent_ns, raw.given_up, raw.arrivals, chunks),
        chunks=chunk_table(chunks),
    )
