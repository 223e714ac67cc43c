"""What an A/B measurement will do, and the smallest slowdown that it can find, from this machine's noise if known."""

import math
from collections.abc import Mapping
from pathlib import Path

from enginebench.decide.model import Endpoint
from enginebench.decide.planning import smallest_effect
from enginebench.environment import environment
from enginebench.plan.scenario import scenario_facts
from enginebench.report.units import count, percent, span
from enginebench.run.ab_plan import AbPlan
from enginebench.run.noise import known_noise


def smallest_effects(plan: AbPlan, root: Path, pairs: int) -> dict[str, float]:
    """By the key of each gated endpoint, as a fraction; empty where no A/A session of this machine is known.

    Sessions that followed each other tell what a pair of blocks differs by; where there are none, the variance
    between sessions is taken twice, which is more than a pair differs by.
    """
    if plan.co_resident:  # the noise that is known is of engines that were loaded anew
        return {}
    scenarios = {each.scenario.name: scenario_facts(each.scenario) for each in plan.plans["old"].cells}
    known = known_noise(root, environment(), scenarios)
    if known is None:
        return {}
    effects = {}
    gated = [each for each in plan.gated if not each.exact]
    for endpoint in gated:
        variance = known.noise.of(endpoint)
        between = math.sqrt(2 * variance.variance) if variance else None
        sd = known.pair_sd.get(endpoint.key, between)
        if sd is not None:
            effects[endpoint.key] = smallest_effect(pairs, sd, endpoint.margin, endpoints=len(gated))
    return effects


def introduction(plan: AbPlan, effects: Mapping[str, float]) -> list[str]:
    """What will be done, in lines for a terminal, before it starts; ``effects``: what ``smallest_effects`` gave."""
    old, new = plan.plans["old"].build.name, plan.plans["new"].build.name
    what = f"enginebench ab: {new} against {old}, {count(len(plan.cells), 'cell')}"
    how = f"up to {count(plan.pairs, 'pair')} of blocks, about {span(plan.pair_s)} each"
    lines = [f"{what}, {how}; looks after {', '.join(map(str, plan.looks))}"]
    lines += [f"  {cell.id}" for cell in plan.cells]
    lines += [
        f"gated (by {plan.gate_source}): {each.key} ±{each.margin * 100:.3g}%{_finds(each, effects)}"
        for each in plan.gated
    ]
    if plan.co_resident:
        lines.append("Both engines are loaded once and stay loaded: what is found holds for these two loads alone.")
    elif plan.gated and not effects:
        lines.append("The smallest slowdown that this finds is not known: measure the noise with enginebench noise.")
    return [*lines, *(f"! {problem.sentence}" for problem in plan.problems), *(f"! {each}" for each in plan.warnings)]


def _finds(endpoint: Endpoint, effects: Mapping[str, float]) -> str:
    found = effects.get(endpoint.key)
    if found is None:
        return ""
    return f", finds a slowdown of {percent(found)} four times out of five" if found < 10 else ", finds next to nothing"
