"""A Chrome trace of torch.profiler, or of TensorRT-LLM's PyTorch backend, as tables: operators, kernels, GPU time.

Reads files; what their parts mean is in ``kernels``.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.errors import RunError
from enginebench.profile.kernels import KernelTime, families, longest, occupation

ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
MOST_OPERATORS = 25


def read_trace(path: Path) -> list[Mapping[str, Any]]:
    """The complete events of a trace, plain or compressed. Raises RunError."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"The trace {path} cannot be read ({error}): profile the cell again.") from error
    events = found.get("traceEvents", []) if isinstance(found, dict) else found
    return [event for event in events if event.get("ph") == "X" and "dur" in event]


def summary(events: Sequence[Mapping[str, Any]], round_name: str) -> dict[str, Any]:
    """Operators by their own time, kernels, their families, and how the GPU spent the round (None: no GPU in it)."""
    window = _window_ns(events, round_name)
    within = [event for event in events if window[0] <= _ns(event["ts"]) <= window[1]]
    on_gpu = [event for event in within if event.get("cat") in ON_GPU]
    kernels = _kernels(on_gpu)
    starts = np.array([_ns(event["ts"]) for event in on_gpu], dtype=np.int64)
    ends = starts + np.array([_ns(event["dur"]) for event in on_gpu], dtype=np.int64)
    return {
        "operators": _operators([event for event in within if event.get("cat") == "cpu_op"]),
        "kernels": longest(kernels),
        "families": families(kernels),
        "gpu": dict(occupation(starts, ends, window)) if on_gpu else None,
    }


def gpu_spans(
    events: Sequence[Mapping[str, Any]], round_name: str, round_started_ns: int
) -> Iterator[tuple[str, int, int]]:
    """Kernels and copies as (name, start, end) on the monotonic clock, of which the round's range is the anchor."""
    anchor = next((event for event in events if _is_round(event, round_name)), None)
    if anchor is None:
        return
    offset = round_started_ns - _ns(anchor["ts"])
    for event in events:
        if event.get("cat") in ON_GPU:
            start = _ns(event["ts"]) + offset
            yield str(event["name"]), start, start + _ns(event["dur"])


def _window_ns(events: Sequence[Mapping[str, Any]], round_name: str) -> tuple[int, int]:
    """The round's range; without one, from the first event to the last."""
    chosen = [event for event in events if _is_round(event, round_name)][:1] or events
    starts = [_ns(event["ts"]) for event in chosen]
    ends = [_ns(event["ts"]) + _ns(event["dur"]) for event in chosen]
    return min(starts, default=0), max(ends, default=0)


def _is_round(event: Mapping[str, Any], round_name: str) -> bool:
    return event.get("name") == round_name and event.get("cat") in ("user_annotation", "cpu_op")


def _kernels(events: Sequence[Mapping[str, Any]]) -> list[KernelTime]:
    found: dict[str, tuple[int, int]] = {}
    for event in events:
        calls, total = found.get(event["name"], (0, 0))
        found[event["name"]] = (calls + 1, total + _ns(event["dur"]))
    return [KernelTime(str(name), calls, total / 1e9) for name, (calls, total) in found.items()]


def _operators(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By name: calls, seconds, and seconds without the operators inside."""
    total: dict[str, list[int]] = {}
    for event, own_ns in _own_times(events):
        kept = total.setdefault(str(event["name"]), [0, 0, 0])
        kept[0] += 1
        kept[1] += _ns(event["dur"])
        kept[2] += own_ns
    ranked = sorted(total.items(), key=lambda item: -item[1][2])[:MOST_OPERATORS]
    return [{"name": name, "calls": calls, "s": s / 1e9, "own_s": own / 1e9} for name, (calls, s, own) in ranked]


def _own_times(events: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Each event with its own time, ns: operators of a thread nest."""
    own = [_ns(event["dur"]) for event in events]
    order = sorted(
        range(len(events)), key=lambda at: (str(events[at].get("tid")), events[at]["ts"], -events[at]["dur"])
    )
    open_: list[int] = []
    for at in order:
        event = events[at]
        while open_ and not _inside(event, events[open_[-1]]):
            open_.pop()
        if open_:
            own[open_[-1]] -= _ns(event["dur"])
        open_.append(at)
    yield from zip(events, own, strict=True)


def _inside(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same = event.get("tid") == other.get("tid")
    return bool(same and event["ts"] < other["ts"] + other["dur"])


def _ns(microseconds: float) -> int:
    return round(microseconds * 1e3)
