"""Two builds measured in turns: blocks in ABBA order, until every gated endpoint is decided or the budget ends.

One engine at a time is loaded, each build's anew for every block, unless both are wanted side by side. Leaves two
ordinary runs, which say that they belong together, and decides nothing itself: after the looks it asks ``comparison``.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from enginebench.errors import EnginebenchError
from enginebench.report.comparison import Comparison, Turn
from enginebench.run.ab_plan import AbPlan
from enginebench.run.ab_resident import Residence
from enginebench.run.ab_schedule import SIDES, Side, pair_seed, turns
from enginebench.run.block import Block
from enginebench.run.campaign import Campaign
from enginebench.run.comparison import Terms, compare
from enginebench.run.drive import drive_block
from enginebench.run.progress import Progress
from enginebench.store import load_run

MOST_BROKEN = 2
"""Pairs in which no cell of a build gave a number, before nothing more is expected of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an A/B measurement left. ``error``: what ended it before its time; ``interrupted``: a person did."""

    comparison: Comparison
    directories: Mapping[Side, Path]
    interrupted: bool = False
    error: EnginebenchError | None = None


class Interleaving:
    """Two campaigns that take turns."""

    def __init__(self, plan: AbPlan, root: Path, command: Sequence[str], smallest_effect: Mapping[str, float]):
        self._plan = plan
        cells = len(plan.cells) * 2 * plan.pairs
        progress = Progress(total_cells=cells, estimate_s=plan.pair_s * plan.pairs)
        self.campaigns: dict[Side, Campaign] = {
            side: Campaign(
                plan.plans[side], root, command, plan.attached, progress=progress, side_by_side=plan.co_resident
            )
            for side in SIDES
        }
        self._residence = Residence([*self.campaigns.values()], plan.cells[0]) if plan.co_resident else None
        self._turns: list[Turn] = []
        self._facts: dict[str, Any] = {
            "gated": [asdict(each) for each in plan.gated],
            "gate_source": plan.gate_source,
            "co_resident": plan.co_resident,
            "pairs_planned": plan.pairs,
            "looks": list(plan.looks),
            "stopped": "",
            "smallest_effect": dict(smallest_effect),
            "discarded": [],
        }
        self.pairs = 0
        self._tell()

    def measure_pair(self) -> float:
        """Measure the next pair of blocks; return how long it took, in seconds.

        Raises:
            EnginebenchError: nothing more can be measured, or kept.
        """
        started_s = time.monotonic()
        for side in turns(self.pairs):
            self._measure_block(side)
        self.pairs += 1
        return time.monotonic() - started_s

    def data(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """run.json of both sides as they stand now."""
        old, new = (load_run(self.campaigns[side].directory).data for side in SIDES)
        return old, new

    def stop(self, why: str, looks: Sequence[int] | None = None) -> None:
        """Keep why nothing more is measured; ``looks``: where a budget moved them."""
        self._facts |= {"stopped": why} | ({"looks": list(looks)} if looks else {})
        self._tell()

    def discarded(self, comparison: Comparison) -> None:
        """Keep which pairs do not count."""
        self._facts["discarded"] = [asdict(each) for each in comparison.design.discarded]
        self._tell()

    def gives_nothing(self) -> Side | None:
        """The side whose build gave no number in any cell for too long."""
        for side in SIDES:
            cells = self.campaigns[side].store.cells.values()
            if self.pairs >= MOST_BROKEN and all(cell["status"] != "measured" for cell in cells):
                return side
        return None

    def close(self, *, interrupted: bool) -> None:
        """Close both runs and write their pages."""
        with ExitStack() as closing:
            if self._residence:
                closing.callback(self._residence.leave)
            for side in SIDES:
                closing.callback(self.campaigns[side].close, interrupted=interrupted)

    def _measure_block(self, side: Side) -> None:
        pair, campaign = self.pairs, self.campaigns[side]
        name = self._plan.plans[side].build.name
        seed = pair_seed(self._plan.base_seed, pair)
        label = f"pair {pair + 1}/{self._plan.pairs} {side} {name}  "
        started, started_s = datetime.now(timezone.utc), time.monotonic()
        loads = len(campaign.store.sessions)
        if self._residence:
            self._residence.settle()
        drive_block(campaign, Block(pair, pair, seed, label), self._plan.cells, stay=self._plan.co_resident)
        self._turns.append(
            Turn(
                block=pair,
                pair=pair,
                side=side,
                seed=seed,
                started=started.isoformat(timespec="seconds"),
                duration_s=time.monotonic() - started_s,
                loads=len(campaign.store.sessions) - loads,
                temperature_c=campaign.started_at_c,
            )
        )
        self._tell()

    def _tell(self) -> None:
        order = [asdict(turn) for turn in self._turns]
        ids = {side: self.campaigns[side].directory.name for side in SIDES}
        for side, other in (SIDES, SIDES[::-1]):
            ab = {"side": side, "other": ids[other], **self._facts, "order": order}
            self.campaigns[side].store.write_ab(ab)


@dataclass(frozen=True, slots=True)
class Budget:
    """``minutes``: after which no pair is begun; None: as long as it takes."""

    minutes: float | None = None

    def reaches(self, spent_s: float, a_pair_s: float) -> bool:
        """Whether there is time for another pair."""
        return self.minutes is None or spent_s + a_pair_s <= self.minutes * 60


def run_ab(
    plan: AbPlan,
    root: Path,
    command: Sequence[str],
    terms: Terms,
    budget: Budget = Budget(),
    smallest_effect: Mapping[str, float] | None = None,
) -> Outcome:
    """Measure until decided, the budget ends, or Ctrl-C; whatever happens, both runs and a comparison are left.

    Raises:
        EnginebenchError: the runs cannot be written.
    """
    both = Interleaving(plan, root, command, smallest_effect or {})
    interrupted, error = False, None
    try:
        both.stop(measure_until_decided(both, plan, terms, budget))
    except KeyboardInterrupt:
        interrupted = True
        both.stop("stopped by Ctrl-C")
    except EnginebenchError as broken:
        error = broken
        both.stop(f"broken off: {str(broken).rstrip('.')}")
    try:
        both.close(interrupted=interrupted or error is not None)
    except EnginebenchError as broken:
        error = error or broken
    directories = {side: both.campaigns[side].directory for side in SIDES}
    comparison = compare(*both.data(), terms, (str(directories["old"]), str(directories["new"])))
    both.discarded(comparison)
    return Outcome(comparison, directories, interrupted, error)


def measure_until_decided(both: Interleaving, plan: AbPlan, terms: Terms, budget: Budget) -> str:
    """Measure pairs, deciding at the looks alone; return why there are no more.

    A budget that ends before the first look moves that look to its end: nothing was looked at before.

    Raises:
        EnginebenchError: nothing more can be measured, or kept.
    """
    started_s, longest_s = time.monotonic(), 0.0
    while both.pairs < plan.pairs:
        if both.pairs and not budget.reaches(time.monotonic() - started_s, longest_s):
            if both.pairs < plan.looks[0]:
                both.stop("", looks=(max(2, both.pairs), *plan.looks[1:]))
            return f"the budget of {budget.minutes:g} minutes ended"
        longest_s = max(longest_s, both.measure_pair())
        if side := both.gives_nothing():
            return f"the {side} build gave no number in {both.pairs} pairs"
        if both.pairs in plan.looks and (why := _settled(compare(*both.data(), terms))):
            return f"{why} after {both.pairs} pairs"
    return f"all {plan.pairs} pairs were measured"


def _settled(comparison: Comparison) -> str | None:
    """Why more pairs would tell nothing more; None when they might."""
    if not comparison.verdicts:
        return "the runs turned out not to be comparable"
    return "every gated endpoint was decided" if all(each.decided for each in comparison.gated) else None
