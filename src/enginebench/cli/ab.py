"""``enginebench ab`` on the command line: two builds measured in turns, and a verdict."""

import argparse
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.cli.options import add_choices, add_files, add_judging, add_place, publish
from enginebench.errors import RunError

if TYPE_CHECKING:
    from enginebench.builds.model import Build
    from enginebench.run.ab import Outcome
    from enginebench.run.ab_plan import AbPlan
    from enginebench.run.ab_schedule import Side

_BUILD = "an engine directory, or NAME=DIR[,python=PATH][,tokenizer=DIR][,…] as for --build"


def add_ab(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``ab``."""
    ab = commands.add_parser(
        "ab",
        help="measure two builds in turns and say whether the new one is slower",
        description="Loads both builds in turns (ABBA) until every gated number is decided or the budget ends. "
        "Exits with 0 pass, 10 regression, 11 inconclusive, 12 invalid or not comparable.",
    )
    ab.add_argument("old", metavar="OLD", help=_BUILD)
    ab.add_argument("new", metavar="NEW", help="the same, of the build to be judged")
    add_choices(ab)
    ab.add_argument("--pairs", type=int, metavar="N", help="pairs of blocks at most (default: 20)")
    ab.add_argument("--max-minutes", type=float, metavar="M", help="begin no pair that would end later")
    ab.add_argument(
        "--co-resident",
        action="store_true",
        help="load both engines once and keep them side by side: quicker, of this one load alone (path direct, KV "
        "pools of a fixed size)",
    )
    add_judging(ab)
    add_place(ab)
    add_files(ab)
    ab.set_defaults(run=_ab)


def _ab(options: argparse.Namespace) -> int:
    from enginebench.run.ab import Budget, run_ab
    from enginebench.run.ab_plan import plan_ab, wishes_of
    from enginebench.run.builds import parse_build
    from enginebench.run.comparison import Terms

    if options.max_minutes is not None and not 0 < options.max_minutes < math.inf:
        raise RunError(f"--max-minutes {options.max_minutes:g} is no time to measure in: give a number above 0.")
    builds: dict[Side, Build] = {
        "old": parse_build(options.old, options.tokenizer, options.trust_remote_code),
        "new": parse_build(options.new, options.tokenizer, options.trust_remote_code),
    }
    if builds["old"].name == builds["new"].name:
        builds = {side: replace(build, name=f"{build.name}-{side}") for side, build in builds.items()}
    wishes = wishes_of(options)
    plan = plan_ab(builds, wishes, Path.cwd(), options.pairs)
    effects = _introduce(plan, options.max_minutes)
    terms = Terms(policy=options.policy, problems=plan.problems)
    outcome = run_ab(plan, Path.cwd(), ["enginebench", *sys.argv[1:]], terms, Budget(options.max_minutes), effects)
    return _conclude(outcome, options)


def _introduce(plan: "AbPlan", max_minutes: float | None) -> Mapping[str, float]:
    """Say what will be measured, and the smallest slowdown that the budget can find; return it by endpoint."""
    from enginebench.run.ab_effect import introduction, smallest_effects

    pairs = plan.pairs
    if max_minutes is not None:
        pairs = max(2, min(pairs, int(max_minutes * 60 / plan.pair_s)))
    effects = smallest_effects(plan, Path.cwd(), pairs)
    print("\n".join(introduction(plan, effects)), flush=True)
    return effects


def _conclude(outcome: "Outcome", options: argparse.Namespace) -> int:
    from enginebench.run.baselines import find_stored
    from enginebench.run.pages import keep_comparison

    comparison, root = outcome.comparison, Path.cwd()
    publish(comparison, options)
    for side, directory in outcome.directories.items():
        print(f"{side}: {directory / 'report.html'}")
    old, new = (find_stored(str(outcome.directories[side]), root) for side in ("old", "new"))
    page = keep_comparison(comparison, old, new, root, options.out)
    print(f"comparison: {page.parent / 'comparison.json'}")
    print(f"page: {page}")
    if outcome.error is not None:
        raise outcome.error
    return 130 if outcome.interrupted else comparison.gate.exit_code
