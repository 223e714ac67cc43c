"""Releases: which requests are to leave now. Small state machines on given stamps; they read no clock and send nothing.

The moment at which a request was to leave, ``intended_ns``, is fixed by the load alone. It never moves because the
client was late: what is late stays late, and shows as slip.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from enginebench.plan.load import Batch, Concurrency, Load
from enginebench.plan.requests import Request


class Due(NamedTuple):
    """A request to send now, and when it was to leave (CLOCK_MONOTONIC)."""

    request: Request
    intended_ns: int


class Release(Protocol):
    """How the requests of one round leave."""

    def due(self, now_ns: int) -> Sequence[Due]:
        """The requests to send now, each once."""

    def next_due_ns(self) -> int | None:
        """When ``due`` has something next without any request ending before; None: never."""

    def ended(self, stamp_ns: int) -> None:
        """A request ended or was given up; ``stamp_ns``: its last arrival, or when it was given up."""

    def give_up(self) -> Sequence[Request]:
        """The requests that have not been sent, and now never will be."""


def release_of(load: Load, requests: Sequence[Request], start_ns: int) -> Release:
    """The release of ``requests`` under ``load`` in a round that starts at ``start_ns``."""
    if isinstance(load, Batch):
        return BatchRelease(requests, load.size, start_ns)
    if isinstance(load, Concurrency):
        return ConcurrencyRelease(requests, load.level, start_ns, load.duration_s, load.requests)
    return RateRelease(requests, start_ns)


class BatchRelease:
    """``size`` requests at once, the next ones when all of these are done. Intended: the moment of the release."""

    def __init__(self, requests: Sequence[Request], size: int, start_ns: int):
        self._requests = requests
        self._size = size
        self._start_ns = start_ns
        self._next = 0
        self._open = 0

    def due(self, now_ns: int) -> Sequence[Due]:
        """The next batch, when the one before is done."""
        if self._open or now_ns < self._start_ns:
            return ()
        batch = self._requests[self._next : self._next + self._size]
        self._next += len(batch)
        self._open = len(batch)
        return [Due(request, now_ns) for request in batch]

    def next_due_ns(self) -> int | None:
        """The start, before it."""
        return self._start_ns if self._next == 0 and self._requests else None

    def ended(self, stamp_ns: int) -> None:  # noqa: ARG002 - a batch leaves when it can
        """Count one more request of the batch as done."""
        self._open -= 1

    def give_up(self) -> Sequence[Request]:
        """The batches that have not left."""
        unsent, self._next = self._requests[self._next :], len(self._requests)
        return unsent


class ConcurrencyRelease:
    """``level`` places: a request leaves when a place is free. Intended: the arrival that freed its place.

    With a ``duration_s`` requests leave until it is over, the given ones again and again under new indices; what is
    still in flight is let finish. ``indices``: what to add to the index of a request each time that it is repeated,
    where the given ones are a part of more (default: their number).
    """

    def __init__(
        self,
        requests: Sequence[Request],
        level: int,
        start_ns: int,
        duration_s: float | None = None,
        indices: int | None = None,
    ):
        self._requests = requests
        self._indices = indices or len(requests)
        self._end_ns = None if duration_s is None else start_ns + round(duration_s * 1e9)
        self._free_ns = [start_ns] * level  # heap: since when each free place is free
        self._next = 0

    def due(self, now_ns: int) -> Sequence[Due]:
        """A request for each free place, the one that was free first first."""
        due: list[Due] = []
        while self._free_ns and self._free_ns[0] <= now_ns and self._more(self._free_ns[0]):
            due.append(Due(self._request(self._next), heapq.heappop(self._free_ns)))
            self._next += 1
        return due

    def next_due_ns(self) -> int | None:
        """Since when the first free place is free; None when requests or time have run out."""
        return self._free_ns[0] if self._free_ns and self._more(self._free_ns[0]) else None

    def ended(self, stamp_ns: int) -> None:
        """Free a place."""
        heapq.heappush(self._free_ns, stamp_ns)

    def give_up(self) -> Sequence[Request]:
        """The requests that have not left; none where there was a duration to fill."""
        unsent = () if self._end_ns is not None else self._requests[self._next :]
        self._next, self._end_ns = len(self._requests), None
        return unsent

    def _more(self, intended_ns: int) -> bool:
        if self._end_ns is not None:
            return bool(self._requests) and intended_ns < self._end_ns
        return self._next < len(self._requests)

    def _request(self, number: int) -> Request:
        lap, place = divmod(number, len(self._requests))
        request = self._requests[place]
        if not lap:
            return request
        more = lap * self._indices
        sampling = replace(request.sampling, seed=request.sampling.seed + more)
        return replace(request, index=request.index + more, sampling=sampling)


class RateRelease:
    """Each request at its ``offset_ns`` after the start, whatever became of the others. Intended: exactly then."""

    def __init__(self, requests: Sequence[Request], start_ns: int):
        self._requests = sorted(requests, key=lambda request: (request.offset_ns, request.index))
        self._start_ns = start_ns
        self._next = 0

    def due(self, now_ns: int) -> Sequence[Due]:
        """All requests whose time has come."""
        due: list[Due] = []
        while (intended_ns := self.next_due_ns()) is not None and intended_ns <= now_ns:
            due.append(Due(self._requests[self._next], intended_ns))
            self._next += 1
        return due

    def next_due_ns(self) -> int | None:
        """When the next request is to leave."""
        return self._start_ns + self._requests[self._next].offset_ns if self._next < len(self._requests) else None

    def ended(self, stamp_ns: int) -> None:
        """Nothing: the schedule does not wait."""

    def give_up(self) -> Sequence[Request]:
        """The requests whose time has not come."""
        unsent, self._next = self._requests[self._next :], len(self._requests)
        return unsent
