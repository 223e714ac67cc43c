"""Between the thread that drives a session and the one on which the engine answers: what runs, and what arrived.

Knows no engine. A cancelled request is not wanted any more at once, but runs until the engine says that it ended.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence

from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival


class Mailbox:
    """Keys are unique for the life of a session, a request's index within a round only."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._wanted: dict[int, Request] = {}
        self._running: set[int] = set()
        self._collected: dict[int, list[int]] = {}  # what came so far of a request that wants all at once
        self._next_key = 0

    def enter(self, request: Request) -> int:
        """Take note of a request that is about to be sent; return its key."""
        with self._changed:
            key, self._next_key = self._next_key, self._next_key + 1
            self._wanted[key] = request
            self._running.add(key)
        return key

    def deliver(
        self, key: int, stamp_ns: int, token_ids: Sequence[int], *, ended: bool, error: str | None = None
    ) -> None:
        """Hand over what came at ``stamp_ns``; with ``ended`` the request neither runs nor is wanted any more."""
        with self._changed:
            request = self._wanted.get(key)
            if request is not None:
                self._keep(key, request, Arrival(request.index, stamp_ns, token_ids, ended, error))
            if ended:
                self._forget(key)
                self._running.discard(key)
            self._changed.notify_all()

    def finish(self, key: int) -> None:
        """The engine is done with a request; one that did not say how it ended has failed."""
        with self._changed:
            running = key in self._running
        if running:
            self.deliver(
                key, time.monotonic_ns(), (), ended=True, error="The engine ended the request without a reason."
            )

    def cancel(self, request_index: int) -> list[int]:
        """Want nothing more for a request; return the keys under which it still runs."""
        with self._changed:
            keys = [key for key, request in self._wanted.items() if request.index == request_index]
            for key in keys:
                self._forget(key)
            self._arrivals = deque(each for each in self._arrivals if each.request_index != request_index)
        return keys

    def take(self, timeout_s: float) -> list[Arrival]:
        """What arrived, as soon as something did; empty after ``timeout_s``."""
        with self._changed:
            if not self._arrivals:
                self._changed.wait_for(lambda: bool(self._arrivals), timeout_s)
            arrivals = list(self._arrivals)
            self._arrivals.clear()
        return arrivals

    def wait_idle(self, timeout_s: float) -> bool:
        """Whether nothing runs any more, after at most ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def _keep(self, key: int, request: Request, arrival: Arrival) -> None:
        if not request.streaming:
            collected = self._collected.setdefault(key, [])
            collected.extend(arrival.payload)
            if not arrival.ended:
                return
            arrival = Arrival(arrival.request_index, arrival.stamp_ns, collected, ended=True, error=arrival.error)
        if arrival.payload or arrival.ended:
            self._arrivals.append(arrival)

    def _forget(self, key: int) -> None:
        self._wanted.pop(key, None)
        self._collected.pop(key, None)
