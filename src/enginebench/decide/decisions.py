"""Verdicts over the endpoints of two builds: from pairs of blocks measured in turns, or from two stored runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from enginebench.decide.failures import TOLERANCE, failures_of, weighed
from enginebench.decide.looks import ALPHA, LOOKS
from enginebench.decide.methods import Values, by_pairs, by_tolerance
from enginebench.decide.model import Endpoint, Noise, Sample, Samples, Verdict
from enginebench.decide.noise import by_noise
from enginebench.decide.several import benjamini_hochberg, holm
from enginebench.errors import RunError

MOST_GATED = 4
"""Endpoints that may decide; the looks were chosen for so many."""


def decide_pairs(samples: Mapping[Endpoint, Samples], looks: Sequence[int] = LOOKS) -> tuple[Verdict, ...]:
    """Decide every endpoint from interleaved blocks, in the order of ``samples``.

    ``looks``: the numbers of pairs at which the whole measurement may be decided (``looks_within``), past and to come.

    Raises:
        RunError: more than four endpoints are gated, or a pair has two blocks of one build.
    """
    rivals = _count_gated(samples)
    return _corrected([_from_pairs(endpoint, each, looks, rivals) for endpoint, each in samples.items()])


def decide_stored(samples: Mapping[Endpoint, Samples], noise: Noise | None = None) -> tuple[Verdict, ...]:
    """Decide every endpoint from two runs made at different times, in the order of ``samples``.

    Only ``noise`` tells how much such runs differ without a reason: without it every endpoint is inconclusive.

    Raises:
        RunError: more than four endpoints are gated.
    """
    _count_gated(samples)
    return _corrected([_from_stored(endpoint, each, noise) for endpoint, each in samples.items()])


def _count_gated(samples: Mapping[Endpoint, Samples]) -> int:
    gated = [endpoint.key for endpoint in samples if endpoint.kind == "gated" and not endpoint.exact]
    if len(gated) > MOST_GATED:
        raise RunError(f"{len(gated)} endpoints are gated ({', '.join(gated)}): choose {MOST_GATED} at most.")
    return max(1, len(gated))


def _from_pairs(endpoint: Endpoint, samples: Samples, looks: Sequence[int], rivals: int) -> Verdict:
    if endpoint.exact:
        return by_tolerance(Values(endpoint, _values(samples.old), _values(samples.new)))
    both = _matched(endpoint, samples)
    known = [(old, new) for old, new in both if old.value is not None and new.value is not None]
    old, new = [one for one, _ in known], [two for _, two in known]
    verdict = by_pairs(Values(endpoint, _values(old), _values(new)), looks, rivals if endpoint.kind == "gated" else 1)
    if len(known) < len(both):
        left_out = f"{len(both) - len(known)} of {len(both)} pairs are left out: a side has no value."
        verdict = replace(verdict, reasons=(*verdict.reasons, left_out))
    return weighed(verdict, failures_of([one for one, _ in both], [two for _, two in both], looks))


def _matched(endpoint: Endpoint, samples: Samples) -> list[tuple[Sample, Sample]]:
    """Blocks of the same pair, by its number; a block whose partner is missing is not there."""
    old, new = (_by_pair(endpoint, side) for side in (samples.old, samples.new))
    return [(old[pair], new[pair]) for pair in sorted(old.keys() & new.keys())]


def _by_pair(endpoint: Endpoint, side: Sequence[Sample]) -> dict[int, Sample]:
    by_pair: dict[int, Sample] = {}
    for sample in side:
        if sample.pair in by_pair:
            raise RunError(f"{endpoint.key}: pair {sample.pair} has two blocks of one build; leave one of them out.")
        if sample.pair is not None:
            by_pair[sample.pair] = sample
    return by_pair


def _values(side: Sequence[Sample]) -> NDArray[np.float64]:
    return np.array([sample.value for sample in side if sample.value is not None], dtype=np.float64)


def _from_stored(endpoint: Endpoint, samples: Samples, noise: Noise | None) -> Verdict:
    values = Values(endpoint, _values(samples.old), _values(samples.new))
    if endpoint.exact:
        return by_tolerance(values)
    failures = failures_of(samples.old, samples.new)
    verdict = replace(by_noise(values, noise), pairs=0)
    if failures.excess > TOLERANCE and verdict.outcome in ("improvement", "equivalent"):
        verdict = replace(verdict, outcome="inconclusive")
    return replace(verdict, reasons=(*verdict.reasons, failures.sentence)) if failures.any else verdict


def _corrected(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """With q-values; a regression that does not survive all that was tested is none."""
    adjusted: dict[int, float] = {}
    for kind, correct in (("gated", holm), ("watch", benjamini_hochberg)):
        places = [at for at, each in enumerate(verdicts) if each.endpoint.kind == kind and not each.endpoint.exact]
        p_values = [verdicts[at].p_value for at in places]
        q_values = correct(np.array([1.0 if p is None else p for p in p_values]))
        adjusted |= {at: float(q) for at, p, q in zip(places, p_values, q_values, strict=True) if p is not None}
    return tuple(_final(each, adjusted.get(at)) for at, each in enumerate(verdicts))


def _final(verdict: Verdict, q_value: float | None) -> Verdict:
    verdict = replace(verdict, q_value=q_value)
    if verdict.outcome == "regression" and q_value is not None and q_value > ALPHA:
        others = "Holm" if verdict.endpoint.kind == "gated" else "Benjamini–Hochberg"
        reason = f"Worse by itself, but beside all that was tested it may be chance (q = {q_value:.3f}, {others})."
        verdict = replace(verdict, outcome="inconclusive", reasons=(*verdict.reasons, reason))
    return replace(verdict, pairs_needed=None) if verdict.decided else verdict
