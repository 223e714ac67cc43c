"""What an engine in process recorded of its own rounds, summed up: waiting, prefill and decode of requests, iterations.

Pure: what a session's ``observations`` gave and the round's record in, the ``engine`` of a cell in run.json out. Times
are differences of the engine's own stamps, whose clock may be one of its own. What a runtime does not tell is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.metrics import PERCENTILE_FLOORS, nearest_rank
from enginebench.measure.records import RoundRecord
from enginebench.measure.windows import NO_TRIM, counted
from enginebench.plan.load import Trim

Floats = NDArray[np.float64]

STEPS = ("queue", "prefill", "decode")
"""Arrival at the engine → first scheduled → first token → last token."""
TRT_STAMPS, BATCH_EVENTS, OWN_STAMPS = "perf metrics", "CUDA events of the batch", "the reference engine's stamps"

IN_STATISTICS: Mapping[str, tuple[str, ...]] = {
    "active": ("numActiveRequests",),
    "queued": ("numQueuedRequests",),
    "paused": ("inflightBatchingStats", "numPausedRequests"),
    "context_tokens": ("inflightBatchingStats", "numCtxTokens"),
    "kv_blocks_used": ("kvCacheStats", "usedNumBlocks"),
    "kv_blocks_total": ("kvCacheStats", "maxNumBlocks"),
}
"""Our own names of what is told of an iteration, and where TensorRT-LLM's statistics have it."""

GAUGES = ("active", "queued", "kv_blocks_used", "kv_blocks_total")
"""What is summed up of iterations."""


@dataclass(frozen=True, slots=True, eq=False)
class EngineRound:
    """A measured round. ``times_s``: by step, shape (told,), nan where not told. ``gauges``: shape (iterations,)."""

    source: str | None
    requests: int  # that ended well and count
    times_s: Mapping[str, Floats]
    gauges: Mapping[str, Floats]


def engine_round(record: RoundRecord, observed: Mapping[str, Any], trim: Trim = NO_TRIM) -> EngineRound:
    """What was ``observed`` in the round of ``record``, of the requests that count in its metrics and ended well."""
    table = counted(record, trim).requests
    wanted = set(table.index[table.ok].tolist())
    rows = [each for each in observed.get("requests") or () if each.get("request") in wanted]
    stamps = np.array([_stamps_s(each) for each in rows], dtype=np.float64).reshape(-1, len(STEPS) + 1)
    times = np.diff(stamps, axis=1)
    if rows and "first_scheduled_s" not in rows[0]:  # told from when the batch began to be computed: nobody waited
        times[:, 1] = stamps[:, 2]
    iterations = observed.get("iterations") or ()
    gauges = {name: np.array([_gauge(row, name) for row in iterations]) for name in GAUGES}
    return EngineRound(_source(rows), len(wanted), dict(zip(STEPS, times.T, strict=True)), gauges)


def engine_summary(rounds: Sequence[EngineRound]) -> dict[str, Any] | None:
    """The ``engine`` of a cell in run.json; None where the runtime told nothing.

    ``told`` of ``requests`` that ended well have stamps; steps in seconds, with the percentiles that so many bear.
    """
    times = {step: _known(np.concatenate([each.times_s[step] for each in rounds])) for step in STEPS if rounds}
    iterations = _iterations(rounds)
    if iterations is None and not any(len(values) for values in times.values()):
        return None
    return {
        "source": next((each.source for each in rounds if each.source), None),
        "requests": sum(each.requests for each in rounds),
        "told": max(len(values) for values in times.values()),
        **{step: _distribution(values) for step, values in times.items()},
        "iterations": iterations,
    }


def waits_by_request(observed: Mapping[str, Any]) -> dict[int, float]:
    """By index of those requests that tell: seconds from the arrival at the engine until it was first scheduled."""
    rows = observed.get("requests") or ()
    return {row["request"]: float(wait) for row in rows if (wait := row.get("first_scheduled_s")) is not None}


def told_of(iteration: Mapping[str, Any], name: str) -> Any:
    """What is told under our own ``name``, or where TensorRT-LLM has it; None: nothing is."""
    value: Any = iteration.get(name)
    if value is None:
        value = iteration
        for key in IN_STATISTICS[name]:
            value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _source(rows: Sequence[Mapping[str, Any]]) -> str | None:
    if not rows:
        return None
    if "scheduled_ns" in rows[0]:
        return OWN_STAMPS
    return TRT_STAMPS if "first_scheduled_s" in rows[0] else BATCH_EVENTS


def _stamps_s(row: Mapping[str, Any]) -> tuple[float, ...]:
    names = ("first_scheduled_s", "first_token_s", "last_token_s")
    return (0.0, *(float("nan") if row.get(name) is None else float(row[name]) for name in names))


def _gauge(iteration: Mapping[str, Any], name: str) -> float:
    value = told_of(iteration, name)
    return float("nan") if value is None else float(value)


def _distribution(values: Floats) -> dict[str, float | int | None] | None:
    if not len(values):
        return None
    ordered = np.sort(values)
    found: dict[str, float | int | None] = {
        f"p{percent}": nearest_rank(ordered, percent) if len(ordered) >= floor else None
        for percent, floor in PERCENTILE_FLOORS.items()
    }
    ends = {"min": float(ordered[0]), "max": float(ordered[-1]), "mean": float(ordered.mean())}
    return {**found, **ends, "count": len(ordered)}


def _iterations(rounds: Sequence[EngineRound]) -> dict[str, Any] | None:
    """Means over iterations, not over time."""
    gauges = {name: np.concatenate([each.gauges[name] for each in rounds]) for name in GAUGES if rounds}
    count = len(next(iter(gauges.values()), ()))
    if not count:
        return None
    used, total = gauges["kv_blocks_used"], gauges["kv_blocks_total"]
    shares = used[total > 0] / total[total > 0]
    return {
        "count": count,
        "active_mean": _mean(gauges["active"]),
        "queued_mean": _mean(gauges["queued"]),
        "kv_used_mean": _mean(shares),
        "kv_used_max": float(_known(shares).max()) if len(_known(shares)) else None,
    }


def _known(values: Floats) -> Floats:
    return values[~np.isnan(values)]


def _mean(values: Floats) -> float | None:
    known = _known(values)
    return float(known.mean()) if len(known) else None
