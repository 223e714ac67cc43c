"""In-flight batching: requests join and leave the running batch at every step of the engine.

One thread owns the engine. Each step computes one token for every request that is past its prompt, and spends what
is left of ``max_num_tokens`` on prompts, in chunks, first come first served: long prompts don't stall the others. A
request holds one slot of the KV cache from its first chunk to its last token; requests beyond the slots wait in a
queue. It knows no protocol and no text.
"""

import heapq
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from enginebench.builds.build import limit_exceeded
from enginebench.errors import SessionError
from enginebench.plan.requests import Sampling
from enginebench.reference.engine import Engine, Scores
from enginebench.reference.sampling import choose
from enginebench.reference.stage import Span

_log = logging.getLogger(__name__)

CANCELLED = "The request was cancelled."
KEPT_ITERATIONS = 200_000
"""A ring: a profiled round of more steps keeps its last ones."""


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one step gave one request."""

    request_id: int
    stamp_ns: int  # CLOCK_MONOTONIC when the step ended
    token_ids: tuple[int, ...]
    ended: bool
    error: str | None = None  # one sentence; only with ended
    scheduled_ns: int = 0  # when the request got its slot; 0: never


@dataclass(frozen=True, slots=True)
class IterationStatistics:
    """One step of the engine."""

    iteration: int  # from 1; 0 before the first
    active: int  # requests computed in this step
    queued: int  # requests without a slot
    context_tokens: int  # prompt tokens computed
    generation_tokens: int  # tokens computed for requests past their prompt
    free_slots: int
    step_s: float  # with the wait for the build's min_step_ms
    stamp_ns: int = 0  # CLOCK_MONOTONIC when the step ended


@dataclass(eq=False, slots=True)
class _Sequence:
    request_id: int
    token_ids: list[int]  # prompt and what was generated
    prompt_length: int
    total_length: int
    sampling: Sampling
    slot: int = -1
    scheduled_ns: int = 0
    computed: int = 0  # tokens whose KV is in the slot
    cancelled: bool = False

    @property
    def pending(self) -> int:
        return len(self.token_ids) - self.computed

    @property
    def in_prompt(self) -> bool:
        return self.computed < self.prompt_length


@dataclass(eq=False, slots=True)
class _State:
    """Shared with other threads; guarded by the batcher's condition."""

    queue: deque[_Sequence] = field(default_factory=deque)
    active: list[_Sequence] = field(default_factory=list)
    known: dict[int, _Sequence] = field(default_factory=dict)
    calls: deque[Callable[[], None]] = field(default_factory=deque)  # to be made on the engine's thread
    closed: bool = False


