"""A cell of any size as a few thousand numbers: quantiles, values over time, and a choice of requests.

Reads the stored tables a part at a time, so that memory does not grow with the arrivals. Per-request metrics are those
of ``measure.metrics``, exactly; gaps between tokens are binned to within 0.02%. Knows no units but seconds and no looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enginebench.store import Run

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_POINTS = 400
MAX_BINS = 240
SLOWEST = 20
SAMPLED = 40


@dataclass(frozen=True, slots=True, eq=False)
class Quantiles:
    """Nearest-rank quantiles of one metric, dense in the tails. Failed requests are +∞ and come last."""

    shares: Floats  # (points,), points ≤ MAX_POINTS, above 0, rising, the last is 1
    values_s: Floats  # (points,), not falling; the first is the minimum
    count: int  # values that the quantiles are of: requests, tokens or gaps
    requests: int  # requests with a value; what a percentile's honesty is judged by
    failed: int  # of these requests


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


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request of a measured round; offsets are from the moment at which the load wanted it to leave."""

    round_index: int
    request: int
    prompt_tokens: int
    tokens: int  # -1 unknown
    outcome: str
    slow: bool  # among the slowest; otherwise of the seeded sample
    intended_s: float  # since the start of the first measured round
    sent_s: float | None
    first_s: float | None
    last_s: float | None
    stalls_s: tuple[tuple[float, float], ...]  # (start, end) of gaps between arrivals above CellAggregates.stall_s


@dataclass(frozen=True, slots=True, eq=False)
class CellAggregates:
    """What a page shows of the requests and arrivals of a cell.

    ``quantiles`` by metric: ttft, tpot, itl, e2e_latency, and chunk_gap (between arrivals, whatever they carried). A
    metric is absent where the path or the mode has none. ``requests`` and ``failed`` are of the measured rounds.
    """

    cell_id: str
    start_ns: int  # zero of all times here, CLOCK_MONOTONIC
    warmup_s: tuple[float, float] | None  # from the first warm-up round's start to the last one's end
    requests: int
    failed: int
    arrivals: int
    quantiles: Mapping[str, Quantiles]
    bins: TimeBins
    rows: Sequence[RequestRow]  # by intended time: the SLOWEST completed ones, and a seeded sample of SAMPLED others
    stall_s: float | None  # the gap from which on an arrival was stalled; None without gaps


def cell_aggregates(run: Run, cell_id: str) -> CellAggregates | None:
    """Sum up the requests and arrivals of a measured cell; None when it left no records or no round is valid.

    Raises:
        RunError: the stored tables cannot be read.
    """
    raise NotImplementedError
