"""How often the procedure that decides errs, by simulation: the table in docs/deciding.md, one command.

Every row is many imagined measurements of one kind of machine and one true change, decided look by look by the code
that decides real ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.decide.looks import ALPHA, LOOKS, level
from enginebench.decide.simulation import Frequencies, World, frequencies

MARGIN = 0.05
FOUND = 0.9
"""How often a slower build should be found where the machine is not noisy."""

WORLDS = (
    World("quiet", load_sd=0.01, round_sd=0.01, walk_sd=0.003, shared=0.5),
    World("usual", load_sd=0.02, round_sd=0.02, walk_sd=0.01, shared=0.5, session_sd=0.01),
    World("drifting", load_sd=0.02, round_sd=0.02, walk_sd=0.01, trend=0.02, shared=0.5),
    World("noisy", load_sd=0.04, round_sd=0.04, walk_sd=0.03, hiccups=0.05, hiccup=0.15, shared=0.3),
)
QUIET, USUAL, DRIFTING, NOISY = WORLDS
AA_SESSIONS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A machine and the true changes of the gated endpoints, the first of which may differ from the others.

    ``sessions``: 0 where builds take turns, else the A/A sessions behind a comparison of stored runs.
    """

    world: World
    changes: tuple[float, ...]
    sessions: int = 0

    @property
    def words(self) -> str:
        """The true changes, as people read them."""
        first, others = self.changes[0], self.changes[1:]
        if not others:
            return f"{first:+.0%}"
        if set(others) == {first}:
            return f"all {first:+.0%}"
        return f"one {first:+.0%}, others {others[0]:+.0%}"

    def false_alarms(self, shares: Frequencies) -> float | None:
        """The share of measurements with a regression that is none; None where the first endpoint is truly slower."""
        if self.changes[0] > MARGIN:
            return None
        return shares.any_regression if max(self.changes) <= MARGIN else shares.first["regression"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row showed; ``demand``: what it has to keep to; ``held``: whether it did."""

    row: Row
    shares: Frequencies
    demand: str
    held: bool


def rows() -> Iterator[Row]:
    """Every row of the table: no change, at the margin, +10 % and +20 %, with one gated endpoint and with four.

    And one endpoint at the margin beside three that are slower, where Holm asks the least of it.
    """
    for world, sessions in (*((world, 0) for world in WORLDS), (USUAL, AA_SESSIONS)):
        for count in (1, 4):
            for change in (0.0, MARGIN):
                yield Row(world, (change,) * count, sessions)
            for change in (0.1, 0.2):
                yield Row(world, (change, *(0.0,) * (count - 1)), sessions)
        yield Row(world, (MARGIN, 0.2, 0.2, 0.2), sessions)


def simulate(repeats: int, seed: int, chosen: Sequence[Row] = ()) -> Iterator[Finding]:
    """Work out the rows, by default all, one by one; the same seed gives the same numbers, row by row."""
    for row in chosen or rows():
        place = [WORLDS.index(row.world), row.sessions, *(round(change * 1000) for change in row.changes)]
        rng = np.random.default_rng([seed, *place])
        found = frequencies(row.world, row.changes, MARGIN, rng, repeats=repeats, sessions=row.sessions)
        yield _judged(row, found)


def _judged(row: Row, shares: Frequencies) -> Finding:
    """Beyond what chance explains: a simulated share has a standard error, and 2.6 of them are let through."""
    slack = 2.6 * math.sqrt(ALPHA * (1 - ALPHA) / shares.repeats)
    wrong_equal = shares.first["equivalent"] if row.changes[0] >= MARGIN else 0.0
    wrong = max(wrong_equal, row.false_alarms(shares) or 0.0)
    demand, held = f"≤ {ALPHA:.0%} wrong", wrong <= ALPHA + slack
    if row.changes[0] > MARGIN and row.world is not NOISY and not row.sessions:
        demand, held = f"≥ {FOUND:.0%} found", held and shares.first["regression"] >= FOUND - slack
    return Finding(row, shares, demand, held)


_HEAD = ("machine", "gated", "true change", "regression", "improvement", "equivalent", "inconclusive",
         "any regression", "pairs", "demand", "held")  # fmt: skip


def markdown(findings: Sequence[Finding]) -> str:
    """The table, to be pasted."""
    return "\n".join([_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(_cells(each)) for each in findings)])


def _cells(finding: Finding) -> list[str]:
    row, shares = finding.row, finding.shares
    name = f"{row.world.name}, stored" if row.sessions else row.world.name
    first = [f"{shares.first[name]:.1%}" for name in ("regression", "improvement", "equivalent", "inconclusive")]
    pairs = f"{shares.mean_pairs:.1f}" if shares.mean_pairs else "–"
    held = "yes" if finding.held else "no"
    return [name, str(len(row.changes)), row.words, *first, f"{shares.any_regression:.1%}", pairs, finding.demand, held]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def selftest_gate(repeats: int, seed: int, say: Callable[[str], None]) -> bool:
    """Print the table and what it rests on; return whether every row held."""
    findings = list(simulate(repeats, seed))
    say(markdown(findings))
    looks, confidence = ", ".join(map(str, LOOKS)), 1 - 2 * level(LOOKS)
    say(f"\n{repeats:,} measurements a row, seed {seed}, margin {MARGIN:.0%}; looks at {looks} pairs, each with")
    say(f"intervals of {confidence:.2%} confidence. Outcomes are those of the first endpoint, pairs the mean.")
    say(f"Stored: one session a side, their noise known from {AA_SESSIONS} A/A sessions.")
    for world in WORLDS:
        say(f"- {world.name}: {_noise_words(world)}")
    broken = sum(not each.held for each in findings)
    say("Every row held." if not broken else f"{broken} of {len(findings)} rows did not hold.")
    return not broken


def _noise_words(world: World) -> str:
    parts = [f"loads {world.load_sd:.1%}", f"rounds {world.round_sd:.1%} ({world.rounds} a load)",
             f"a random walk of {world.walk_sd:.1%} a block"]  # fmt: skip
    if world.trend:
        parts.append(f"{world.trend:.1%} slower with every block")
    if world.session_sd:
        parts.append(f"days {world.session_sd:.1%}")
    if world.hiccups:
        parts.append(f"{world.hiccups:.0%} of the blocks slowed by {world.hiccup:.0%} on average")
    return ", ".join(parts)
