"""How many pairs a decision takes, and how small an effect a number of pairs can find."""

import math
from typing import Any

import numpy as np

from enginebench.decide.intervals import as_change, signed_rank_tail
from enginebench.decide.looks import level, looks_within

POWER = 0.8
"""How often a planned measurement should find what it was planned for."""

MOST_PAIRS = 1000
"""Nobody measures more: beyond it, "how many" is answered by None."""


def smallest_effect(pairs: int, sd: float, margin: float, *, endpoints: int = 1) -> float:
    """The smallest slowdown, a fraction, that a budget of ``pairs`` pairs finds four times out of five.

    ``sd``: of the log ratio of a pair. ``endpoints``: how many are gated, since each has to stand against the others.
    Student's test at the last look, by the noncentral t distribution; at the level that the cross-check attains, where
    that is stricter. Infinite for one pair, which has no spread.
    """
    if pairs < 2:
        return math.inf
    one_sided = level(looks_within(pairs))
    attained = signed_rank_tail(pairs)
    attained = attained[attained <= one_sided]
    stricter = min([one_sided / endpoints, *attained[-1:]])
    return as_change(math.log1p(margin) + float(_reach(pairs, stricter)) * sd)


def pairs_needed(estimate: float, sd: float, limit: float, pairs: int, one_sided: float) -> int | None:
    """How many pairs more than ``pairs`` will decide four times out of five, if estimate and spread stay as they are.

    ``estimate``, ``sd``, ``limit``: in logarithms. None: more than anybody measures, as when the change is the margin.
    """
    counts = np.arange(max(pairs + 1, 2), MOST_PAIRS)
    enough = np.flatnonzero(_reach(counts, one_sided) * sd <= abs(abs(estimate) - limit))
    return int(counts[enough[0]]) - pairs if len(enough) else None


def _reach(pairs: Any, one_sided: float) -> Any:
    """How far from a limit, in standard deviations, a true value is seen to be with the planned power."""
    from scipy.special import nctdtrinc, stdtrit

    return nctdtrinc(pairs - 1, 1 - POWER, stdtrit(pairs - 1, 1 - one_sided)) / np.sqrt(pairs)
