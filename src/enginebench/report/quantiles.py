"""Quantiles as a curve of a few hundred points, from sorted values or from a histogram that takes any number of them.

Pure. Nearest rank, like ``measure.metrics``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MAX_POINTS = 400
_STEPS = 200
_SHIFT = 11  # of the 23 bits of a float32's fraction, 12 are kept: a bin is 0.024% wide
_HALF_BIN = 1 << (_SHIFT - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Quantiles:
    """Nearest-rank quantiles of one metric, dense in the tails. Failed requests are +∞ and come last."""

    shares: Floats  # (points,), points ≤ MAX_POINTS, above 0, rising, the last is 1
    values_s: Floats  # (points,), not falling; the first is the minimum
    count: int  # values that the quantiles are of: requests, tokens or gaps
    requests: int  # requests with a value; what a percentile's honesty is judged by
    failed: int  # of these requests

    def at(self, share: float) -> float:
        """The quantile at ``share`` (0 to 1): exact for multiples of 0.005, else that of the next point."""
        return float(self.values_s[min(int(np.searchsorted(self.shares, share - 1e-12)), len(self.shares) - 1)])


def ranks_of(count: int) -> Counts:
    """The ranks (from 1 to ``count``) that a curve shows: all of a few, else even steps and ever finer ends."""
    if count <= MAX_POINTS:
        return np.arange(1, count + 1)
    steps = np.arange(1, _STEPS + 1)
    body = -(-steps * count // _STEPS)  # in whole numbers: p50, p90, p95 and p99 are among them, exactly
    tail = np.round(np.logspace(np.log10(count) - 2, 0, 90)).astype(np.int64)  # from the ends: 1% of all, down to one
    ranks: Counts = np.unique(np.concatenate([body, tail, count + 1 - tail]))
    return ranks


def of_values(values_s: Floats) -> Quantiles | None:
    """The curve of one value per request; nan is no value, +∞ a failed request. None without values."""
    known = np.sort(values_s[~np.isnan(values_s)])
    if not len(known):
        return None
    ranks = ranks_of(len(known))
    failed = int(np.count_nonzero(np.isinf(known)))
    return Quantiles(ranks / len(known), known[ranks - 1], len(known), len(known), failed)


class Histogram:
    """Counts of positive durations in bins of the same relative width; any number of values in some 5 MB."""

    def __init__(self) -> None:
        self._counts: Counts = np.zeros(0, dtype=np.int64)

    def add(self, values_s: NDArray[np.float32], weights: NDArray[np.int32] | None = None) -> None:
        """Count ``values_s`` (not negative), each ``weights`` times or once."""
        if not len(values_s):
            return
        found = np.bincount(values_s.view(np.int32) >> _SHIFT, weights).astype(np.int64, copy=False)
        if len(found) > len(self._counts):
            self._counts = np.pad(self._counts, (0, len(found) - len(self._counts)))
        self._counts[: len(found)] += found

    def quantiles(self, *, requests: int, failed: int, infinite: int) -> Quantiles | None:
        """The curve of all values and of ``infinite`` more that are +∞, to half a bin; None without values."""
        bins = np.flatnonzero(self._counts)
        reached = np.cumsum(self._counts[bins])
        count = int(reached[-1]) + infinite if len(bins) else infinite
        if not count:
            return None
        middles = np.where(bins > 0, (bins << _SHIFT) | _HALF_BIN, 0).astype(np.int32).view(np.float32)
        ranks = ranks_of(count)
        places = np.searchsorted(reached, ranks)
        values_s = np.append(middles.astype(np.float64), np.inf)[places]
        return Quantiles(ranks / count, values_s, count, requests, failed)
