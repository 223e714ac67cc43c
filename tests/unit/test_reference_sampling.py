"""The next token depends on the logits, the request's seed and the position, and on nothing else."""

import numpy as np
import pytest

from enginebench.plan.requests import Sampling
from enginebench.reference.sampling import choose

LOGITS = np.linspace(-3.0, 3.0, 50)


def test_the_same_seed_and_position_draw_the_same() -> None:
    warm = Sampling(temperature=1.0, seed=5)
    assert [choose(LOGITS, warm, k) for k in range(20)] == [choose(LOGITS, warm, k) for k in range(20)]


@pytest.mark.parametrize("other", [Sampling(temperature=1.0, seed=6), Sampling(temperature=5.0, seed=5)])
def test_another_seed_or_temperature_draws_differently(other: Sampling) -> None:
    warm = Sampling(temperature=1.0, seed=5)
    assert [choose(LOGITS, warm, k) for k in range(50)] != [choose(LOGITS, other, k) for k in range(50)]


def test_draws_follow_the_softmax() -> None:
    """Chi-square of 4,000 draws over 6 tokens; 20.5 is the 99.9 % quantile for 5 degrees of freedom."""
    logits = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    counts = np.bincount([choose(logits, Sampling(2.0, seed=3), k) for k in range(4000)], minlength=6)
    expected = 4000 * np.exp(logits / 2) / np.exp(logits / 2).sum()
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5


def test_top_k_draws_among_the_k_likeliest() -> None:
    drawn = {choose(LOGITS, Sampling(temperature=10.0, top_k=3, seed=1), k) for k in range(200)}
    assert drawn == {47, 48, 49}


@pytest.mark.parametrize("top_k", [0, 50, 5000])
def test_no_limit_draws_among_all(top_k: int) -> None:
    assert choose(LOGITS, Sampling(1.0, top_k, 9), 7) == choose(LOGITS, Sampling(1.0, 0, 9), 7)


@pytest.mark.parametrize("seed", [-1, 0, 2**64 - 1, 2**70])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    assert 0 <= choose(LOGITS, Sampling(temperature=1.0, seed=seed), 0) < 50


def test_what_is_masked_is_never_drawn() -> None:
    masked = np.where(np.arange(50) < 40, -np.inf, LOGITS)
    assert min(choose(masked, Sampling(temperature=100.0, seed=2), k) for k in range(300)) >= 40
