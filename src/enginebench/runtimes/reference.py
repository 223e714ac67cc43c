"""The reference engine in process: stamps are taken on the engine's thread when a step ends.

Nothing crosses a process or a socket. It is there to exercise the flow on any machine, not to stand for TensorRT-LLM.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enginebench.errors import BuildError, SessionError
from enginebench.plan.requests import Request
from enginebench.reference.batcher import Batcher, IterationStatistics, TokenEvent
from enginebench.reference.engine import load_engine
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, StampKind
from enginebench.runtimes.mailbox import Mailbox


def open_session(options: Mapping[str, JsonValue]) -> "ReferenceSession":
    """Open the build in ``options["directory"]``. Raises SessionError when there is none."""
    directory = options.get("directory")
    if not isinstance(directory, str):
        raise SessionError("The reference runtime needs the option 'directory': the path of a reference build.")
    return ReferenceSession(Path(directory))


class ReferenceSession:
    """A session on a reference build. ``submit`` and ``poll`` belong to one thread, the engine's loop is another."""

    stamp_kind: StampKind = "engine"

    def __init__(self, directory: Path) -> None:
        try:
            engine = load_engine(directory)
        except BuildError as error:
            raise SessionError(str(error)) from error
        self._mailbox = Mailbox()
        self._prompt_tokens: dict[int, int] = {}
        self._stamps: dict[int, _Stamps] = {}  # by the engine's id, since the last call of observations
        self._options = engine.options
        self._engine_facts = engine.facts()
        self._batcher = Batcher(engine, self._on_tokens)

    def prepare(self, requests: Sequence[Request]) -> None:
        """Nothing can be done beforehand."""

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Queue ``requests``; a refused one arrives as an error. Returns the stamp (ns) before each."""
        return [self._submit(request) for request in requests]

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did."""
        return self._mailbox.take(timeout_s)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Make a chunk of each arrival that has tokens or an error; the ids are the engine's own."""
        return [self._chunk(arrival) for arrival in arrivals if arrival.payload or arrival.error]

    def cancel(self, request_index: int) -> None:
        """Stop a request; nothing of it arrives any more."""
        for engine_id in self._mailbox.cancel(request_index):
            self._stamps.pop(engine_id, None)
            self._batcher.cancel(engine_id)

    def drain(self, timeout_s: float) -> None:
        """Wait until the engine is idle. Raises SessionError after ``timeout_s``."""
        if not self._batcher.wait_idle(timeout_s):
            raise SessionError(
                f"The reference engine still computes after {timeout_s:g} s: cancel its requests or wait longer."
            )

    def facts(self) -> Mapping[str, JsonValue]:
        """Versions, limits and settings in force."""
        options = self._options
        return {
            "runtime": "reference",
            "python": platform.python_version(),
            "numpy": np.__version__,
            **self._engine_facts,
            "min_step_ms": options.min_step_ms,
            "max_batch_size": options.max_batch_size,
            "max_input_len": options.max_input_len,
            "max_seq_len": options.max_seq_len,
            "max_num_tokens": options.max_num_tokens,
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS"),
            "takes_token_ids": True,
            "gives_token_ids": True,
            "cancels": True,
            "loads": ["batch", "concurrency", "rate"],
        }

    def record_iterations(self, on: bool) -> None:
        """Record every step of the engine, for ``observations``; off by default."""
        self._batcher.keep_iterations(on)

    def observations(self) -> Mapping[str, JsonValue]:
        """The engine's stamps of the requests that ended since the last call, and steps where somebody asked."""
        stamps, self._stamps = self._stamps, {}
        most = self._options.max_batch_size
        return {
            "requests": [_timing(each) for each in stamps.values() if each.ended],
            "iterations": [_iteration(each, most) for each in self._batcher.take_iterations()],
        }

    def on_engine_thread(self, action: Callable[[], None]) -> None:
        """Do ``action`` on the thread that computes, and wait for it."""
        self._batcher.call(action)

    def close(self) -> None:
        """Stop the engine and free its memory."""
        self._batcher.close()

    def _submit(self, request: Request) -> int:
        engine_id = self._mailbox.enter(request)
        self._prompt_tokens[request.index] = len(request.prompt_ids)
        sent_ns = time.monotonic_ns()
        self._stamps[engine_id] = _Stamps(request.index, sent_ns)
        try:
            self._batcher.submit(engine_id, request.prompt_ids, request.output_tokens, request.sampling)
        except SessionError as error:
            self._on_tokens(TokenEvent(engine_id, time.monotonic_ns(), (), ended=True, error=str(error)))
        return sent_ns

    def _on_tokens(self, event: TokenEvent) -> None:
        if stamps := self._stamps.get(event.request_id):
            stamps.note(event)
        self._mailbox.deliver(event.request_id, event.stamp_ns, event.token_ids, ended=event.ended, error=event.error)

    def _chunk(self, arrival: Arrival) -> Chunk:
        token_ids = tuple(int(token_id) for token_id in arrival.payload)
        prompt_tokens = self._prompt_tokens.get(arrival.request_index)
        return Chunk(arrival.request_index, arrival.stamp_ns, token_ids, arrival.error, prompt_tokens)


@dataclass(slots=True)
class _Stamps:
    """The engine's own, of one request, ns; 0: not yet."""

    request_index: int
    arrived_ns: int
    scheduled_ns: int = 0
    first_ns: int = 0
    last_ns: int = 0
    ended: bool = False  # well

    def note(self, event: TokenEvent) -> None:
        if event.token_ids:
            self.scheduled_ns, self.last_ns = event.scheduled_ns, event.stamp_ns
            self.first_ns = self.first_ns or event.stamp_ns
        self.ended = event.ended and event.error is None


def _timing(stamps: _Stamps) -> Mapping[str, JsonValue]:
    """As of the TensorRT-LLM adapters, seconds from the arrival; ``scheduled_ns``: on the clock of our own stamps."""
    return {
        "request": stamps.request_index,
        "scheduled_ns": stamps.scheduled_ns,
        "first_scheduled_s": (stamps.scheduled_ns - stamps.arrived_ns) / 1e9,
        "first_token_s": (stamps.first_ns - stamps.arrived_ns) / 1e9,
        "last_token_s": (stamps.last_ns - stamps.arrived_ns) / 1e9,
    }


def _iteration(each: IterationStatistics, slots: int) -> Mapping[str, JsonValue]:
    """Under the names of telemetry/iterations.parquet; a KV block of this engine is a slot."""
    return {
        "stamp_ns": each.stamp_ns,
        "active": each.active,
        "queued": each.queued,
        "paused": 0,  # it never takes a slot away
        "context_tokens": each.context_tokens,
        "generation_tokens": each.generation_tokens,
        "kv_blocks_used": slots - each.free_slots,
        "kv_blocks_total": slots,
        "step_ns": round(each.step_s * 1e9),
    }
