"""Scenario → cells, and how long they will take. Whether a build can run a cell is decided where builds are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from enginebench.errors import ScenarioError
from enginebench.plan.cells import PATHS, Cell
from enginebench.plan.load import Batch, Concurrency, Load, Rate
from enginebench.plan.messages import did_you_mean

if TYPE_CHECKING:
    from enginebench.plan.scenario import Scenario
    from enginebench.plan.selection import Selection


@dataclass(frozen=True, slots=True)
class Expansion:
    """The cells of a run in the order in which they are measured, and why others are not."""

    cells: tuple[Cell, ...]
    left_out: Mapping[str, str]  # cell id → reason


def expand(selection: "Selection", paths: Sequence[str] | None = None) -> Expansion:
    """All cells of a selection on ``paths`` (by default on those of each scenario), path by path.

    Cells of one path stand together because they share a loaded engine. Raises ScenarioError for an unknown path.
    """
    every = [cell for scenario in selection.scenarios for cell in cells(scenario, paths)]
    every.sort(key=lambda cell: PATHS.index(cell.path))
    limit = selection.max_output_tokens
    too_long = [cell for cell in every if limit is not None and cell.output_tokens > limit]
    reason = f"longer than the {limit} output tokens of the set; ask for the scenario by its name to run it"
    return Expansion(tuple(cell for cell in every if cell not in too_long), {cell.id: reason for cell in too_long})


def cells(scenario: "Scenario", paths: Sequence[str] | None = None) -> tuple[Cell, ...]:
    """Every cell of a scenario on ``paths`` once. Raises ScenarioError for an unknown path."""
    return scenario.cells_on(check_paths(paths) if paths else scenario.paths)


def check_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """``paths`` without repetitions. Raises ScenarioError for one that does not exist."""
    for path in paths:
        if path not in PATHS:
            raise ScenarioError(f"there is no path '{path}'; {did_you_mean(path, PATHS)}")
    return tuple(dict.fromkeys(paths))


def requests_per_round(scenario: "Scenario", load: Load) -> int:
    """How many requests a round has; of an open loop with a duration, about how many.

    Batches: ``requests``, or each prompt once, rounded up to full batches. Concurrency: its requests, or each prompt
    once, but four for each place, so that there is a steady part; with a duration these are asked again and again.
    """
    if isinstance(load, Batch):
        wanted = scenario.requests or max(scenario.prompt_count, load.size)
        return -(-wanted // load.size) * load.size
    if isinstance(load, Concurrency):
        return load.requests or max(scenario.prompt_count, 4 * load.level)
    return load.requests or max(1, round(load.length_s * load.level))


def estimate_s(
    cell: Cell,
    scenario: "Scenario",
    *,
    prompt_tokens: float,
    step_s: float,
    prefill_token_s: float,
    rounds: int | None = None,
) -> float:
    """Seconds that a cell takes, warm-up included: one step a token of what runs together, and every prompt's prefill.

    ``prompt_tokens`` is the mean length of a prompt, ``step_s`` the time of a step of all that runs together,
    ``prefill_token_s`` the time of one prompt token; ``rounds`` replaces the scenario's own number.
    """
    load, answer_s = cell.load, cell.output_tokens * step_s
    requests = requests_per_round(scenario, load)
    prefill_s = requests * prompt_tokens * prefill_token_s
    if isinstance(load, Rate):
        round_s = load.length_s + answer_s
    elif isinstance(load, Concurrency) and load.duration_s is not None:
        round_s = load.duration_s + answer_s
    else:
        round_s = -(-requests // load.connections) * answer_s + prefill_s
    return ((rounds or scenario.rounds) + scenario.warmup_rounds) * round_s
