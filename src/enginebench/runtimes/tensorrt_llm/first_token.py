"""When a whole batch had its first and its last token, where its answer comes in one piece.

A ``GenerationSession`` from 0.7 on tells a ``benchmark_profiler`` of these moments as it decodes. The runner above it
has no parameter for one, so ``decode`` of that one session object gets the keyword for the length of a call. The
moments are CUDA events, which cost next to nothing; nothing here waits for the GPU.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

START = "start"


class FirstToken:
    """The profiler of one batch, made when its work begins."""

    is_recording_perf_profile = False  # asked for from 0.10 on: a profile of layers, which would slow them down

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._events: dict[str, Any] = {}
        self.record_cuda_event(START)

    def record_cuda_event(self, name: str) -> None:
        """Called by the library when a moment is there: ``first_token``, ``last_token``."""
        self._events[name] = self._torch.cuda.Event(enable_timing=True)
        self._events[name].record()

    def record_elapsed_time(self, *_: str) -> None:
        """Called by the library, and not needed."""

    def add_aux_info(self, *_: Any) -> None:
        """Called by the library, and not needed."""

    def timing(self) -> dict[str, float] | None:
        """Seconds from the start to both moments, once the GPU is done; None when the library did not tell them."""
        if not {"first_token", "last_token"} <= set(self._events):
            return None
        return {f"{name}_s": self._since_start_s(name) for name in ("first_token", "last_token")}

    def _since_start_s(self, name: str) -> float:
        milliseconds: float = self._events[START].elapsed_time(self._events[name])
        return milliseconds / 1e3


def takes_profiler(session: Any) -> bool:
    """Whether ``decode`` of a ``GenerationSession`` hands on a keyword that it does not name (0.6 does not)."""
    kinds = [parameter.kind for parameter in inspect.signature(session.decode).parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


@contextmanager
def profiled(session: Any, profiler: FirstToken) -> Iterator[None]:
    """Let ``session`` tell ``profiler`` of what it decodes meanwhile."""
    session.decode = partial(session.decode, benchmark_profiler=profiler)
    try:
        yield
    finally:
        del session.decode  # the class has the method itself
