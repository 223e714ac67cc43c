"""The contract of a runtime: the whole of it.

A session is a reactor: it takes requests without blocking and hands back what arrived. Nothing is decoded, counted or
logged while a round is under way; ``decode`` turns what arrived into tokens afterwards. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from enginebench.plan.requests import Request

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

UNKNOWN = -1
"""Stands for a count or a stamp that nobody told."""

StampKind = Literal["kernel", "user", "engine"]
"""Who stamped an arrival: the kernel at the socket, the process after reading, or the engine's own callback."""


class Arrival(NamedTuple):
    """Something arrived for a request: ids from an engine in process, or raw bytes from a socket.

    A tuple, because one is made for every read while a round is under way.
    """

    request_index: int
    stamp_ns: int  # CLOCK_MONOTONIC, taken at the lowest layer that the runtime has
    payload: Sequence[int] | bytes
    ended: bool = False  # nothing more will arrive for this request
    error: str | None = None  # one sentence; only with ended
    read_ns: int = UNKNOWN  # when the process had it in hand; minus stamp_ns: how late it was


@dataclass(frozen=True, slots=True)
class Chunk:
    """One arrival of one or more tokens, decoded."""

    request_index: int
    stamp_ns: int
    token_ids: tuple[int, ...]
    error: str | None = None  # the server said so inside a successful response
    prompt_tokens: int | None = None  # the input length as the path reports it, where it does
    counted: bool = True  # False: text came that does not tell which tokens, or how many, it stands for
    count: int | None = None  # tokens, where the server tells how many there are but not which
    total_tokens: int | None = None  # of the request so far, as the server counts: known even where chunks are not
    read_ns: int = UNKNOWN  # as in Arrival

    @property
    def tokens(self) -> int:
        """How many tokens came; -1 unknown."""
        if not self.counted:
            return UNKNOWN
        return len(self.token_ids) if self.count is None else self.count


class Session(Protocol):
    """An open way to an engine. Used by one thread."""

    stamp_kind: StampKind

    def prepare(self, requests: Sequence[Request]) -> None:
        """Do beforehand what need not be done while requests are timed: called with those of a round, before it."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Send ``requests`` (one call a release) without blocking; return the stamp (ns) just before each one left."""

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did; empty after ``timeout_s`` without anything."""

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Turn a round's arrivals, in order, into chunks; without a token, an error or a total there is none."""

    def cancel(self, request_index: int) -> None:
        """Stop caring about a request, and stop its work where the path can. Unknown or ended requests are ignored."""

    def drain(self, timeout_s: float) -> None:
        """Return when nothing of ours is running any more. Raises SessionError after ``timeout_s``."""

    def facts(self) -> Mapping[str, JsonValue]:
        """Versions, limits, capabilities and settings in force."""

    def close(self) -> None:
        """Free everything. May be called twice."""
