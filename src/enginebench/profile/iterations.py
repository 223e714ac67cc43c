"""Iterations of an engine as one table, whoever recorded them: under the same names, on the monotonic clock.

What a source does not tell is None. Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.engine_record import IN_STATISTICS, told_of
from enginebench.measure.server_sampler import PageSample
from enginebench.server import metrics_page as page

NAMES = (
    "stamp_ns",  # when the step ended; of sampled gauges, when they were read
    "active",
    "queued",
    "paused",
    "context_tokens",
    "generation_tokens",
    "kv_blocks_used",
    "kv_blocks_total",
    "step_ns",
)

_STAMP = "%m-%d-%Y %H:%M:%S.%f"  # local time, as TensorRT-LLM writes it

SAMPLED = {
    "active": page.ACTIVE,
    "queued": page.WAITING,
    "paused": page.PAUSED,
    "context_tokens": page.CONTEXT_TOKENS,
    "generation_tokens": page.GENERATION_REQUESTS,
    "kv_blocks_used": page.KV_USED,
    "kv_blocks_total": page.KV_MAX,
}
"""What the backend's gauges tell of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Iterations:
    """Columns of shape (iterations,) by stamp, float64 with NaN for what is not known, but for ``stamp_ns``."""

    stamp_ns: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "Iterations":
        """From the columns of a file; those that are missing are not known."""
        stamps = np.asarray(columns.get("stamp_ns", ()), dtype=np.int64)
        order = np.argsort(stamps, kind="stable")
        unknown = np.full(len(stamps), np.nan)
        values = {name: np.asarray(columns.get(name, unknown), dtype=np.float64)[order] for name in NAMES[1:]}
        return cls(stamps[order], values)

    def __len__(self) -> int:
        return len(self.stamp_ns)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self.values[name]

    @property
    def sampled(self) -> bool:
        """Whether these are gauges, read now and then, instead of every step with its time."""
        return not np.isfinite(self.values["step_ns"]).any()


def from_observed(rows: Sequence[Mapping[str, Any]], to_monotonic: Callable[[int], int]) -> dict[str, list[Any]]:
    """Columns of what an engine in process recorded: the reference engine's own names, or TensorRT-LLM's JSON.

    ``to_monotonic``: maps a stamp of CLOCK_REALTIME. Rows without a stamp are left out.
    """
    told = [row if "stamp_ns" in row else _from_tensorrt_llm(row, to_monotonic) for row in rows]
    return _columns([row for row in told if row["stamp_ns"] is not None])


def _from_tensorrt_llm(row: Mapping[str, Any], to_monotonic: Callable[[int], int]) -> dict[str, Any]:
    """An entry of ``get_stats``, or of the Executor's iteration statistics."""
    flight = row.get("inflightBatchingStats") or {}
    latency_ms = row.get("iterLatencyMS")
    each = flight.get("avgNumDecodedTokensPerIter") or 1.0  # the PyTorch backend says 0
    decoding = flight.get("numGenRequests")
    return {
        "stamp_ns": _stamp_ns(row.get("timestamp"), to_monotonic),
        **{name: told_of(row, name) for name in IN_STATISTICS},
        "generation_tokens": None if decoding is None else decoding * max(1.0, each),
        "step_ns": None if not latency_ms else round(latency_ms * 1e6),
    }


def _stamp_ns(text: Any, to_monotonic: Callable[[int], int]) -> int | None:
    """Its digits decide, since a float has not enough of them."""
    try:
        moment = datetime.strptime(str(text), _STAMP)
    except ValueError:
        return None
    whole_s = int(moment.replace(microsecond=0).timestamp())
    fraction = re.sub(r".*\.", "", str(text)).ljust(9, "0")[:9]
    return to_monotonic(whole_s * 1_000_000_000 + int(fraction))


def from_pages(samples: Sequence[PageSample], started_ns: int, ended_ns: int) -> dict[str, list[Any]]:
    """Columns of the backend's gauges as they were read in the round; empty where the server has none of them."""
    state: dict[tuple[str, page.Labels], float] = {}
    rows = []
    for sample in samples:
        state |= page.series(sample.changed)
        if started_ns <= sample.stamp_ns <= ended_ns:
            told = {name: page.gauge(state, which) for name, which in SAMPLED.items()}
            rows.append({"stamp_ns": sample.stamp_ns, **told})
    return _columns([row for row in rows if any(row[name] is not None for name in SAMPLED)])


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in NAMES} if rows else {}
