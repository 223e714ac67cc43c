"""The session that every API generation shares; what differs between them is an ``Engine``.

Stamps are taken on the thread on which the engine answers. Token ids go in and come out: nothing is tokenised.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, StampKind
from enginebench.runtimes.mailbox import Mailbox


class Engine(Protocol):
    """One API generation of TensorRT-LLM with an engine loaded; it delivers to the mailbox that it was made with."""

    def start(self, requests: Sequence[tuple[int, Request]]) -> Sequence[int]:
        """Send requests, each under its key; return the stamp (ns) just before each. A refusal is delivered."""

    def cancel(self, key: int) -> None:
        """Stop the work on a request, where the version can."""

    def facts(self) -> Mapping[str, JsonValue]:
        """Adapter, capabilities and settings in force."""

    def observations(self) -> Mapping[str, JsonValue]:
        """What the engine itself recorded since the last call: ``requests`` and ``iterations``. May take a while."""

    def close(self) -> None:
        """Free the engine."""


class EngineSession:
    """Meets ``runtimes.base.Session``. Used by one thread."""

    stamp_kind: StampKind = "engine"

    def __init__(self, make_engine: Callable[[Mailbox], Engine], facts: Mapping[str, JsonValue]) -> None:
        self._mailbox = Mailbox()
        self._facts = facts
        self._prompt_tokens: dict[int, int] = {}
        self._engine: Engine | None = make_engine(self._mailbox)

    def prepare(self, requests: Sequence[Request]) -> None:
        """Nothing can be done beforehand."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Send ``requests``; a refused one arrives as an error. Returns the stamp (ns) before each."""
        self._prompt_tokens.update({request.index: len(request.prompt_ids) for request in requests})
        return self._opened().start([(self._mailbox.enter(request), request) for request in requests])

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did."""
        return self._mailbox.take(timeout_s)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Make a chunk of each arrival that has tokens or an error; the ids are the engine's own."""
        return [self._chunk(arrival) for arrival in arrivals if arrival.payload or arrival.error]

    def cancel(self, request_index: int) -> None:
        """Stop a request; nothing of it arrives any more."""
        for key in self._mailbox.cancel(request_index):
            self._opened().cancel(key)

    def drain(self, timeout_s: float) -> None:
        """Wait until the engine is idle. Raises SessionError after ``timeout_s``."""
        if not self._mailbox.wait_idle(timeout_s):
            raise SessionError(f"TensorRT-LLM still works on cancelled requests after {timeout_s:g} s: wait longer.")

    def facts(self) -> Mapping[str, JsonValue]:
        """Versions, capabilities and settings in force."""
        return {**self._facts, **self._opened().facts()}

    def observations(self) -> Mapping[str, JsonValue]:
        """What the engine itself recorded since the last call; not to be asked for while a round is under way."""
        return self._opened().observations()

    def close(self) -> None:
        """Free the engine. May be called twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _opened(self) -> Engine:
        if self._engine is None:
            raise SessionError("The session is closed: open another.")
        return self._engine

    def _chunk(self, arrival: Arrival) -> Chunk:
        token_ids = tuple(int(token_id) for token_id in arrival.payload)
        prompt_tokens = self._prompt_tokens.get(arrival.request_index)
        return Chunk(arrival.request_index, arrival.stamp_ns, token_ids, arrival.error, prompt_tokens)


def refusal(request: Request, why: str) -> str:
    """One sentence for a request that the engine did not take or finish."""
    asked = f"prompt {len(request.prompt_ids)} + output {request.output_tokens} tokens"
    return f"TensorRT-LLM failed the request ({asked}): {why}"
