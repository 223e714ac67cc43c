"""Failed requests: a build that answers fewer requests is worse, whatever the latency of the others.

The rule. Per pair of blocks, the share of failed requests of the old build is taken from that of the new one. When
the mean of these differences is above TOLERANCE beyond chance (Student, one-sided, at the level of the looks), the
endpoint is a regression, whatever its numbers. When it is above TOLERANCE at all, the endpoint can be neither an
improvement nor equivalent. The block is the unit here, too: a crash that takes all requests of one block is one event.
Where anything failed, the endpoint has two ways to be a regression, and each p-value counts double (Bonferroni).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from enginebench.decide.intervals import p_beyond
from enginebench.decide.looks import ALPHA, penalty
from enginebench.decide.model import Sample, Verdict

TOLERANCE = 0.001
"""By how much, as a share of requests, the failures of two builds may differ without a word."""


@dataclass(frozen=True, slots=True)
class Failures:
    """Requests and failures of both builds, and p of "the new build fails more", after the looks."""

    old_failed: int
    old_requests: int
    new_failed: int
    new_requests: int
    p_value: float = 1.0

    @property
    def any(self) -> bool:
        """Whether a request failed at all."""
        return self.old_failed + self.new_failed > 0

    @property
    def excess(self) -> float:
        """By how much the share of failures of the new build is higher."""
        return _share(self.new_failed, self.new_requests) - _share(self.old_failed, self.old_requests)

    @property
    def sentence(self) -> str:
        """Both counts."""
        return (
            f"The new build failed {self.new_failed} of {self.new_requests} requests, "
            f"the old one {self.old_failed} of {self.old_requests}."
        )


def failures_of(old: Sequence[Sample], new: Sequence[Sample], looks: Sequence[int] | None = None) -> Failures:
    """Count what failed. With ``looks`` the samples are pairs in the same order, and p is worked out."""
    counts = [sum(part) for part in zip(*((each.failed, each.requests) for each in old), strict=True)] or [0, 0]
    others = [sum(part) for part in zip(*((each.failed, each.requests) for each in new), strict=True)] or [0, 0]
    found = Failures(counts[0], counts[1], others[0], others[1])
    if looks is None or len(old) < max(2, looks[0]) or not found.any:
        return found
    shares = [
        _share(two.failed, two.requests) - _share(one.failed, one.requests) for one, two in zip(old, new, strict=True)
    ]
    p_value = float(p_beyond(np.array(shares), TOLERANCE)) * penalty(looks)
    return replace(found, p_value=min(1.0, p_value))


def weighed(verdict: Verdict, failures: Failures) -> Verdict:
    """A verdict of the numbers alone, after the rule."""
    if not failures.any:
        return verdict
    p_numbers = 1.0 if verdict.p_value is None else verdict.p_value
    p_value = min(1.0, 2 * min(p_numbers, failures.p_value))
    verdict = replace(verdict, reasons=(*verdict.reasons, failures.sentence))
    if verdict.p_value is not None:
        verdict = replace(verdict, p_value=p_value)
    if 2 * failures.p_value <= ALPHA:
        return replace(verdict, outcome="regression", change=None, low=None, high=None, confidence=None,
                       p_value=p_value, cross_check=None, method="failed requests")  # fmt: skip
    flattering = verdict.outcome in ("improvement", "equivalent") and failures.excess > TOLERANCE
    return replace(verdict, outcome="inconclusive") if flattering else verdict


def _share(failed: int, requests: int) -> float:
    return failed / requests if requests else 0.0
