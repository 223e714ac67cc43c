"""Verdicts: outcomes, symmetries, failed requests, memory, several endpoints, stored runs, the gate's exit codes."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.decide.decisions import decide_pairs, decide_stored
from enginebench.decide.gate import gate
from enginebench.decide.intervals import CODES, REGRESSION
from enginebench.decide.looks import LOOKS, looks_within
from enginebench.decide.model import (
    Endpoint,
    GateResult,
    Noise,
    Problem,
    Sample,
    Samples,
    Variance,
    Verdict,
)
from enginebench.decide.noise import estimate_noise, smallest_stored_effect
from enginebench.decide.planning import pairs_needed, smallest_effect
from enginebench.decide.simulation import decide_many
from enginebench.errors import RunError

TPOT = Endpoint("novel-direct-stream-out0128-bs008", "tpot", "p50", 0.05, "lower", "gated")
RATE = Endpoint("novel-direct-stream-out0128-bs008", "output_tokens_per_s", "value", 0.05, "higher", "gated")
MEMORY = Endpoint("direct", "gpu_memory", "value", 0.02, "lower", "gated", exact=True)

RATIOS = st.lists(st.floats(-0.4, 0.4).map(lambda value: round(value, 5)), min_size=2, max_size=14)


def samples(old: Sequence[float | None], new: Sequence[float | None], failed: tuple[int, int] = (0, 0)) -> Samples:
    """A pair a value; every block failed as many of 100 requests."""
    sides = (
        tuple(Sample(2 * pair + place, pair, value, failed[place], 100) for pair, value in enumerate(values))
        for place, values in enumerate((old, new))
    )
    return Samples(*sides)


def from_ratios(ratios: Sequence[float], scale: float = 0.012) -> Samples:
    """Values whose log ratios new/old are ``ratios``."""
    old = [scale * (1 + 0.01 * pair) for pair in range(len(ratios))]
    return samples(old, [value * math.exp(ratio) for value, ratio in zip(old, ratios, strict=True)])


def one(endpoint: Endpoint, blocks: Samples, looks: Sequence[int] = LOOKS) -> Verdict:
    (verdict,) = decide_pairs({endpoint: blocks}, looks)
    return verdict


def noisy(mean: float, pairs: int, sd: float = 0.02, seed: int = 1) -> Samples:
    return from_ratios(list(np.random.default_rng(seed).normal(mean, sd, pairs)))


def test_twenty_percent_slower_is_found_at_the_first_look() -> None:
    verdict = one(TPOT, noisy(math.log(1.2), 4))
    assert verdict.outcome == "regression"
    assert verdict.low is not None
    assert verdict.low > 0.05
    assert verdict.change == pytest.approx(0.2, abs=0.03)
    assert (verdict.method, verdict.pairs, verdict.pairs_needed) == ("paired t", 4, None)


def test_direction_comes_from_the_metric() -> None:
    slower, faster = noisy(math.log(1.2), 8), noisy(-math.log(1.2), 8)
    assert one(RATE, slower).outcome == "improvement"
    assert one(RATE, faster).outcome == "regression"
    assert one(TPOT, faster).outcome == "improvement"


def test_no_change_is_equivalent() -> None:
    assert one(TPOT, noisy(0.0, 8)).outcome == "equivalent"


def test_what_is_neither_says_how_many_pairs_it_needs() -> None:
    verdict = one(TPOT, noisy(math.log(1.08), 4))
    assert verdict.outcome == "inconclusive"
    assert verdict.pairs_needed is not None
    more = one(TPOT, noisy(math.log(1.08), 4 + 2 * verdict.pairs_needed, seed=2), looks_within(40))
    assert more.outcome == "regression"


@pytest.mark.parametrize("pairs", [0, 1, 3])
def test_too_few_pairs_decide_nothing(pairs: int) -> None:
    verdict = one(TPOT, from_ratios([0.3] * pairs))
    assert verdict.outcome == ("inconclusive" if pairs else "invalid")
    assert verdict.low is None
    assert verdict.pairs_needed == (4 - pairs if pairs else None)


@settings(max_examples=40)
@given(RATIOS)
def test_swapping_the_builds_mirrors_the_verdict(ratios: list[float]) -> None:
    blocks = from_ratios(ratios)
    forth, back = one(TPOT, blocks), one(TPOT, Samples(blocks.new, blocks.old))
    mirrored = {"regression": "improvement", "improvement": "regression"}
    assert back.outcome == mirrored.get(forth.outcome, forth.outcome)
    if forth.low is not None and forth.high is not None and back.low is not None and back.high is not None:
        assert (1 + back.low) * (1 + forth.high) == pytest.approx(1)
        assert (1 + back.high) * (1 + forth.low) == pytest.approx(1)


@settings(max_examples=40)
@given(RATIOS)
def test_rates_and_times_tell_the_same(ratios: list[float]) -> None:
    """Half the tokens per second are twice the time per token."""
    time, rate = one(TPOT, from_ratios(ratios)), one(RATE, from_ratios([-ratio for ratio in ratios]))
    assert time.outcome == rate.outcome
    assert time.p_value == (None if rate.p_value is None else pytest.approx(rate.p_value))


@settings(max_examples=40)
@given(RATIOS, st.sampled_from([1e-6, 1.0, 1e6]))
def test_units_do_not_matter(ratios: list[float], scale: float) -> None:
    here, there = one(TPOT, from_ratios(ratios)), one(TPOT, from_ratios(ratios, scale))
    assert here.outcome == there.outcome
    assert here.low == (None if there.low is None else pytest.approx(there.low, abs=1e-9))


@settings(max_examples=40)
@given(RATIOS, st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_matter(ratios: list[float], rng: random.Random) -> None:
    blocks = from_ratios(ratios)
    old, new = list(blocks.old), list(blocks.new)
    rng.shuffle(old)
    rng.shuffle(new)
    assert one(TPOT, Samples(tuple(old), tuple(new))) == one(TPOT, blocks)


@settings(max_examples=40)
@given(RATIOS)
def test_a_regression_lies_wholly_beyond_the_margin_and_an_equivalent_inside(ratios: list[float]) -> None:
    verdict = one(TPOT, from_ratios(ratios))
    if verdict.outcome == "regression":
        assert verdict.low is not None
        assert verdict.low > TPOT.margin
    if verdict.outcome == "equivalent":
        assert verdict.high is not None
        assert verdict.high < TPOT.margin


@settings(max_examples=40)
@given(RATIOS, st.floats(0, 0.3))
def test_a_slower_build_never_comes_out_better(ratios: list[float], slower: float) -> None:
    rank = ["improvement", "equivalent", "inconclusive", "regression"]
    before, after = one(TPOT, from_ratios(ratios)), one(TPOT, from_ratios([ratio + slower for ratio in ratios]))
    if before.outcome == "regression":
        assert after.outcome == "regression"
    if after.outcome == "improvement":
        assert before.outcome == "improvement"
    if before.p_value is not None and after.p_value is not None:
        assert after.p_value <= before.p_value + 1e-9
    assert set(rank) >= {before.outcome, after.outcome}


@settings(max_examples=40)
@given(RATIOS, st.floats(0.01, 0.2))
def test_a_wider_margin_never_makes_a_regression(ratios: list[float], wider: float) -> None:
    lenient = replace(TPOT, margin=TPOT.margin + wider)
    if one(lenient, from_ratios(ratios)).outcome == "regression":
        assert one(TPOT, from_ratios(ratios)).outcome == "regression"


def test_failures_beside_better_numbers_are_no_improvement() -> None:
    values = from_ratios([-0.3, -0.31, -0.29, -0.3])
    failing = samples([each.value for each in values.old], [each.value for each in values.new], failed=(0, 10))
    verdict = one(TPOT, failing)
    assert verdict.outcome == "regression"
    assert verdict.method == "failed requests"
    assert (verdict.change, verdict.low) == (None, None)
    assert "The new build failed 40 of 400 requests, the old one 0 of 400." in verdict.reasons


def test_one_block_with_failures_is_one_event() -> None:
    """Not a regression by itself, and neither an improvement nor equivalent any more."""
    for ratio in (-0.3, 0.0):
        blocks = from_ratios([ratio, ratio + 0.01, ratio - 0.01, ratio])
        broken = replace(blocks.new[2], failed=100)
        verdict = one(TPOT, Samples(blocks.old, (*blocks.new[:2], broken, blocks.new[3])))
        assert verdict.outcome == "inconclusive"


def test_failures_of_the_old_build_do_not_hide_a_slower_new_one() -> None:
    blocks = from_ratios([0.3, 0.31, 0.29, 0.3])
    failing = tuple(replace(each, failed=10) for each in blocks.old)
    assert one(TPOT, Samples(failing, blocks.new)).outcome == "regression"


def test_as_many_failures_on_both_sides_change_nothing() -> None:
    values = from_ratios([0.0, 0.01, -0.01, 0.0, 0.01, 0.0, -0.01, 0.0])
    same = samples([each.value for each in values.old], [each.value for each in values.new], failed=(3, 3))
    assert one(TPOT, same).outcome == "equivalent"


def test_where_anything_failed_a_regression_has_to_be_twice_as_clear() -> None:
    values = from_ratios([0.10, 0.15, 0.09, 0.12])
    old, new = ([each.value for each in side] for side in (values.old, values.new))
    clean, failing = one(TPOT, values), one(TPOT, samples(old, new, failed=(1, 1)))
    assert clean.outcome == "regression"
    assert clean.p_value is not None
    assert failing.outcome == "inconclusive"
    assert failing.p_value == pytest.approx(2 * clean.p_value)


def test_a_percentile_without_bound_is_worse_by_the_sign_test() -> None:
    def unbounded(pairs: int) -> Verdict:
        return one(TPOT, samples([0.012] * pairs, [math.inf] * pairs))

    assert unbounded(4).outcome == "inconclusive"  # a coin shows four times the same side once in sixteen
    assert unbounded(4).pairs_needed == 3
    assert unbounded(8).outcome == "regression"
    assert (unbounded(8).method, unbounded(8).change, unbounded(8).new) == ("sign test", None, None)
    assert one(TPOT, samples([math.inf] * 8, [0.012] * 8)).outcome == "improvement"
    assert one(TPOT, samples([math.inf] * 8, [math.inf] * 8)).outcome == "invalid"
    assert one(RATE, samples([5.0] * 8, [0.0] * 8)).outcome == "regression"


def test_some_pairs_without_bound_do_not_count_as_none() -> None:
    new = [0.0122, math.inf, 0.0119, 0.0121, math.inf, 0.012, 0.0118, 0.012]
    assert one(TPOT, samples([0.012] * 8, new)).outcome == "inconclusive"


def test_pairs_without_a_value_are_left_out_and_said() -> None:
    blocks = noisy(math.log(1.2), 9)
    holes = tuple(replace(each, value=None) if each.pair == 3 else each for each in blocks.new)
    verdict = one(TPOT, Samples(blocks.old, holes))
    assert (verdict.outcome, verdict.pairs) == ("regression", 8)
    assert "1 of 9 pairs are left out: a side has no value." in verdict.reasons


def test_a_block_without_its_partner_is_not_there() -> None:
    blocks = noisy(math.log(1.2), 8)
    assert one(TPOT, Samples(blocks.old, blocks.new[:-1])).pairs == 7


def test_a_pair_with_two_blocks_of_one_build_is_refused() -> None:
    blocks = noisy(0.0, 4)
    with pytest.raises(RunError, match="pair 0 has two blocks of one build"):
        one(TPOT, Samples((*blocks.old, blocks.old[0]), blocks.new))


@pytest.mark.parametrize(
    ("new", "outcome"),
    [(102.0, "equivalent"), (102.1, "regression"), (99.0, "equivalent"), (97.0, "improvement")],
)
def test_memory_is_held_to_its_tolerance(new: float, outcome: str) -> None:
    verdict = one(MEMORY, samples([100.0], [new]))
    assert (verdict.outcome, verdict.method, verdict.p_value) == (outcome, "exact tolerance", None)


def test_memory_that_changes_from_load_to_load_is_inconclusive() -> None:
    assert one(MEMORY, samples([100.0, 104.0], [101.0, 105.0])).outcome == "inconclusive"
    assert one(MEMORY, samples([100.0, 101.0], [101.0, 102.0])).outcome == "equivalent"
    assert one(MEMORY, samples([100.0, 104.0], [110.0, 112.0])).outcome == "regression"
    assert one(replace(MEMORY, better="higher"), samples([100.0, 104.0], [110.0, 112.0])).outcome == "improvement"
    assert one(MEMORY, samples([], [110.0])).outcome == "invalid"


def test_one_of_four_has_to_stand_against_the_others() -> None:
    """Slower by itself beyond doubt at the level of one endpoint, and not at that of four."""
    ratios = [0.10, 0.14, 0.09, 0.12]
    quiet = from_ratios([0.0, 0.004, -0.004, 0.0])
    others = {replace(TPOT, metric=name): quiet for name in ("ttft", "itl", "e2e_latency")}
    assert one(TPOT, from_ratios(ratios)).outcome == "regression"
    verdict, *rest = decide_pairs({TPOT: from_ratios(ratios), **others})
    assert verdict.outcome == "inconclusive"
    assert verdict.p_value is not None
    assert verdict.q_value == pytest.approx(4 * verdict.p_value)
    assert "Holm" in verdict.reasons[-1]
    assert verdict.pairs_needed
    assert {each.outcome for each in rest} == {"equivalent"}


def test_watched_endpoints_are_corrected_among_themselves() -> None:
    watched = {replace(TPOT, cell_id=f"cell-{number}", kind="watch"): noisy(0.0, 8) for number in range(30)}
    slow, slower = replace(TPOT, metric="itl", kind="watch"), replace(RATE, kind="watch")
    gated, *others = decide_pairs({TPOT: noisy(0.25, 8), **watched, slow: noisy(0.15, 8), slower: noisy(-0.3, 8)})
    assert gated.q_value == gated.p_value
    assert [each.outcome for each in others] == ["equivalent"] * 30 + ["regression"] * 2
    first, second = others[-2:]
    assert first.p_value
    assert second.p_value
    assert second.q_value == pytest.approx(32 * second.p_value)
    assert first.q_value == pytest.approx(32 / 2 * first.p_value)


def test_real_measurements_are_decided_as_the_simulated_ones() -> None:
    worse = np.random.default_rng(5).normal([[[0.0], [0.06], [0.12]]], 0.04, (60, 3, 12))
    codes, ended = decide_many(worse, math.log1p(0.05), (4, 8, 12))
    endpoints = [replace(TPOT, cell_id=f"cell-{number}") for number in range(3)]
    for row, expected, pairs in zip(worse, codes, ended, strict=True):
        blocks = {each: from_ratios(list(ratios[:pairs])) for each, ratios in zip(endpoints, row, strict=True)}
        assert [each.outcome for each in decide_pairs(blocks, (4, 8, 12))] == [CODES[code] for code in expected]
    assert len(set(codes.ravel())) == 3


def test_no_more_than_four_may_decide() -> None:
    five = {replace(TPOT, cell_id=f"cell-{number}"): noisy(0.0, 4) for number in range(5)}
    for decide in (decide_pairs, decide_stored):
        with pytest.raises(RunError, match="5 endpoints are gated"):
            decide(five)


def test_a_verdict_is_plain_json() -> None:
    for verdict in (one(TPOT, noisy(0.1, 8)), one(TPOT, samples([0.01] * 8, [math.inf] * 8)), one(TPOT, noisy(0.1, 1))):
        data = json.loads(json.dumps(verdict.as_json(), allow_nan=False))
        assert (data["name"], data["endpoint"]["metric"]) == ("tpot_p50", "tpot")


NOISE = Noise({TPOT.key: Variance(0.01**2, 7)}, {"output_tokens_per_s": Variance(0.02**2, 5)})


def stored(endpoint: Endpoint, new: float, noise: Noise | None = NOISE) -> Verdict:
    blocks = Samples((Sample(0, None, 1.0, 0, 100),), (Sample(0, None, new, 0, 100),))
    (verdict,) = decide_stored({endpoint: blocks}, noise)
    return verdict


def test_stored_runs_without_noise_decide_nothing() -> None:
    verdict = stored(TPOT, 3.0, None)
    assert (verdict.outcome, verdict.low) == ("inconclusive", None)
    assert verdict.change == pytest.approx(2.0)
    assert "enginebench noise" in verdict.reasons[0]


def test_stored_runs_decide_by_the_noise_of_the_host() -> None:
    assert stored(TPOT, 1.2).outcome == "regression"
    assert stored(TPOT, 1.06).outcome == "inconclusive"
    assert stored(TPOT, 1.0).outcome == "equivalent"
    assert stored(TPOT, 0.8).outcome == "improvement"
    assert stored(RATE, 0.8).outcome == "regression"  # by the variance of the metric, since the cell has none
    half = 1.8945786 * math.sqrt(2) * 0.01  # t of 95 % with 7 degrees of freedom
    assert stored(TPOT, 1.2).low == pytest.approx(1.2 * math.exp(-half) - 1)


def test_blocks_of_a_stored_run_are_one_session() -> None:
    many = tuple(Sample(block, None, 1.0, 0, 100) for block in range(20))
    (verdict,) = decide_stored({TPOT: Samples(many, many)}, NOISE)
    assert (verdict.low, verdict.high) == (stored(TPOT, 1.0).low, stored(TPOT, 1.0).high)


def test_failures_of_a_stored_run_flatter_nobody() -> None:
    blocks = Samples((Sample(0, None, 1.0, 0, 100),), (Sample(0, None, 0.5, 5, 100),))
    (verdict,) = decide_stored({TPOT: blocks}, NOISE)
    assert verdict.outcome == "inconclusive"


def test_a_stored_run_without_a_value_is_invalid() -> None:
    (verdict,) = decide_stored({TPOT: Samples((Sample(0, None, 1.0),), ())}, NOISE)
    assert verdict.outcome == "invalid"
    (verdict,) = decide_stored({TPOT: Samples((Sample(0, None, 1.0),), (Sample(0, None, math.inf),))}, NOISE)
    assert verdict.outcome == "inconclusive"


def test_noise_is_the_variance_within_builds() -> None:
    """A build that is ten times slower adds nothing to it."""
    rng = np.random.default_rng(2)
    fast, slow = np.exp(rng.normal(0, 0.03, 200)), 10 * np.exp(rng.normal(0, 0.03, 200))
    noise = estimate_noise({TPOT: [list(fast), list(slow)], RATE: [[1.0], [math.inf, 2.0]]})
    found = noise.of(TPOT)
    assert found is not None
    assert found.degrees == 398
    assert math.sqrt(found.variance) == pytest.approx(0.03, rel=0.1)
    assert noise.of(replace(TPOT, cell_id="another")) == found
    assert noise.of(RATE) is None


def test_the_smallest_effect_is_found_four_times_out_of_five() -> None:
    rng = np.random.default_rng(4)
    for pairs in (3, 4, 8, 20):
        draws = rng.normal(math.log1p(smallest_effect(pairs, 0.04, 0.05)), 0.04, (4000, 1, pairs))
        codes, _ = decide_many(draws, math.log1p(0.05), looks_within(pairs))
        assert 0.76 < np.mean(codes == REGRESSION) < 0.87
    assert smallest_effect(1, 0.02, 0.05) == math.inf
    assert smallest_effect(8, 0.02, 0.05) < smallest_effect(4, 0.02, 0.05)
    assert smallest_effect(8, 0.02, 0.05) < smallest_effect(8, 0.02, 0.05, endpoints=4)
    assert smallest_stored_effect(Variance(0.01**2, 7), 0.05) == pytest.approx(0.093, abs=0.01)


def test_more_pairs_are_needed_for_more_noise_and_for_smaller_distances() -> None:
    base = pairs_needed(0.1, 0.05, 0.05, 4, 0.015)
    wider, nearer = pairs_needed(0.1, 0.08, 0.05, 4, 0.015), pairs_needed(0.08, 0.05, 0.05, 4, 0.015)
    assert base
    assert wider
    assert nearer
    assert wider > base
    assert nearer > base
    assert pairs_needed(0.05, 0.05, 0.05, 4, 0.015) is None


def verdict_of(outcome: Any, endpoint: Endpoint = TPOT) -> Verdict:
    return Verdict(endpoint, outcome, change=0.2, low=0.1, high=0.3, reasons=("Because.",))


LOST = Problem("cell", "Cell x is missing.")
OTHER_GPU = Problem("hardware", "The runs have other GPUs: A and B.", "A", "B")


@pytest.mark.parametrize(
    ("outcomes", "problems", "policy", "exit_code"),
    [
        (["equivalent", "improvement"], [], "pr", 0),
        (["equivalent", "regression"], [], "pr", 10),
        (["inconclusive", "regression"], [], "release", 10),
        (["inconclusive", "equivalent"], [], "pr", 0),
        (["inconclusive", "equivalent"], [], "release", 11),
        (["invalid", "equivalent"], [], "pr", 12),
        (["invalid", "regression"], [], "pr", 10),
        ([], [], "pr", 12),
        (["equivalent"], [LOST], "pr", 12),
        (["regression"], [LOST], "pr", 10),
        (["regression"], [OTHER_GPU], "pr", 12),
        (["equivalent"], [replace(OTHER_GPU, allowed=True)], "release", 0),
    ],
)
def test_exit_codes(outcomes: list[str], problems: list[Problem], policy: Any, exit_code: int) -> None:
    verdicts = [verdict_of(outcome) for outcome in outcomes]
    watched = verdict_of("regression", replace(TPOT, kind="watch"))
    result = gate([*verdicts, watched], problems, policy)
    assert (result.exit_code, result.passed) == (exit_code, exit_code == 0)
    assert bool(result.reasons) == (exit_code != 0)


def test_an_inconclusive_pull_request_is_warned() -> None:
    result = gate([replace(verdict_of("inconclusive"), pairs_needed=6)])
    (warning,) = result.warnings
    assert result == GateResult(0, "pr", (), (warning,))
    assert warning == (
        "novel-direct-stream-out0128-bs008/tpot_p50: inconclusive +20% (+10% to +30%, margin 5%) "
        "about 6 more pairs needed. Because."
    )
