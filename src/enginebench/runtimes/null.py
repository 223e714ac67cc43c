"""A runtime without an engine that emits tokens at known times from a thread of its own, as engines in process do.

The client is calibrated against it: the id of each token is the moment at which it was emitted, in ticks since its
request was sent, so that a record carries its own truth. Numbers measured with it say nothing about any engine.
"""

import heapq
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import count

from enginebench.clock import now_ns
from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, StampKind

TICK_NS = 100
"""The unit of ids: 32 bits of it are some minutes."""


def open_session(options: Mapping[str, JsonValue]) -> "NullSession":
    """Open a session; options: ``first_s`` from sending to the first token, ``gap_s`` between tokens."""
    match options:
        case {"first_s": int() | float() as first_s, "gap_s": int() | float() as gap_s}:
            return NullSession(first_s, gap_s)
    raise SessionError("The null runtime needs the options 'first_s' and 'gap_s', in seconds.")


class NullSession:
    """Meets ``base.Session`` as far as calibration needs it: it only streams, and refuses no length.

    Tokens are emitted, and stamped, on one thread; everything else belongs to another.
    """

    stamp_kind: StampKind = "engine"

    def __init__(self, first_s: float, gap_s: float) -> None:
        self._first_ns, self._gap_ns = int(first_s * 1e9), int(gap_s * 1e9)
        self._changed = threading.Condition()  # guards all below
        self._coming: list[tuple[int, int, int, int, int]] = []  # heap: due, order, request index, sent, tokens left
        self._order = count()
        self._closed = False
        self._arrived = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._emitter = threading.Thread(target=self._emit, name="null engine", daemon=True)
        self._emitter.start()

    def prepare(self, requests: Sequence[Request]) -> None:
        """Nothing can be done beforehand."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Put ``requests`` on the schedule; return the stamp (ns) before each. SessionError unless they stream."""
        if not all(request.streaming and request.output_tokens > 0 for request in requests):
            raise SessionError("The null runtime only streams: ask for streaming answers of a token or more.")
        return [self._submit(request) for request in requests]

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did."""
        with self._arrived:
            if not self._arrivals:
                self._arrived.wait(timeout_s)
            arrivals = list(self._arrivals)
            self._arrivals.clear()
        return arrivals

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """A chunk per arrival."""
        return [Chunk(arrival.request_index, arrival.stamp_ns, tuple(arrival.payload)) for arrival in arrivals]

    def cancel(self, request_index: int) -> None:
        """Take a request off the schedule; nothing of it arrives any more."""
        with self._changed:
            self._coming = [entry for entry in self._coming if entry[2] != request_index]
            heapq.heapify(self._coming)
        with self._arrived:
            self._arrivals = deque(arrival for arrival in self._arrivals if arrival.request_index != request_index)

    def drain(self, timeout_s: float) -> None:
        """Wait for the end of the schedule. Raises SessionError after ``timeout_s``."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._coming, timeout_s):
                raise SessionError(f"The null runtime still emits tokens after {timeout_s:g} s: cancel its requests.")

    def facts(self) -> Mapping[str, JsonValue]:
        """The schedule in force."""
        return {
            "runtime": "null",
            "first_s": self._first_ns / 1e9,
            "gap_s": self._gap_ns / 1e9,
            "loads": ["batch", "concurrency", "rate"],
        }

    def close(self) -> None:
        """End the thread. May be called twice."""
        with self._changed:
            self._closed = True
            self._coming.clear()
            self._changed.notify_all()
        self._emitter.join()

    def _submit(self, request: Request) -> int:
        with self._changed:
            sent_ns = now_ns()
            entry = (sent_ns + self._first_ns, next(self._order), request.index, sent_ns, request.output_tokens)
            heapq.heappush(self._coming, entry)
            self._changed.notify_all()
        return sent_ns

    def _emit(self) -> None:
        with self._changed:
            while not self._closed:
                wait_s = (self._coming[0][0] - now_ns()) / 1e9 if self._coming else None
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    self._emit_one()

    def _emit_one(self) -> None:
        due_ns, _, index, sent_ns, left = heapq.heappop(self._coming)
        token_id = (now_ns() - sent_ns) // TICK_NS
        arrival = Arrival(index, now_ns(), (token_id,), ended=left == 1)
        with self._arrived:
            self._arrivals.append(arrival)
            self._arrived.notify()
        if left > 1:
            heapq.heappush(self._coming, (due_ns + self._gap_ns, next(self._order), index, sent_ns, left - 1))
        elif not self._coming:
            self._changed.notify_all()
