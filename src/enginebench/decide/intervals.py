"""Intervals, p-values and outcomes of paired log ratios, for one endpoint or for thousands of simulated ones at once.

Throughout, ``worse`` holds log ratios with their sign turned so that above zero is worse for the new build; its last
axis runs over pairs, and those before it over whatever is decided together. scipy's special functions alone are used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.decide.looks import level, penalty
from enginebench.decide.model import Outcome

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]

CODES: tuple[Outcome, ...] = ("inconclusive", "regression", "improvement", "equivalent")
"""Outcomes by their code in arrays."""
INCONCLUSIVE, REGRESSION, IMPROVEMENT, EQUIVALENT = range(4)
MOST = 30.0
"""Log ratios beyond it are as good as without bound, and floats cannot tell their changes from −1."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its bounds, arrays of one shape. ``confidence``: two-sided."""

    estimate: Floats
    low: Floats
    high: Floats
    confidence: float


def as_change(log_ratio: float) -> float:
    """What a log ratio is as a fraction: new/old − 1."""
    return math.expm1(min(max(float(log_ratio), -MOST), MOST))


def student(worse: Floats, one_sided: float) -> Interval:
    """Student's interval of the mean; at least two pairs. Equal values give an interval of no length."""
    from scipy.special import stdtrit

    pairs = worse.shape[-1]
    mean = worse.mean(axis=-1)
    half = stdtrit(pairs - 1, 1 - one_sided) * _standard_error(worse)
    return Interval(mean, mean - half, mean + half, 1 - 2 * one_sided)


def between_sessions(worse: Floats, variance: Floats, degrees: int, one_sided: float) -> Interval:
    """Student's interval of the difference of two sessions, of a ``variance`` with ``degrees`` of freedom each."""
    from scipy.special import stdtrit

    half = stdtrit(degrees, 1 - one_sided) * np.sqrt(2 * variance)
    return Interval(worse, worse - half, worse + half, 1 - 2 * one_sided)


def p_between_sessions(worse: Floats, variance: Floats, degrees: int, limit: float) -> Floats:
    """The one-sided p-value of "two sessions differ by more than ``limit``"."""
    from scipy.special import stdtr

    return np.asarray(stdtr(degrees, (limit - worse) / np.sqrt(2 * variance)), dtype=np.float64)


def p_beyond(worse: Floats, limit: Floats | float) -> Floats:
    """The one-sided p-value of "the mean is above ``limit``" (Student). Without spread it is 0, 1 or, at it, ½."""
    from scipy.special import stdtr

    distance, error = worse.mean(axis=-1) - limit, _standard_error(worse)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, distance / error, np.sign(distance) * np.inf)
    t = np.where((error == 0) & (distance == 0), 0.0, t)
    return np.asarray(stdtr(worse.shape[-1] - 1, -t), dtype=np.float64)


def hodges_lehmann(worse: Floats, one_sided: float) -> Interval | None:
    """The median of the Walsh averages, with the interval that inverts Wilcoxon's signed-rank test.

    Exact under symmetry, which pairs of alike noise have: ``confidence`` is the attained one. None where so few pairs
    cannot reach the level. Hollander, Wolfe & Chicken, Nonparametric Statistical Methods (3rd ed.), 3.1 to 3.3.
    """
    pairs = worse.shape[-1]
    tail = signed_rank_tail(pairs)
    depth = int(np.searchsorted(tail, one_sided, side="right"))  # values of the statistic that are too small
    if depth == 0:
        return None
    first, second = np.triu_indices(pairs)
    averages = np.sort((worse[..., first] + worse[..., second]) / 2, axis=-1)
    confidence = 1 - 2 * float(tail[depth - 1])
    return Interval(np.median(averages, axis=-1), averages[..., depth - 1], averages[..., -depth], confidence)


@cache
def signed_rank_tail(pairs: int) -> Floats:
    """P(T ≤ t) of Wilcoxon's signed-rank statistic without ties, for t = 0, 1, …: each rank counts or not, evenly."""
    chances = np.zeros(pairs * (pairs + 1) // 2 + 1)
    chances[0] = 1.0
    for rank in range(1, pairs + 1):
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[:-rank]
        chances = (chances + shifted) / 2
    return np.asarray(np.cumsum(chances))


def classify(interval: Interval, limit: Floats | float) -> Codes:
    """What an interval says: wholly beyond ``limit`` on either side, wholly inside, or neither."""
    worse, better = interval.low > limit, interval.high < -limit
    inside = (interval.low > -limit) & (interval.high < limit)
    codes = np.select([worse, better, inside], [REGRESSION, IMPROVEMENT, EQUIVALENT], INCONCLUSIVE)
    return np.asarray(codes, dtype=np.int8)


@dataclass(frozen=True, slots=True)
class Assessment:
    """Endpoints by themselves: the t interval, its second opinion, and p of "worse than the limit" after the looks."""

    interval: Interval
    cross_check: Interval | None
    alone: Codes
    opinion: Codes | None
    p_value: Floats

    def settled(self, q_value: Floats | float, alpha: float) -> Codes:
        """The outcomes: no regression that does not survive the other endpoints, none that the opinions differ on."""
        codes = np.where((self.alone == REGRESSION) & (q_value > alpha), INCONCLUSIVE, self.alone)
        if self.opinion is not None:
            codes = np.where(self.alone != self.opinion, INCONCLUSIVE, codes)
        return np.asarray(codes, dtype=np.int8)


def assess(worse: Floats, limit: Floats | float, looks: Sequence[int]) -> Assessment:
    """Judge endpoints one by one after ``worse.shape[-1]`` pairs, at least two, in a procedure with ``looks``."""
    interval, cross_check = student(worse, level(looks)), hodges_lehmann(worse, level(looks))
    p_value = np.minimum(1.0, penalty(looks) * p_beyond(worse, limit))
    opinion = None if cross_check is None else classify(cross_check, limit)
    return Assessment(interval, cross_check, classify(interval, limit), opinion, p_value)


def _standard_error(worse: Floats) -> Any:
    return worse.std(axis=-1, ddof=1) / np.sqrt(worse.shape[-1])
