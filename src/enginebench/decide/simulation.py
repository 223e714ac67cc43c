"""Imagined measurements, to learn how often the whole procedure errs: many at once, decided by the code that decides.

A block's logarithm is the sum of what its engine load drew, of its rounds' mean, of where the machine has drifted to at
its place in the ABBA order, and now and then of a hiccup. Endpoints share a part of it, as metrics of one run do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enginebench.decide.intervals import (
    CODES,
    INCONCLUSIVE,
    REGRESSION,
    Codes,
    assess,
    between_sessions,
    classify,
    p_between_sessions,
)
from enginebench.decide.looks import ALPHA, LOOKS
from enginebench.decide.several import holm

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """How noisy a machine is: standard deviations of logarithms, about fractions.

    ``load_sd``: between loads of one engine; ``round_sd``: between rounds of one load; ``walk_sd``: of each step of a
    random walk, a step a block; ``trend``: how much each block is slower than the one before; ``hiccups``: the share of
    blocks that something slows down, by ``hiccup`` on average (exponential); ``shared``: the part of the variance of
    loads and rounds that endpoints have in common; ``session_sd``: between days, on top of all that.
    """

    name: str
    load_sd: float
    round_sd: float
    rounds: int = 5
    walk_sd: float = 0.0
    trend: float = 0.0
    hiccups: float = 0.0
    hiccup: float = 0.0
    shared: float = 0.0
    session_sd: float = 0.0


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How often each outcome came out.

    ``any_regression``: of all measurements, those in which any endpoint was one; ``first``: outcomes of the first
    endpoint, by name, as shares; ``mean_pairs``: until all was decided or the last look was past, 0 for stored runs.
    """

    repeats: int
    any_regression: float
    first: dict[str, float]
    mean_pairs: float


def noise_of_pairs(world: World, rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Log ratios of two equal builds, of ``shape`` (repeats, endpoints, pairs)."""
    repeats, endpoints, pairs = shape
    slots = 2 * pairs
    own, common = np.sqrt(1 - world.shared), np.sqrt(world.shared)

    def drawn(sd: float) -> Floats:
        alone = rng.standard_normal((repeats, endpoints, slots))
        return np.asarray(sd * (own * alone + common * rng.standard_normal((repeats, 1, slots))))

    values = drawn(world.load_sd)
    values += sum(drawn(world.round_sd) for _ in range(world.rounds)) / world.rounds
    walk = np.cumsum(rng.normal(world.trend, world.walk_sd, (repeats, 1, slots)), axis=-1)
    struck = rng.random((repeats, 1, slots)) < world.hiccups
    values = values + walk + struck * rng.exponential(world.hiccup, (repeats, 1, slots))
    in_pairs = values.reshape(repeats, endpoints, pairs, 2)
    new_second = np.arange(pairs) % 2 == 0  # old new, new old, old new …
    return np.asarray(np.where(new_second, 1, -1) * (in_pairs[..., 1] - in_pairs[..., 0]))


def decide_many(worse: Floats, limit: float, looks: Sequence[int] = LOOKS) -> tuple[Codes, NDArray[np.int64]]:
    """Run the procedure on measurements of shape (repeats, endpoints, pairs), every endpoint gated.

    Returns the codes of outcomes, (repeats, endpoints), and the pairs at which each measurement ended, (repeats,): at
    the first look with every endpoint decided, or at the last.
    """
    repeats, endpoints, _ = worse.shape
    codes, ended = np.zeros((repeats, endpoints), dtype=np.int8), np.zeros(repeats, dtype=np.int64)
    open_rows = np.arange(repeats)
    for look in looks:
        found = assess(worse[open_rows, :, :look], limit, looks)
        codes[open_rows] = found.settled(holm(found.p_value), ALPHA)
        ended[open_rows] = look
        open_rows = open_rows[np.any(codes[open_rows] == INCONCLUSIVE, axis=-1)]
    return codes, ended


def decide_many_stored(
    world: World, changes: Floats, limit: float, rng: np.random.Generator, *, repeats: int, sessions: int
) -> Codes:
    """Compare stored runs of one session each, as often, where the noise is known from ``sessions`` A/A sessions."""
    variance = world.load_sd**2 + world.round_sd**2 / world.rounds + world.session_sd**2
    shape, degrees = (repeats, len(changes)), sessions - 1
    worse = np.log1p(changes) + rng.normal(0, np.sqrt(2 * variance), shape)
    estimated = variance * rng.chisquare(degrees, shape) / degrees
    codes = classify(between_sessions(worse, estimated, degrees, ALPHA), limit)
    q_values = holm(p_between_sessions(worse, estimated, degrees, limit))
    return np.where((codes == REGRESSION) & (q_values > ALPHA), INCONCLUSIVE, codes).astype(np.int8)


def frequencies(
    world: World, changes: Sequence[float], margin: float, rng: np.random.Generator, *, repeats: int, sessions: int = 0
) -> Frequencies:
    """How the procedure comes out for a build that is slower by ``changes``, fractions, one for each gated endpoint.

    ``sessions``: 0 for builds that are measured in turns; else stored runs, and the A/A sessions behind their noise.
    """
    limit, true = float(np.log1p(margin)), np.asarray(changes, dtype=np.float64)
    if sessions:
        codes = decide_many_stored(world, true, limit, rng, repeats=repeats, sessions=sessions)
        return _counted(codes, 0.0)
    noise = noise_of_pairs(world, rng, (repeats, len(true), LOOKS[-1]))
    codes, ended = decide_many(noise + np.log1p(true)[:, None], limit)
    return _counted(codes, float(ended.mean()))


def _counted(codes: Codes, mean_pairs: float) -> Frequencies:
    return Frequencies(
        len(codes),
        any_regression=float(np.mean(np.any(codes == REGRESSION, axis=-1))),
        first={str(name): float(np.mean(codes[:, 0] == code)) for code, name in enumerate(CODES)},
        mean_pairs=mean_pairs,
    )
