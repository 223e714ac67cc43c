"""Steps in a series of stored runs: where a number changed for good.

E-divisive (Matteson & James, J. Am. Stat. Assoc. 109 (2014) 334-345) finds the place that divides a stretch best; as in
Hunter, now Apache Otava (Fleming et al., ICPE 2023, arXiv 2301.03034), Student's t test says whether it counts, first
at a lenient level, then, weakest first, at the strict one. Written anew: Otava's package brings clients for five
databases and pins numpy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

P_VALUE = 0.001
"""Of a step that counts. A series is looked at after every run, and in many places: hence the strictness."""

LENIENT = 10
"""How much more is let through at first, since a step may only show once another is known."""

SHORTEST = 2
"""Runs on either side of a step: one run is no level."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level. ``index``: of the first run after it; ``before``, ``after``: geometric means of the levels."""

    index: int
    before: float
    after: float
    p_value: float

    @property
    def change(self) -> float:
        """after/before − 1."""
        return self.after / self.before - 1


def steps(series: Sequence[float | None], *, p_value: float = P_VALUE, smallest: float = 0.02) -> tuple[Step, ...]:
    """The steps of ``series``, oldest run first.

    Values that are missing, infinite or not positive are passed over. ``smallest``: a change, a fraction, below which a
    step is of no interest. The series is taken as logarithms, so that a step is a factor.
    """
    places = [at for at, value in enumerate(series) if value is not None and 0 < value < math.inf]
    logs = np.log(np.array([series[at] for at in places], dtype=np.float64))
    cuts = _divide(logs, min(0.5, p_value * LENIENT))
    kept = _keep(logs, cuts, p_value, math.log1p(smallest))
    return tuple(_step(logs, bounds, places) for bounds in _neighbours(kept, len(logs)))


def _divide(logs: Floats, p_value: float) -> list[int]:
    """Divide stretches at their best place for as long as both halves differ."""
    cuts: list[int] = []
    stretches = [(0, len(logs))]
    while stretches:
        start, end = stretches.pop()
        cut = _best_cut(logs[start:end])
        if cut is not None and _p_equal(logs[start : start + cut], logs[start + cut : end]) < p_value:
            cuts.append(start + cut)
            stretches += [(start, start + cut), (start + cut, end)]
    return sorted(cuts)


def _best_cut(logs: Floats) -> int | None:
    """Where the energy distance between what is left of it and some stretch right of it is greatest.

    With m values left of the cut, n right of it: mn/(m+n) · (2 · mean distance across − mean distance within left −
    mean distance within right), over all pairs of a cut and an end (equation 7 of the paper, exponent 1).
    """
    count = len(logs)
    if count < 2 * SHORTEST:
        return None
    sums = np.zeros((count + 1, count + 1))  # of distances, up to a row and a column
    sums[1:, 1:] = np.abs(logs[:, None] - logs[None, :]).cumsum(axis=0).cumsum(axis=1)
    cut, end = np.meshgrid(np.arange(SHORTEST, count), np.arange(2 * SHORTEST, count + 1), indexing="ij")
    left, right = cut, end - cut
    allowed = right >= SHORTEST
    right = np.maximum(right, SHORTEST)  # keeps the divisions below harmless where it is not allowed
    across = sums[cut, end] - sums[cut, cut]
    within_right = sums[end, end] - 2 * sums[cut, end] + sums[cut, cut]
    distance = 2 * across / (left * right) - sums[cut, cut] / (left * (left - 1)) - within_right / (right * (right - 1))
    gain = np.where(allowed, distance * left * right / (left + right), -np.inf)
    return int(cut[np.unravel_index(int(np.argmax(gain)), gain.shape)])


def _keep(logs: Floats, cuts: Sequence[int], p_value: float, smallest: float) -> list[int]:
    """Leave out the weakest cut until all are strong: first by p, then by size."""
    kept = list(cuts)
    while kept:
        bounds = _neighbours(kept, len(logs))
        p_values = [_p_equal(logs[start:cut], logs[cut:end]) for start, cut, end in bounds]
        sizes = [abs(float(logs[cut:end].mean() - logs[start:cut].mean())) for start, cut, end in bounds]
        if max(p_values) >= p_value:
            kept.pop(int(np.argmax(p_values)))
        elif min(sizes) < smallest:
            kept.pop(int(np.argmin(sizes)))
        else:
            break
    return kept


def _neighbours(cuts: Sequence[int], count: int) -> list[tuple[int, int, int]]:
    """Each cut between the one before it and the one after it."""
    edges = [0, *cuts, count]
    return list(zip(edges[:-2], edges[1:-1], edges[2:], strict=True))


def _step(logs: Floats, bounds: tuple[int, int, int], places: Sequence[int]) -> Step:
    start, cut, end = bounds
    left, right = logs[start:cut], logs[cut:end]
    return Step(places[cut], math.exp(left.mean()), math.exp(right.mean()), _p_equal(left, right))


def _p_equal(left: Floats, right: Floats) -> float:
    """Student's two-sided p-value of equal means, of equal variance. Levels without any spread differ for sure."""
    from scipy.special import stdtr

    degrees = len(left) + len(right) - 2
    squares = float(np.sum((left - left.mean()) ** 2) + np.sum((right - right.mean()) ** 2))
    distance = abs(float(right.mean() - left.mean()))
    error = math.sqrt(squares / degrees * (1 / len(left) + 1 / len(right)))
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(2 * stdtr(degrees, -distance / error))
