"""A runtime without an engine: tokens arrive at known times after they were asked for.

It is the known truth that the harness is tested against: stamps are those of the script, to the nanosecond, and faults
happen to the requests that the script names. Numbers measured with it say nothing about any engine. Stdlib only.
"""

import heapq
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import count

from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, StampKind

FAULTS = ("silent", "stall", "error", "short", "long", "wrong_input", "break", "die")
"""What may befall a request: nothing ever arrives; nothing after the first chunk; an error with the first chunk; a
token too few or too many; the path reports one input token too many; the session breaks; its process dies."""


@dataclass(frozen=True, slots=True)
class Script:
    """When tokens arrive: the first chunk ``first_s`` after the request was sent, each further one ``gap_s`` later."""

    first_s: float = 0.01
    gap_s: float = 0.002
    chunk_tokens: int = 1
    faults: Mapping[int, str] = field(default_factory=dict)  # request index → one of FAULTS
    max_tokens: int = 10_000  # a longer answer is refused
    noise: str = ""  # written to standard output at each release, as careless libraries do

    def chunk_sizes(self, request: Request) -> list[int]:
        """Tokens of each chunk of the answer to ``request``; a single one without streaming."""
        tokens = request.output_tokens + {"short": -1, "long": 1}.get(self.faults.get(request.index, ""), 0)
        if not request.streaming:
            return [tokens]
        whole, rest = divmod(tokens, self.chunk_tokens)
        return [self.chunk_tokens] * whole + [rest] * bool(rest)

    def arrival_s(self, chunk: int, request: Request) -> float:
        """When the chunk with this number arrives, after sending."""
        last = len(self.chunk_sizes(request)) - 1 if request.streaming else request.output_tokens - 1
        return self.first_s + self.gap_s * (chunk if request.streaming else last)


def open_session(options: Mapping[str, JsonValue]) -> "ScriptedSession":
    """Open a session with the fields of ``Script`` as options. Raises SessionError for one that it does not have."""
    unknown = set(options) - {each.name for each in fields(Script)}
    if unknown:
        raise SessionError(f"The scripted runtime has no option {min(unknown)!r}; see Script for those that it has.")
    faults = options.get("faults") or {}
    assert isinstance(faults, Mapping)
    by_index = {int(index): str(fault) for index, fault in faults.items()}  # JSON has no integer keys
    return ScriptedSession(Script(**{**options, "faults": by_index}))  # type: ignore[arg-type]


class ScriptedSession:
    """Meets ``base.Session`` on the thread that calls it."""

    stamp_kind: StampKind = "engine"

    def __init__(self, script: Script) -> None:
        wrong = [fault for fault in script.faults.values() if fault not in FAULTS]
        if wrong:
            raise SessionError(f"The scripted runtime knows no fault {wrong[0]!r}; use one of {', '.join(FAULTS)}.")
        self._script = script
        self._requests: dict[int, Request] = {}
        self._coming: list[tuple[int, int, Arrival]] = []  # heap: stamp, order of submission, arrival
        self._order = count()

    def prepare(self, requests: Sequence[Request]) -> None:
        """Nothing can be done beforehand."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Put the arrivals of ``requests`` on the schedule."""
        if self._script.noise:
            os.write(1, self._script.noise.encode())
        sent_ns = [time.monotonic_ns() for _ in requests]
        for request, at_ns in zip(requests, sent_ns, strict=True):
            self._requests[request.index] = request
            for arrival in self._arrivals(request, at_ns):
                heapq.heappush(self._coming, (arrival.stamp_ns, next(self._order), arrival))
        return sent_ns

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Sleep until the next arrival is due, then return all that are."""
        until_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        if self._coming:
            until_ns = min(until_ns, self._coming[0][0])
        time.sleep(max(0, until_ns - time.monotonic_ns()) / 1e9)
        now_ns = time.monotonic_ns()
        arrived = []
        while self._coming and self._coming[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._coming)[2])
        for arrival in arrived:
            self._befall(arrival.request_index)
        return arrived

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """A chunk per arrival: the ids are the script's own."""
        return [
            Chunk(
                arrival.request_index,
                arrival.stamp_ns,
                tuple(arrival.payload),
                arrival.error,
                prompt_tokens=self._prompt_tokens(arrival.request_index),
            )
            for arrival in arrivals
        ]

    def cancel(self, request_index: int) -> None:
        """Take what is still to come for a request off the schedule."""
        self._coming = [entry for entry in self._coming if entry[2].request_index != request_index]
        heapq.heapify(self._coming)

    def drain(self, timeout_s: float) -> None:
        """Wait for the end of the schedule. Raises SessionError when that is more than ``timeout_s`` away."""
        left_s = (max(self._coming)[0] - time.monotonic_ns()) / 1e9 if self._coming else 0.0
        if left_s > timeout_s:
            raise SessionError(f"The script goes on for {left_s:.1f} s; cancel its requests or wait longer.")
        time.sleep(max(0.0, left_s))
        self._coming.clear()

    def facts(self) -> Mapping[str, JsonValue]:
        """The script in force."""
        script = self._script
        return {
            "runtime": "scripted",
            "first_s": script.first_s,
            "gap_s": script.gap_s,
            "chunk_tokens": script.chunk_tokens,
            "loads": ["batch", "concurrency", "rate"],
        }

    def close(self) -> None:
        """Forget everything."""
        self._coming.clear()

    def _arrivals(self, request: Request, sent_ns: int) -> list[Arrival]:
        if request.output_tokens > self._script.max_tokens:
            why = f"{request.output_tokens} output tokens exceed the script's max_tokens {self._script.max_tokens}."
            return [Arrival(request.index, sent_ns, (), ended=True, error=why)]
        fault = self._script.faults.get(request.index)
        sizes = self._script.chunk_sizes(request)
        arrivals, given = [], 0
        for number, size in enumerate(sizes):
            stamp_ns = sent_ns + round(self._script.arrival_s(number, request) * 1e9)
            ids = tuple(token_id(request, given + place) for place in range(size))
            arrivals.append(Arrival(request.index, stamp_ns, ids, ended=number == len(sizes) - 1))
            given += size
        if fault == "silent":
            return []
        if fault == "stall":
            return [Arrival(request.index, arrivals[0].stamp_ns, arrivals[0].payload)]
        if fault == "error":
            why = "The script says that this request fails."
            return [Arrival(request.index, arrivals[0].stamp_ns, arrivals[0].payload, ended=True, error=why)]
        return arrivals

    def _befall(self, request_index: int) -> None:
        fault = self._script.faults.get(request_index)
        if fault == "break":
            raise SessionError("The script says that the session breaks.")
        if fault == "die":
            os.write(2, b"the script says that the process dies\n")
            os._exit(3)

    def _prompt_tokens(self, request_index: int) -> int:
        extra = self._script.faults.get(request_index) == "wrong_input"
        return len(self._requests[request_index].prompt_ids) + extra


def token_id(request: Request, place: int) -> int:
    """The id at ``place`` of the answer to ``request``: known beforehand, and different between neighbours."""
    return 258 + (request.index * 31 + request.sampling.seed * 17 + place) % 1000
