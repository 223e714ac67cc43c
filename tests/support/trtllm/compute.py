"""The engine behind the stand-in: it computes nothing, but takes steps, batches in flight and answers reproducibly.

A prompt that begins with ``BREAKS`` fails after its first step, as a CUDA error would.
"""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STEP_S = 0.002
TOKENS_OF_STEP = (1, 2, 1, 3)  # speculative decoding gives several at once
BREAKS = 13
MAX_SEQ_LEN = 4096
FIRST_ID = 1000

MISHAPS = "standin.fails"
"""A file in an engine's directory with a moment ("load", "round") and what happens then ("oom", "hang", "segfault")."""

OUT_OF_MEMORY = "[TensorRT-LLM][ERROR] CUDA runtime error in cudaMalloc: out of memory"

OnTokens = Callable[[Sequence[int], bool, str | None], None]
"""Takes the new ids, whether these were the last, and an error."""


def mishap(directory: object, moment: str) -> None:
    """Do what ``MISHAPS`` says, if it says something for this moment."""
    file = Path(str(directory)) / MISHAPS
    when, _, what = file.read_text().strip().partition(" ") if file.exists() else ("", "", "")
    if when != moment:
        return
    print(f"[TensorRT-LLM][INFO] stand-in: {moment}", file=sys.stderr, flush=True)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(3600)
    print("[TensorRT-LLM][ERROR] KV cache allocation failed", file=sys.stderr, flush=True)
    raise RuntimeError(OUT_OF_MEMORY)


def ranks() -> Any:
    """The ranks that run an engine together; None for one alone."""
    if int(os.environ.get("PMI_SIZE", "1")) == 1:
        return None
    from mpi4py import MPI

    return MPI.COMM_WORLD


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

    def __init__(self, directory: object) -> None:
        mishap(directory, "load")
        self._directory = directory
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
        try:
            mishap(self._directory, "round")
            if running.breaks and running.steps > 1:
                raise RuntimeError("CUDA error: an illegal memory\naccess was encountered")
        except RuntimeError as error:
            del self._running[request_id]
            return [(running.on_tokens, [], True, str(error))]
        new, running.ids = running.ids[:count], running.ids[count:]
        running.held += new
        last = not running.ids
        if last:
            del self._running[request_id]
        if not (running.streaming or last):
            return []
        out, running.held = running.held, []
        return [(running.on_tokens, out, last, None)]
