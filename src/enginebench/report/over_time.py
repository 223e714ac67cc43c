"""A cell's requests over time: how many ended, how long they took, how many were in flight, in bins of equal width.

Pure: requests in, a few hundred numbers out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.metrics import nearest_rank, request_values
from enginebench.measure.records import RequestTable, RoundRecord, Stamps
from enginebench.report.quantiles import Counts, Floats

MAX_BINS = 240
_REQUESTS_A_BIN = 5  # so that a median is one of several
_MIN_BINS = 12


@dataclass(frozen=True, slots=True, eq=False)
class TimeBins:
    """A cell over time, warm-up rounds included; a request counts where it ended. Bins have the same width."""

    edges_s: Floats  # (bins + 1,), since the start of the first measured round: negative in the warm-up
    completed: Counts  # (bins,) requests that ended well
    failed: Counts  # (bins,) requests that did not, by their last sign of life
    tokens: Counts | None  # (bins,) output tokens that arrived; None: the path does not tell
    in_flight: Floats  # (bins,) mean number of requests between their send and their end
    p50_s: Mapping[str, Floats]  # metric → (bins,), nan where no request completed: ttft, tpot, e2e_latency
    p90_s: Mapping[str, Floats]


def bin_edges_s(records: Sequence[RoundRecord], start_ns: int) -> Floats:
    """Edges of a round width that cover ``records``, one of them at ``start_ns``; shape (bins + 1,)."""
    start_s = (min(record.started_ns for record in records) - start_ns) / 1e9
    end_s = (max(record.ended_ns for record in records) - start_ns) / 1e9
    requests = sum(len(record.requests) for record in records)
    wanted = min(MAX_BINS, max(_MIN_BINS, requests // _REQUESTS_A_BIN))
    width_s = _round_up(max(end_s - start_s, 1e-6) / wanted)
    low, high = np.floor(start_s / width_s), np.ceil(end_s / width_s)
    return np.arange(low, max(high, low + 1) + 1) * width_s


def time_bins(
    records: Sequence[RoundRecord], edges_s: Floats, start_ns: int, tokens: Counts | None, metrics: Sequence[str]
) -> TimeBins:
    """The requests of ``records`` in the bins of ``edges_s``, with p50 and p90 of the per-request ``metrics``."""
    tables = [record.requests for record in records]
    ok = np.concatenate([table.ok for table in tables])
    sent_s, end_s = ((np.concatenate([of(table) for table in tables]) - start_ns) / 1e9 for of in (_sent_ns, _end_ns))
    place = np.clip(np.searchsorted(edges_s, end_s, side="right") - 1, 0, len(edges_s) - 2)
    order = np.argsort(place[ok], kind="stable")
    cuts = np.searchsorted(place[ok][order], np.arange(1, len(edges_s) - 1))
    bands = {
        name: _bands(np.concatenate([request_values(name, record) for record in records])[ok][order], cuts)
        for name in metrics
    }
    return TimeBins(
        edges_s=edges_s,
        completed=np.bincount(place[ok], minlength=len(edges_s) - 1),
        failed=np.bincount(place[~ok], minlength=len(edges_s) - 1),
        tokens=tokens,
        in_flight=np.diff(_busy_s(sent_s, edges_s) - _busy_s(end_s, edges_s)) / np.diff(edges_s),
        p50_s={name: low for name, (low, _) in bands.items()},
        p90_s={name: high for name, (_, high) in bands.items()},
    )


def _bands(values_s: Floats, cuts: NDArray[Any]) -> tuple[Floats, Floats]:
    """p50 and p90 of each bin."""
    parts = [np.sort(part[~np.isnan(part)]) for part in np.split(values_s, cuts)]
    low, high = (np.array([nearest_rank(part, at) if len(part) else np.nan for part in parts]) for at in (50, 90))
    return low, high


def _busy_s(stamps_s: Floats, edges_s: Floats) -> Floats:
    """For each edge, the sum of how long before it each stamp was."""
    ordered = np.sort(stamps_s)
    summed = np.append(0.0, np.cumsum(ordered))
    before = np.searchsorted(ordered, edges_s)
    return np.asarray(before * edges_s - summed[before])


def _sent_ns(table: RequestTable) -> Stamps:
    """When each request left; one that never did is in flight for no time."""
    return np.where(table.sent_ns > 0, table.sent_ns, _end_ns(table))


def _end_ns(table: RequestTable) -> Stamps:
    """The last sign of life of each request."""
    stamps = (table.intended_ns, table.sent_ns, table.first_ns, table.last_ns)
    found: Stamps = np.maximum.reduce(stamps)
    return found


def _round_up(width_s: float) -> float:
    """The next of 1, 2, 5, 10 … from ``width_s`` on."""
    power = 10.0 ** np.floor(np.log10(width_s))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= width_s * (1 - 1e-9)))
