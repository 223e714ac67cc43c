"""The error rates that docs/deciding.md states, by simulation with fewer repeats; and the same check, failing."""

import math

import numpy as np
import pytest

from enginebench.cli import main
from enginebench.decide.failures import failures_of
from enginebench.decide.intervals import EQUIVALENT, INCONCLUSIVE, REGRESSION, assess
from enginebench.decide.looks import ALPHA, LOOKS
from enginebench.decide.model import Sample
from enginebench.decide.simulation import World, decide_many, noise_of_pairs
from enginebench.run.selftest_gate import (
    AA_SESSIONS,
    MARGIN,
    NOISY,
    QUIET,
    USUAL,
    WORLDS,
    Row,
    markdown,
    rows,
    simulate,
)

REPEATS = 2000
LIMIT = math.log1p(MARGIN)
SLACK = 3 * math.sqrt(ALPHA * (1 - ALPHA) / REPEATS)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_every_row_of_the_table_holds(world: World) -> None:
    chosen = [row for row in rows() if row.world is world]
    findings = list(simulate(REPEATS, 3, chosen))
    assert len(findings) >= 9
    assert [each.row.words for each in findings if not each.held] == []


def test_the_rates_are_used_up_where_they_are_hardest() -> None:
    """At the margin, with one endpoint: a rate far below 5 % would be power given away, or nothing simulated."""
    for world in (QUIET, USUAL):
        (at_margin,) = simulate(REPEATS, 5, [Row(world, (MARGIN,))])
        assert 0.02 < at_margin.shares.any_regression <= ALPHA + SLACK
        assert 0.02 < at_margin.shares.first["equivalent"] <= ALPHA + SLACK


def test_looking_without_paying_for_it_does_not_hold() -> None:
    """The same data, decided at every look as if it were the only one: more than 5 % false alarms."""
    worse = noise_of_pairs(USUAL, np.random.default_rng(1), (REPEATS, 1, LOOKS[-1])) + LIMIT
    alarmed, calm = np.zeros(REPEATS, dtype=bool), np.zeros(REPEATS, dtype=bool)
    for look in LOOKS:
        codes = assess(worse[..., :look], LIMIT, (look,)).alone[:, 0]
        undecided = ~alarmed & ~calm
        alarmed |= undecided & (codes == REGRESSION)
        calm |= undecided & (codes == EQUIVALENT)
    assert alarmed.mean() > ALPHA + SLACK
    codes, _ = decide_many(worse, LIMIT)
    assert np.mean(codes == REGRESSION) <= ALPHA + SLACK


def test_sequential_blocks_would_not_hold() -> None:
    """All of the old build, then all of the new one, on a machine that drifts: why blocks take turns."""
    rng, pairs = np.random.default_rng(2), 8
    world = World("drifting", load_sd=0.02, round_sd=0.02, walk_sd=0.03)
    steps = np.cumsum(rng.normal(0, world.walk_sd, (REPEATS, 1, 2 * pairs)), axis=-1)
    loads = rng.normal(0, world.load_sd, steps.shape)
    one_after_the_other = (steps + loads)[..., pairs:] - (steps + loads)[..., :pairs]
    in_turns = noise_of_pairs(world, rng, (REPEATS, 1, pairs))
    shares = [float(np.mean(assess(each + LIMIT, LIMIT, (pairs,)).alone == REGRESSION))
              for each in (one_after_the_other, in_turns)]  # fmt: skip
    assert shares[0] > 0.2
    assert shares[1] <= ALPHA + SLACK


def test_twenty_percent_is_found_at_the_first_look_on_a_usual_machine() -> None:
    worse = noise_of_pairs(USUAL, np.random.default_rng(3), (REPEATS, 1, 4)) + math.log(1.2)
    codes, _ = decide_many(worse, LIMIT, (4, 8, 12, 20)[:1])
    assert np.mean(codes == REGRESSION) > 0.99
    ended = decide_many(noise_of_pairs(USUAL, np.random.default_rng(3), (REPEATS, 1, 20)) + math.log(1.2), LIMIT)[1]
    assert np.mean(ended == 4) > 0.95


def test_ten_percent_is_never_equivalent() -> None:
    for world in WORLDS:
        worse = noise_of_pairs(world, np.random.default_rng(4), (REPEATS, 1, 20)) + math.log(1.1)
        assert np.mean(decide_many(worse, LIMIT)[0] == EQUIVALENT) <= 0.002


def test_equal_builds_that_fail_now_and_then_raise_no_alarm() -> None:
    """One in ten blocks loses a third of its requests, on either side, and some lose a single one."""
    rng, repeats = np.random.default_rng(6), 600
    crashed, single = rng.random((repeats, 2, LOOKS[-1])) < 0.1, rng.random((repeats, 2, LOOKS[-1])) < 0.2
    failed = 33 * crashed + single

    def alarmed(sides: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> bool:
        old, new = ([Sample(0, pair, 1.0, int(count), 100) for pair, count in enumerate(side)] for side in sides)
        return any(2 * failures_of(old[:look], new[:look], LOOKS).p_value <= ALPHA for look in LOOKS)

    assert np.mean([alarmed(each) for each in failed]) <= ALPHA


def test_noise_is_what_it_says() -> None:
    """The spread of simulated log ratios is that of the world: two loads, two means of rounds, one step of the walk."""
    for world in (QUIET, USUAL):
        expected = math.sqrt(2 * (world.load_sd**2 + world.round_sd**2 / world.rounds) + world.walk_sd**2)
        drawn = noise_of_pairs(world, np.random.default_rng(8), (REPEATS, 2, 8))
        assert float(drawn.std()) == pytest.approx(expected, rel=0.03)
        correlation = float(np.corrcoef(drawn[:, 0].ravel(), drawn[:, 1].ravel())[0, 1])
        assert 0.4 < correlation < 0.8
    assert float(noise_of_pairs(NOISY, np.random.default_rng(8), (REPEATS, 1, 8)).std()) > 0.08


def test_the_same_seed_gives_the_same_table() -> None:
    chosen = [Row(USUAL, (0.1, 0.0, 0.0, 0.0)), Row(USUAL, (0.2,), AA_SESSIONS)]
    first, again, other = (markdown(list(simulate(50, seed, chosen))) for seed in (1, 1, 2))
    assert first == again != other
    assert "| usual, stored | 1 | +20% |" in first


def test_the_command_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "gate", "--repeats", "200", "--seed", "2"]) == 0
    said = capsys.readouterr().out
    assert "Every row held." in said
    assert said.count("| yes |") == len(list(rows()))


def test_an_undecided_measurement_uses_every_pair() -> None:
    worse = noise_of_pairs(QUIET, np.random.default_rng(9), (200, 1, 20)) + LIMIT
    codes, ended = decide_many(worse, LIMIT)
    assert set(ended[codes[:, 0] == INCONCLUSIVE]) == {20}
