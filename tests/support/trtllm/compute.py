"""The engine behind the stand-in: it computes nothing, but takes steps, batches in flight and answers reproducibly.

A prompt that begins with ``BREAKS`` fails after its first step, as a CUDA error would.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

STEP_S = 0.002
TOKENS_OF_STEP = (1, 2, 1, 3)  # speculative decoding gives several at once
BREAKS = 13
MAX_SEQ_LEN = 4096
FIRST_ID = 1000

OnTokens = Callable[[Sequence[int], bool, str | None], None]
"""Takes the new ids, whether these were the last, and an error."""


def answer(prompt: Sequence[int], tokens: int, seed: int | None) -> list[int]:
    """The ids that follow ``prompt``; ``seed`` None: greedy."""
    chance = random.Random(repr((tuple(prompt), seed)))
    return [chance.randrange(FIRST_ID, FIRST_ID + 30_000) for _ in range(tokens)]


def check_length(prompt: Sequence[int], tokens: int) -> None:
    """Refuse what no engine of this length holds, in words of the kind that the library uses."""
    if len(prompt) + tokens > MAX_SEQ_LEN:
        raise ValueError(
            f"The sum of prompt length ({len(prompt)}) and max_tokens ({tokens})\n should not exceed {MAX_SEQ_LEN}"
        )


@dataclass
class _Running:
    on_tokens: OnTokens
    ids: list[int]
    streaming: bool
    breaks: bool
    steps: int = 0
    held: list[int] = field(default_factory=list)


class Engine:
    """Steps on its own thread; ``on_tokens`` is called there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: dict[int, _Running] = {}
        self._next_id = 1
        self._closed = False
        self.iterations: list[dict[str, int]] = []
        self._thread = threading.Thread(target=self._loop, name="stand-in engine", daemon=True)
        self._thread.start()

    def add(self, prompt: Sequence[int], ids: list[int], streaming: bool, on_tokens: OnTokens) -> int:
        """Start answering with ``ids``."""
        with self._changed:
            request_id, self._next_id = self._next_id, self._next_id + 1
            self._running[request_id] = _Running(on_tokens, list(ids), streaming, bool(prompt) and prompt[0] == BREAKS)
            self._changed.notify()
        return request_id

    def cancel(self, request_id: int) -> None:
        """End an answer early; it says so with a last, empty event."""
        with self._changed:
            running = self._running.pop(request_id, None)
        if running is not None:
            running.on_tokens((), True, None)

    def close(self) -> None:
        """Stop stepping."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(10)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running or self._closed)
                if self._closed:
                    return
            time.sleep(STEP_S)
            with self._changed:
                events = [event for request_id in list(self._running) for event in self._step(request_id)]
                self.iterations.append({"iter": len(self.iterations), "numActiveRequests": len(self._running)})
            for on_tokens, ids, last, error in events:
                on_tokens(ids, last, error)

    def _step(self, request_id: int) -> list[tuple[OnTokens, list[int], bool, str | None]]:
        running = self._running[request_id]
        count = TOKENS_OF_STEP[running.steps % len(TOKENS_OF_STEP)]
        running.steps += 1
        if running.breaks and running.steps > 1:
            del self._running[request_id]
            return [(running.on_tokens, [], True, "CUDA error: an illegal memory\naccess was encountered")]
        new, running.ids = running.ids[:count], running.ids[count:]
        running.held += new
        last = not running.ids
        if last:
            del self._running[request_id]
        if not (running.streaming or last):
            return []
        out, running.held = running.held, []
        return [(running.on_tokens, out, last, None)]
