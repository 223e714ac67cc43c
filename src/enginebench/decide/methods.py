"""The ways to a verdict about one endpoint: by interval, by signs, by tolerance. Other endpoints come in later."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from enginebench.decide.intervals import CODES, Interval, as_change, assess
from enginebench.decide.looks import ALPHA, level, penalty
from enginebench.decide.model import CrossCheck, Endpoint, Outcome, Verdict
from enginebench.decide.planning import pairs_needed

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Values:
    """An endpoint with the values of its pairs, arrays of one length, in the metric's unit."""

    endpoint: Endpoint
    old: Floats
    new: Floats

    @property
    def worse(self) -> Floats:
        """Log ratios, above zero where the new build is worse; infinite or nan where a value has no logarithm."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(sign(self.endpoint) * (np.log(self.new) - np.log(self.old)))

    @property
    def limit(self) -> float:
        """The margin as a logarithm."""
        return math.log1p(self.endpoint.margin)

    def verdict(self, outcome: Outcome, *reasons: str) -> Verdict:
        """A verdict with the typical values of both sides."""
        old, new = typical(self.old), typical(self.new)
        return Verdict(self.endpoint, outcome, pairs=len(self.old), old=old, new=new, reasons=reasons)


def sign(endpoint: Endpoint) -> int:
    """1 where larger is worse, -1 where larger is better."""
    return 1 if endpoint.better == "lower" else -1


def typical(values: Floats) -> float | None:
    """The geometric mean; None unless every value is positive and finite."""
    return float(np.exp(np.log(values).mean())) if len(values) and _usable(values) else None


def span_in_changes(endpoint: Endpoint, interval: Interval) -> tuple[float, float, float]:
    """Estimate and bounds of ``worse`` as changes of the metric: new/old − 1."""
    low, high = sorted(as_change(sign(endpoint) * float(each)) for each in (interval.low, interval.high))
    return as_change(sign(endpoint) * float(interval.estimate)), low, high


def by_pairs(values: Values, looks: Sequence[int], rivals: int = 1) -> Verdict:
    """Decide by what the pairs allow. ``rivals``: gated endpoints in all, for the number of pairs still needed."""
    pairs = len(values.old)
    if pairs == 0:
        return values.verdict("invalid", "No pair of blocks has a value on both sides.")
    if not (_usable(values.old) and _usable(values.new)):
        return by_signs(values, looks, rivals)
    if pairs < max(2, looks[0]):
        needed = max(2, looks[0]) - pairs
        verdict = values.verdict("inconclusive", f"Pairs: {pairs}; the first look is at {pairs + needed}.")
        return replace(verdict, change=as_change(np.mean(np.log(values.new / values.old))), pairs_needed=needed)
    return by_interval(values, looks, rivals)


def by_interval(values: Values, looks: Sequence[int], rivals: int = 1) -> Verdict:
    """Student's interval of the mean log ratio against the margin, with Hodges–Lehmann as the second opinion."""
    worse, limit = values.worse, values.limit
    found = assess(worse, limit, looks)
    outcome = CODES[int(found.settled(0.0, ALPHA))]
    change, low, high = span_in_changes(values.endpoint, found.interval)
    opinion = _cross_check(values.endpoint, found.cross_check, found.opinion)
    reasons = []
    if opinion and opinion.outcome != CODES[int(found.alone)]:
        alone = CODES[int(found.alone)]
        reasons.append(f"The t interval says {alone}, Hodges–Lehmann {opinion.outcome}: a close call, or uneven noise.")
    beyond = float(worse.mean()) > limit
    needed = pairs_needed(
        float(worse.mean()), float(worse.std(ddof=1)), limit, len(worse), level(looks) / (rivals if beyond else 1)
    )
    return replace(
        values.verdict(outcome, *reasons),
        change=change, low=low, high=high, confidence=found.interval.confidence, p_value=float(found.p_value),
        pairs_needed=needed, cross_check=opinion, method="paired t",
    )  # fmt: skip


def by_signs(values: Values, looks: Sequence[int], rivals: int = 1) -> Verdict:
    """How often each build is worse by more than the margin, where some values have no bound (or are zero).

    The sign test: as many or more pairs on one side by chance. It can never say "equivalent".
    """
    worse = values.worse
    worse = worse[~np.isnan(worse)]
    reason = f"{np.count_nonzero(~np.isfinite(values.worse))} of {len(values.old)} pairs have no bounded ratio."
    if not len(worse):
        return values.verdict("invalid", reason)
    p_value = _sign_p(int(np.sum(worse > values.limit)), len(worse)) * penalty(looks)
    p_better = _sign_p(int(np.sum(worse < -values.limit)), len(worse)) * penalty(looks)
    ready = len(worse) >= looks[0]
    outcome: Outcome = "inconclusive"
    if ready and min(p_value, p_better) <= ALPHA:
        outcome = "regression" if p_value < p_better else "improvement"
    needed = max(1, math.ceil(math.log2(penalty(looks) * rivals / ALPHA)) - len(worse))  # if all were on one side
    verdict = values.verdict(outcome, reason)
    return replace(verdict, p_value=min(1.0, p_value), pairs_needed=needed, method="sign test")


def by_tolerance(values: Values) -> Verdict:
    """The margin against the least and the greatest ratio of two loads: for numbers without noise, such as memory."""
    old, new, margin = values.old, values.new, 1 + values.endpoint.margin
    if not (len(old) and len(new) and _usable(old) and _usable(new)):
        return values.verdict("invalid", "A build has no value.")
    least, most = float(new.min() / old.max()), float(new.max() / old.min())
    lower_is_better = values.endpoint.better == "lower"
    outcome: Outcome = "inconclusive"
    if least > margin:
        outcome = "regression" if lower_is_better else "improvement"
    elif most * margin < 1:
        outcome = "improvement" if lower_is_better else "regression"
    elif least * margin >= 1 and most <= margin:
        outcome = "equivalent"
    reason = (
        f"From load to load it changes by {least - 1:+.2%} to {most - 1:+.2%}; the margin is {_percent(margin - 1)}."
    )
    verdict = values.verdict(outcome, *([reason] if outcome == "inconclusive" else []))
    middle = float(np.median(old)), float(np.median(new))
    change = as_change(math.log(middle[1] / middle[0]))
    return replace(verdict, change=change, old=middle[0], new=middle[1], method="exact tolerance")


def _cross_check(endpoint: Endpoint, interval: Interval | None, opinion: NDArray[np.int8] | None) -> CrossCheck | None:
    if interval is None or opinion is None:
        return None
    change, low, high = span_in_changes(endpoint, interval)
    return CrossCheck(change, low, high, interval.confidence, CODES[int(opinion)])


def _sign_p(count: int, pairs: int) -> float:
    """P(at least ``count`` of ``pairs`` tosses of a fair coin)."""
    return float(sum(math.comb(pairs, heads) for heads in range(count, pairs + 1)) / 2**pairs)


def _usable(values: Floats) -> bool:
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _percent(share: float) -> str:
    return f"{share * 100:.3g}%"
