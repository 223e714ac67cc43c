"""How many pairs a decision takes, and how small an effect a number of pairs can find."""

import math
from collections.abc import Sequence

from enginebench.decide.looks import level, looks_within

POWER = 0.8
"""How often a planned measurement should find what it was planned for."""

MOST_PAIRS = 1000
"""Nobody measures more: beyond it, "how many" is answered by None."""


def smallest_effect(pairs: int, sd: float, margin: float, *, endpoints: int = 1) -> float:
    """The smallest slowdown, a fraction, that a budget of ``pairs`` pairs finds four times out of five.

    ``sd``: of the log ratio of a pair. ``endpoints``: how many are gated, since each has to stand against the others.
    The limit of the margin plus (t of the level + t of the power) · sd / √pairs, the usual approximation of the
    noncentral t. Infinite for a single pair, which has no spread.
    """
    if pairs < 2:
        return math.inf
    return math.expm1(math.log1p(margin) + _reach(pairs, level(looks_within(pairs)) / endpoints) * sd)


def pairs_needed(estimate: float, sd: float, limit: float, pairs: int, one_sided: float) -> int | None:
    """How many pairs more than ``pairs`` will decide four times out of five, if estimate and spread stay as they are.

    ``estimate``, ``sd``, ``limit``: in logarithms. None: more than anybody measures, as when the change is the margin.
    """
    distance = abs(abs(estimate) - limit)
    enough = (n for n in range(max(pairs + 1, 2), MOST_PAIRS) if _reach(n, one_sided) * sd <= distance)
    found = next(enough, None)
    return None if found is None else found - pairs


def next_look(pairs: int, looks: Sequence[int]) -> int | None:
    """How many pairs there are at the next look; None after the last."""
    return next((look for look in looks if look > pairs), None)


def _reach(pairs: int, one_sided: float) -> float:
    """How far from a limit, in standard deviations, a true value is seen to be with the planned power."""
    from scipy.special import stdtrit

    return float((stdtrit(pairs - 1, 1 - one_sided) + stdtrit(pairs - 1, POWER)) / math.sqrt(pairs))
