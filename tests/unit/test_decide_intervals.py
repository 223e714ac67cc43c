"""Intervals, p-values and corrections against references, brute force and their own symmetries."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from enginebench.decide.intervals import (
    CODES,
    EQUIVALENT,
    IMPROVEMENT,
    INCONCLUSIVE,
    REGRESSION,
    Floats,
    Interval,
    assess,
    classify,
    hodges_lehmann,
    p_beyond,
    signed_rank_tail,
    student,
)
from enginebench.decide.looks import ALPHA, LOOKS, PENALTIES, level, looks_within, penalty
from enginebench.decide.several import benjamini_hochberg, holm

RATIOS = arrays(np.float64, st.integers(4, 12), elements=st.floats(-0.5, 0.5).map(lambda value: round(value, 6)))
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_students_interval_is_that_of_scipy() -> None:
    worse = np.array([0.01, 0.03, -0.02, 0.05, 0.04])
    ours, theirs = student(worse, 0.05), stats.ttest_1samp(worse, 0).confidence_interval(0.9)
    assert (float(ours.low), float(ours.high)) == pytest.approx((theirs.low, theirs.high))
    assert ours.confidence == 0.9


def test_the_p_value_is_that_of_scipy() -> None:
    worse = np.array([[0.01, 0.03, -0.02, 0.05], [0.1, 0.12, 0.09, 0.11]])
    expected = stats.ttest_1samp(worse, 0.02, axis=-1, alternative="greater").pvalue
    np.testing.assert_allclose(p_beyond(worse, 0.02), expected)


@pytest.mark.parametrize(("value", "p_value"), [(0.1, 0.0), (0.02, 0.5), (0.0, 1.0)])
def test_pairs_without_spread_are_certain(value: float, p_value: float) -> None:
    assert float(p_beyond(np.full(4, value), 0.02)) == p_value


@pytest.mark.parametrize("pairs", [1, 4, 8, 11])
def test_the_signed_rank_distribution_is_that_of_all_signs(pairs: int) -> None:
    sums = [sum(itertools.compress(range(1, pairs + 1), signs)) for signs in itertools.product((0, 1), repeat=pairs)]
    counts = np.bincount(sums, minlength=pairs * (pairs + 1) // 2 + 1)
    np.testing.assert_allclose(signed_rank_tail(pairs), np.cumsum(counts) / 2**pairs)


@settings(max_examples=40)
@given(RATIOS)
def test_hodges_lehmann_is_that_of_brute_force(worse: Floats) -> None:
    found = hodges_lehmann(worse, 0.05)
    pairs = len(worse)
    if 2.0**-pairs > 0.05:
        assert found is None
        return
    assert found is not None
    averages = sorted((worse[i] + worse[j]) / 2 for i in range(pairs) for j in range(i, pairs))
    assert float(found.estimate) == pytest.approx(float(np.median(averages)))
    signs = np.array(list(itertools.product((0, 1), repeat=pairs)))
    sums = signs @ np.arange(1, pairs + 1)
    depth = max(t for t in range(len(averages)) if np.mean(sums <= t) <= 0.05) + 1
    assert (float(found.low), float(found.high)) == (averages[depth - 1], averages[-depth])
    assert found.confidence == pytest.approx(1 - 2 * np.mean(sums <= depth - 1))


def test_hodges_lehmann_contains_exactly_what_wilcoxon_does_not_reject() -> None:
    worse = np.random.default_rng(3).normal(0.02, 0.03, 10)
    found = hodges_lehmann(worse, 0.0147)
    assert found is not None
    for shift in np.linspace(-0.1, 0.1, 401):
        p_value = stats.wilcoxon(worse - shift, alternative="greater", method="exact").pvalue
        assert (p_value <= 0.0147) == (shift < float(found.low))


def test_thousands_are_judged_as_one_by_one() -> None:
    worse = np.random.default_rng(1).normal(0.03, 0.03, (50, 3, 8))
    together = assess(worse, 0.0488, LOOKS)
    for place in np.ndindex(50, 3):
        alone = assess(worse[place], 0.0488, LOOKS)
        assert alone.alone == together.alone[place]
        assert float(alone.p_value) == pytest.approx(float(together.p_value[place]))
        assert alone.settled(0.0, ALPHA) == together.settled(0.0, ALPHA)[place]


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (0.06, 0.2, REGRESSION),
        (-0.2, -0.06, IMPROVEMENT),
        (-0.04, 0.04, EQUIVALENT),
        (0.04, 0.2, INCONCLUSIVE),
        (-0.2, 0.2, INCONCLUSIVE),
        (0.05, 0.2, INCONCLUSIVE),  # at the limit is not beyond it
        (-0.05, 0.0, INCONCLUSIVE),
    ],
)
def test_an_interval_is_beyond_inside_or_neither(low: float, high: float, code: int) -> None:
    interval = Interval(np.array(0.0), np.array(low), np.array(high), 0.9)
    assert int(classify(interval, 0.05)) == code


@settings(max_examples=40)
@given(RATIOS, st.floats(0.001, 0.2))
def test_a_regression_is_the_same_as_a_small_p(worse: Floats, limit: float) -> None:
    found = assess(worse, limit, LOOKS)
    p_value = float(found.p_value)
    if abs(p_value - ALPHA) > 1e-9:
        assert (CODES[int(found.alone)] == "regression") == (p_value < ALPHA)


@pytest.mark.parametrize(
    ("worse", "alone", "opinion"),
    [
        # A pair far off widens the t interval, and hardly moves the other.
        ([0.10, 0.11, 0.09, 0.10, 0.11, 0.10, 0.09, 0.9], INCONCLUSIVE, REGRESSION),
        # A close call: the lowest Walsh averages lie below the limit of 0.0488.
        ([0.04, 0.1, 0.06, 0.04, 0.08, 0.1, 0.13, 0.1], REGRESSION, INCONCLUSIVE),
    ],
)
def test_a_second_opinion_can_only_withhold(worse: list[float], alone: int, opinion: int) -> None:
    found = assess(np.array(worse), np.log(1.05), LOOKS)
    assert found.opinion is not None
    assert (int(found.alone), int(found.opinion)) == (alone, opinion)
    assert int(found.settled(0.0, ALPHA)) == INCONCLUSIVE


@settings(max_examples=40)
@given(P_VALUES)
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    """A hypothesis goes when every set that holds it has a p below level / size of the set."""
    found = holm(np.array(p_values))
    places = range(len(p_values))
    sets = [each for size in range(1, len(p_values) + 1) for each in itertools.combinations(places, size)]
    for at in places:
        worst = max(min(1.0, len(each) * min(p_values[place] for place in each)) for each in sets if at in each)
        assert float(found[at]) == pytest.approx(worst)


def test_holm_of_a_known_example() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@settings(max_examples=40)
@given(P_VALUES)
def test_benjamini_hochberg_is_that_of_scipy(p_values: list[float]) -> None:
    np.testing.assert_allclose(benjamini_hochberg(np.array(p_values)), stats.false_discovery_control(p_values))


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 1)))
def test_corrections_work_row_by_row(p_values: Floats) -> None:
    for correct in (holm, benjamini_hochberg):
        np.testing.assert_array_equal(correct(p_values), np.array([correct(row) for row in p_values]))


def test_looks_end_with_the_budget() -> None:
    assert looks_within(20) == LOOKS
    assert looks_within(10) == (4, 8, 10)
    assert looks_within(3) == (3,)
    assert looks_within(40) == (4, 8, 12, 20, 40)


def test_more_looks_cost_more_and_never_more_than_bonferroni_asks() -> None:
    costs = [penalty(range(count)) for count in range(1, 8)]
    assert costs == sorted(costs)
    assert all(cost <= count for count, cost in enumerate(costs, start=1))
    assert level(LOOKS) == pytest.approx(ALPHA / PENALTIES[len(LOOKS) - 1])


def test_the_penalties_are_those_of_many_normal_samples() -> None:
    """The chance that any look falls below the level that Holm asks of the smallest of four stays below that level."""
    samples = np.random.default_rng(7).standard_normal((100_000, LOOKS[-1]))
    for count, cost in enumerate(PENALTIES, start=1):
        smallest = np.min([p_beyond(samples[:, :look], 0.0) for look in LOOKS[:count]], axis=0)
        for alpha in (ALPHA, ALPHA / 4):
            share = float(np.mean(smallest * cost <= alpha))
            assert share <= alpha + 3 * math.sqrt(alpha / len(samples))
            assert share >= 0.8 * alpha  # and not far below it: power is not given away