class Batcher:
    """Runs an engine on a thread of its own and calls ``on_tokens`` on that thread, once for each request and step."""

    def __init__(self, engine: Engine, on_tokens: Callable[[TokenEvent], None]) -> None:
        self._options = engine.options
        self._limits = engine.limits
        self._on_tokens = on_tokens
        self._free_slots = list(range(engine.options.max_batch_size))  # a heap: the lowest first
        self._state = _State()
        self._changed = threading.Condition()
        self._statistics = IterationStatistics(0, 0, 0, 0, 0, len(self._free_slots), 0.0)
        self._kept: deque[IterationStatistics] = deque(maxlen=KEPT_ITERATIONS)
        self._keeping = False
        # Only the thread holds the engine: its memory is free once the thread has ended.
        self._thread = threading.Thread(target=self._run, args=(engine,), name="engine-loop", daemon=True)
        self._thread.start()

    def submit(self, request_id: int, prompt_ids: Sequence[int], output_tokens: int, sampling: Sampling) -> None:
        """Queue a request; ``request_id`` must not be that of one under way. Never blocks; any thread.

        Raises SessionError for lengths beyond the build's limits, ids outside its vocabulary, or a closed engine.
        """
        self._check(prompt_ids, output_tokens)
        sequence = _Sequence(request_id, list(prompt_ids), len(prompt_ids), len(prompt_ids) + output_tokens, sampling)
        with self._changed:
            if self._state.closed:
                raise SessionError("The reference engine is closed: open it again.")
            if request_id in self._state.known:
                raise SessionError(f"Request {request_id} is already under way: give each request an id of its own.")
            self._state.known[request_id] = sequence
            self._state.queue.append(sequence)
            self._changed.notify_all()

    def cancel(self, request_id: int) -> None:
        """End a request before its next step, with an event that says so; ignore an unknown one. Any thread."""
        with self._changed:
            if sequence := self._state.known.get(request_id):
                sequence.cancelled = True
                self._changed.notify_all()

    def statistics(self) -> IterationStatistics:
        """Return the last step's statistics. Any thread."""
        return self._statistics

    def keep_iterations(self, on: bool) -> None:
        """Keep the statistics of every step from now on, or of no more. Any thread."""
        self._keeping = on

    def take_iterations(self) -> list[IterationStatistics]:
        """The statistics that were kept since the last call, the latest ``KEPT_ITERATIONS``. While nothing runs."""
        kept = list(self._kept)
        self._kept.clear()
        return kept

    def call(self, action: Callable[[], None]) -> None:
        """Do ``action`` on the engine's thread, between two steps, and wait for it. Any thread but the engine's.

        Raises what ``action`` raises, and SessionError for a closed engine.
        """
        done = threading.Event()
        broken: list[Exception] = []

        def act() -> None:
            try:
                action()
            except Exception as error:  # for whoever asked
                broken.append(error)
            finally:
                done.set()

        with self._changed:
            if self._state.closed:
                raise SessionError("The reference engine is closed: open it again.")
            self._state.calls.append(act)
            self._changed.notify_all()
        while not done.wait(0.1):
            if not self._thread.is_alive():
                raise SessionError("The reference engine was closed meanwhile: open it again.")
        if broken:
            raise broken[0]

    def idle(self) -> bool:
        """Return whether nothing runs, nothing waits and every event was delivered. Any thread."""
        with self._changed:
            return not self._state.known

    def wait_idle(self, timeout_s: float) -> bool:
        """Block until ``idle()``; return whether that came within ``timeout_s``. Any thread but the engine's."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._state.known, timeout_s)

    def close(self) -> None:
        """End every request with an error and stop the thread. May be called twice; not from the callback."""
        with self._changed:
            self._state.closed = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self, prompt_ids: Sequence[int], output_tokens: int) -> None:
        vocab_size = self._options.vocab_size
        if not prompt_ids or output_tokens < 1:
            raise SessionError(
                f"A request of {len(prompt_ids)} prompt and {output_tokens} output tokens is refused: ask for 1 each."
            )
        if reason := limit_exceeded(self._limits, len(prompt_ids), output_tokens):
            raise SessionError(f"The request is refused: {reason}.")
        if not all(0 <= token_id < vocab_size for token_id in prompt_ids):
            raise SessionError(
                f"The prompt has token ids outside the build's vocabulary of {vocab_size}: use its own tokenizer."
            )

    def _run(self, engine: Engine) -> None:
        while self._wait_for_work():
            started = time.monotonic()
            try:
                self._make_calls()
                self._end(self._take_cancelled(), CANCELLED)
                self._admit()
                self._step(engine, started)
            except Exception as error:
                _log.exception("a step of the reference engine broke")
                self._end(self._take_all(), f"The reference engine's step broke ({type(error).__name__}: {error}).")
        self._end(self._take_all(), "The reference engine was closed.")

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._state.closed or self._state.known or self._state.calls)
            return not self._state.closed

    def _make_calls(self) -> None:
        while self._state.calls:
            self._state.calls.popleft()()

    def _take_cancelled(self) -> list[_Sequence]:
        with self._changed:
            return [sequence for sequence in self._state.known.values() if sequence.cancelled]

    def _take_all(self) -> list[_Sequence]:
        with self._changed:
            return list(self._state.known.values())

    def _admit(self) -> None:
        with self._changed:
            while self._state.queue and self._free_slots:
                sequence = self._state.queue.popleft()
                sequence.slot = heapq.heappop(self._free_slots)
                sequence.scheduled_ns = time.monotonic_ns()
                self._state.active.append(sequence)

    def _step(self, engine: Engine, started: float) -> None:
        work = self._plan()
        if not work:
            return
        iteration_free = len(self._free_slots)
        scores = engine.forward([span for _, span in work])
        chosen = [self._advance(sequence, span, scores, row) for row, (sequence, span) in enumerate(work)]
        if (left_s := started + self._options.min_step_ms / 1e3 - time.monotonic()) > 0:
            time.sleep(left_s)  # asked to sleep not at all, it still takes 0.1 ms
        stamp_ns = time.monotonic_ns()
        self._statistics = self._count(work, iteration_free, stamp_ns / 1e9 - started, stamp_ns)
        if self._keeping:
            self._kept.append(self._statistics)
        for (sequence, _), token_ids in zip(work, chosen, strict=True):
            self._report(sequence, stamp_ns, token_ids)

    def _plan(self) -> list[tuple[_Sequence, Span]]:
        """Share out ``max_num_tokens``: one to each request past its prompt, the rest to prompts in their order."""
        budget = self._options.max_num_tokens
        work = []
        for sequence in sorted(self._state.active, key=lambda one: one.in_prompt):  # stable: decodes first
            count = min(sequence.pending, budget)
            if count:
                work.append((sequence, _span(sequence, count)))
                budget -= count
        return work

    def _advance(self, sequence: _Sequence, span: Span, scores: Scores, row: int) -> tuple[int, ...]:
        sequence.computed += len(span.token_ids)
        if sequence.pending:
            return ()
        if sequence.sampling.temperature <= 0:
            chosen = scores.best[row]
        else:
            chosen = choose(scores.row(row), sequence.sampling, len(sequence.token_ids))
        sequence.token_ids.append(chosen)
        return (chosen,)

    def _count(
        self, work: Iterable[tuple[_Sequence, Span]], free_slots: int, step_s: float, stamp_ns: int
    ) -> IterationStatistics:
        context = generation = active = 0
        for sequence, span in work:
            active += 1
            if span.start < sequence.prompt_length:
                context += len(span.token_ids)
            else:
                generation += 1
        number, queued = self._statistics.iteration + 1, len(self._state.queue)
        return IterationStatistics(number, active, queued, context, generation, free_slots, step_s, stamp_ns)

    def _report(self, sequence: _Sequence, stamp_ns: int, token_ids: tuple[int, ...]) -> None:
        if not token_ids:
            return
        ended = len(sequence.token_ids) == sequence.total_length
        self._emit(TokenEvent(sequence.request_id, stamp_ns, token_ids, ended, scheduled_ns=sequence.scheduled_ns))
        if ended:
            self._forget(sequence)

    def _end(self, sequences: Iterable[_Sequence], error: str) -> None:
        for sequence in sequences:
            self._emit(TokenEvent(sequence.request_id, time.monotonic_ns(), (), ended=True, error=error))
            self._forget(sequence)

    def _emit(self, event: TokenEvent) -> None:
        try:
            self._on_tokens(event)
        except Exception:
            _log.exception("nobody could take the tokens of request %d; it is cancelled", event.request_id)
            self.cancel(event.request_id)

    def _forget(self, sequence: _Sequence) -> None:
        with self._changed:
            if sequence.slot >= 0:
                self._state.active.remove(sequence)
                heapq.heappush(self._free_slots, sequence.slot)
            else:
                self._state.queue.remove(sequence)
            del self._state.known[sequence.request_id]
            self._changed.notify_all()


def _span(sequence: _Sequence, count: int) -> Span:
    begin = sequence.computed
    return Span(sequence.slot, begin, tuple(sequence.token_ids[begin : begin + count]))
