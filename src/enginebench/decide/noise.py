"""Sessions of one build differ: how much, from A/A runs, and what two runs of different times can say beside it."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from enginebench.decide.intervals import CODES, as_change, between_sessions, classify, p_between_sessions
from enginebench.decide.looks import ALPHA
from enginebench.decide.methods import Values, sign, span_in_changes
from enginebench.decide.model import Endpoint, Noise, Variance, Verdict
from enginebench.decide.planning import POWER


def estimate_noise(sessions: Mapping[Endpoint, Sequence[Sequence[float]]]) -> Noise:
    """The noise of a host from its A/A runs.

    ``sessions``: for each endpoint, groups of sessions of one build each, a value a session. Sessions should lie as far
    apart as the runs that will be compared: the variance is theirs. Values that are no positive number are left out, as
    are endpoints without two sessions of one build. A metric's variance is that of its noisiest cell.
    """
    endpoints: dict[str, Variance] = {}
    by_metric: defaultdict[str, list[Variance]] = defaultdict(list)
    for endpoint, groups in sessions.items():
        found = _pooled(groups)
        if found:
            endpoints[endpoint.key] = found
            by_metric[endpoint.name].append(found)
    metrics = {name: max(each, key=lambda one: one.variance) for name, each in by_metric.items()}
    return Noise(endpoints, metrics)


def by_noise(values: Values, noise: Noise | None) -> Verdict:
    """Student's interval of the difference of two sessions whose variance is known from A/A sessions.

    However many blocks a run has, it is one session here: what differs between days does not average out within one.
    Without ``noise`` the change is told, and nothing is decided.
    """
    verdict = values.verdict("inconclusive")
    if not (len(values.old) and len(values.new)):
        return replace(verdict, outcome="invalid", reasons=("A build has no value.",))
    if verdict.old is None or verdict.new is None:
        return replace(verdict, reasons=("A block has no bounded value.",))
    verdict = replace(verdict, change=as_change(math.log(verdict.new / verdict.old)), method="unpaired")
    known = noise.of(values.endpoint) if noise else None
    if known is None:
        reason = "How much sessions of this host differ by chance is not known; measure it with enginebench noise."
        return replace(verdict, reasons=(reason,))
    return _against(values.limit, verdict, known)


def smallest_stored_effect(known: Variance, margin: float) -> float:
    """The smallest slowdown, a fraction, that a comparison of two stored runs finds four times out of five."""
    from scipy.special import stdtrit

    t = stdtrit(known.degrees, 1 - ALPHA) + stdtrit(known.degrees, POWER)
    return as_change(math.log1p(margin) + float(t) * math.sqrt(2 * known.variance))


def _against(limit: float, verdict: Verdict, known: Variance) -> Verdict:
    worse = np.array(sign(verdict.endpoint) * math.log1p(verdict.change or 0.0))
    variance = np.array(known.variance)
    interval = between_sessions(worse, variance, known.degrees, ALPHA)
    _, low, high = span_in_changes(verdict.endpoint, interval)
    return replace(
        verdict, outcome=CODES[int(classify(interval, limit))], low=low, high=high, confidence=interval.confidence,
        p_value=float(p_between_sessions(worse, variance, known.degrees, limit)),
        method=f"unpaired t, A/A noise of {known.degrees + 1} sessions",
    )  # fmt: skip


def _pooled(groups: Iterable[Sequence[float]]) -> Variance | None:
    """The variance within groups, of logarithms; None without spread, or without two sessions of one build."""
    logs = [np.log([value for value in group if 0 < value < math.inf]) for group in groups]
    usable = [each for each in logs if len(each) > 1]
    degrees = sum(len(each) - 1 for each in usable)
    squares = sum(float(np.sum((each - each.mean()) ** 2)) for each in usable)
    return Variance(squares / degrees, degrees) if squares > 0 else None
