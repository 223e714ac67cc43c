"""NVTX ranges around the requests of a round, for Nsight Systems: to the first token, then decode.

They cost microseconds each, so that they are for profiled rounds alone. Computes nothing.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, Session, StampKind


class Ranges(Protocol):
    """What marks ranges: nested ones on a thread, or ones that overlap."""

    def push(self, text: str) -> None:
        """Begin a nested range."""

    def pop(self) -> None:
        """End the innermost one."""

    def start(self, text: str) -> Any:
        """Begin a range that may overlap others; return what ends it."""

    def end(self, handle: Any) -> None:
        """End it."""


class LibraryRanges:
    """The same with ``torch.cuda.nvtx`` or with the ``nvtx`` package, whose functions have other names."""

    def __init__(self, library: Any, names: tuple[str, str, str, str]) -> None:
        self._push, self._pop, self._start, self._end = (getattr(library, name) for name in names)

    def push(self, text: str) -> None:
        """Begin a nested range."""
        self._push(text)

    def pop(self) -> None:
        """End the innermost one."""
        self._pop()

    def start(self, text: str) -> Any:
        """Begin a range that may overlap others."""
        return self._start(text)

    def end(self, handle: Any) -> None:
        """End it."""
        self._end(handle)


LIBRARIES = {
    "torch.cuda.nvtx": ("range_push", "range_pop", "range_start", "range_end"),
    "nvtx": ("push_range", "pop_range", "start_range", "end_range"),
}
"""Module → its functions that push, pop, start and end; the first that works is taken.

That is torch's, since Nsight Systems 2022.4 and 2023.4 do not see the ranges of nvtx 0.2.12 and later.
"""


def find_ranges() -> Ranges | None:
    """What can mark ranges in this interpreter; None: nothing."""
    return next((found for name in LIBRARIES if (found := _ranges_of(name))), None)


def _ranges_of(name: str) -> Ranges | None:
    try:
        ranges = LibraryRanges(import_module(name), LIBRARIES[name])
        ranges.push("enginebench")
        ranges.pop()
    except (ImportError, AttributeError, RuntimeError):  # the last from a torch without CUDA
        return None
    return ranges


class AnnotatedSession:
    """A session whose requests are marked while they are under way; otherwise the session itself."""

    def __init__(self, session: Session, ranges: Ranges) -> None:
        self._session = session
        self._ranges = ranges
        self._open: dict[int, tuple[Any, bool]] = {}  # by request: what ends its range, and whether it decodes
        self.stamp_kind: StampKind = session.stamp_kind

    def prepare(self, requests: Sequence[Request]) -> None:
        """As the session does."""
        self._session.prepare(requests)

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """As the session does; a range begins for each request."""
        for request in requests:
            self._open[request.index] = (self._ranges.start(f"request {request.index}: to the first token"), False)
        return self._session.submit(requests)

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """As the session does; the first arrival of a request ends its wait, the last one its decode."""
        arrivals = self._session.poll(timeout_s)
        for arrival in arrivals:
            self._mark(arrival)
        return arrivals

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """As the session does."""
        return self._session.decode(arrivals)

    def cancel(self, request_index: int) -> None:
        """As the session does; the request's range ends."""
        if request_index in self._open:
            self._ranges.end(self._open.pop(request_index)[0])
        self._session.cancel(request_index)

    def drain(self, timeout_s: float) -> None:
        """As the session does."""
        self._session.drain(timeout_s)

    def facts(self) -> Mapping[str, JsonValue]:
        """As the session does."""
        return self._session.facts()

    def close(self) -> None:
        """As the session does."""
        self._session.close()

    def _mark(self, arrival: Arrival) -> None:
        index = arrival.request_index
        if index not in self._open:
            return
        handle, decodes = self._open[index]
        if arrival.ended:
            self._ranges.end(handle)
            del self._open[index]
        elif not decodes:
            self._ranges.end(handle)
            self._open[index] = (self._ranges.start(f"request {index}: decode"), True)
