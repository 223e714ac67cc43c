"""When an A/B measurement ends: decided at a look, out of budget, or with a build that gives nothing."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from enginebench.run.ab import Budget, Interleaving, measure_until_decided
from enginebench.run.ab_plan import AbPlan
from enginebench.run.ab_schedule import Side
from enginebench.run.comparison import Terms
from tests.support.ab_runs import CELL, sides


class Replay:
    """Stands in for two campaigns: blocks that are known beforehand, one pair more at each call."""

    def __init__(self, slower: float, pair_s: float = 0.0, nothing: Side | None = None, sd: float = 0.005):
        self._slower, self._pair_s, self._nothing, self._sd = slower, pair_s, nothing, sd
        self.pairs = 0
        self.asked: list[int] = []  # numbers of pairs at which was looked
        self.looks: list[int] | None = None

    def measure_pair(self) -> float:
        self.pairs += 1
        return self._pair_s

    def data(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self.asked.append(self.pairs)
        old, new = sides(self._slower, self.pairs, sd=self._sd)
        for run in (old, new):
            run["ab"]["looks"] = [4, 8, 12, 20]
            assert len(run["cells"][CELL]["per_block"]) == self.pairs
        return old, new

    def gives_nothing(self) -> Side | None:
        return self._nothing if self.pairs >= 2 else None

    def stop(self, why: str, looks: Sequence[int] | None = None) -> None:  # noqa: ARG002
        self.looks = list(looks) if looks else self.looks


def end(replay: Replay, pairs: int = 20, minutes: float | None = None) -> str:
    plan = AbPlan(plans={}, gated=(), gate_source="", pairs=pairs)
    return measure_until_decided(cast("Interleaving", replay), plan, Terms(), Budget(minutes))


@pytest.mark.parametrize("slower", [0.0, 0.3, -0.3])
def test_a_clear_case_ends_at_the_first_look(slower: float) -> None:
    replay = Replay(slower)
    assert end(replay) == "every gated endpoint was decided after 4 pairs"
    assert replay.asked == [4]


def test_a_case_at_the_margin_is_looked_at_and_no_oftener() -> None:
    replay = Replay(0.05, sd=0.03)
    assert end(replay) == "all 20 pairs were measured"
    assert replay.asked == [4, 8, 12, 20]
    assert end(Replay(0.05, sd=0.03), pairs=6) == "all 6 pairs were measured"


def test_no_pair_is_begun_that_would_end_after_the_budget() -> None:
    replay = Replay(0.0, pair_s=25.0)
    assert end(replay, minutes=0.4) == "the budget of 0.4 minutes ended"
    assert replay.pairs == 1
    assert replay.looks == [2, 8, 12, 20]  # one pair decides nothing
    assert replay.asked == []


def test_a_build_that_gives_nothing_is_not_tried_for_ever() -> None:
    replay = Replay(0.0, nothing="new")
    assert end(replay) == "the new build gave no number in 2 pairs"
    assert replay.pairs == 2
