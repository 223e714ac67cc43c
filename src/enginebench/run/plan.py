"""What a run will measure: cells joined with their scenario, the limits of the build and an estimate of the time.

Starts nothing; the clock and the engine are not asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

from enginebench.builds.build import Build, batch_exceeded, limit_exceeded
from enginebench.builds.tokenizer import Tokenizer
from enginebench.plan.cells import Cell
from enginebench.plan.expand import estimate_s
from enginebench.plan.prompts import round_requests
from enginebench.plan.requests import Request
from enginebench.plan.scenario import Scenario
from enginebench.plan.selection import Selection
from enginebench.run.direct import reuses_no_kv_cache

# What the default reference build takes on two slow cores. Any other engine makes the estimate a rough one.
ASSUMED_STEP_S = 0.0135
ASSUMED_PREFILL_TOKEN_S = 0.001
SESSION_START_S = 4.0


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell with everything that deciding and driving it needs."""

    cell: Cell
    scenario: Scenario
    rounds: int
    prompt_tokens: tuple[int, int]  # shortest, longest
    not_applicable: str | None  # why this build cannot run it, such as a limit that it exceeds
    estimate_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells of one run in the order in which they run."""

    build: Build
    tokenizer: Tokenizer
    set_name: str | None
    cells: tuple[PlannedCell, ...]
    left_out: Mapping[str, str]  # cell id → why the set leaves it out
    engine: Mapping[str, Any] = field(default_factory=dict)  # settings of the engine that the command line gave

    @property
    def estimate_s(self) -> float:
        """Expected wall time, from an assumed step of the engine: a hint, not a promise."""
        running = [planned for planned in self.cells if not planned.not_applicable]
        starts = len({planned.cell.path for planned in running}) * SESSION_START_S
        return starts + sum(planned.estimate_s for planned in running)

    @property
    def connections(self) -> int:
        """Connections that a client has ready for any of the cells."""
        return max((planned.cell.load.connections for planned in self.cells), default=1)


def make_plan(
    build: Build,
    tokenizer: Tokenizer,
    selection: Selection,
    cells: Sequence[Cell],
    left_out: Mapping[str, str],
    rounds: int | None = None,
    *,
    engine: Mapping[str, Any] | None = None,
) -> Plan:
    """Join ``cells`` with their scenarios and hold them against the limits of ``build``.

    Raises:
        ScenarioError: prompts cannot be read, or the build's tokenizer cannot make them.
    """
    scenarios = {scenario.name: scenario for scenario in selection.scenarios}
    planned = tuple(_planned(build, tokenizer, scenarios[cell.scenario], cell, rounds) for cell in cells)
    return Plan(
        build=build,
        tokenizer=tokenizer,
        set_name=selection.set_name,
        cells=planned,
        left_out=left_out,
        engine=engine or {},
    )


def _planned(build: Build, tokenizer: Tokenizer, scenario: Scenario, cell: Cell, rounds: int | None) -> PlannedCell:
    requests = round_requests(scenario, cell, tokenizer, round_index=0, seed=scenario.sampling.seed)
    lengths = [len(request.prompt_ids) for request in requests]
    a_cell_s = estimate_s(
        cell,
        scenario,
        prompt_tokens=sum(lengths) / len(lengths),
        step_s=ASSUMED_STEP_S,
        prefill_token_s=ASSUMED_PREFILL_TOKEN_S,
        rounds=rounds,
    )
    return PlannedCell(
        cell=cell,
        scenario=scenario,
        rounds=rounds or scenario.rounds,
        prompt_tokens=(min(lengths), max(lengths)),
        not_applicable=_not_run_as_asked(build, scenario, cell)
        or batch_exceeded(build, cell.load.connections)
        or _too_much(build, scenario, requests),
        estimate_s=a_cell_s,
    )


def _too_much(build: Build, scenario: Scenario, requests: Sequence[Request]) -> str | None:
    """What keeps a request from being asked, and the line that asks for it: ids first, then lengths, the longest first.

    Any prompt must leave room for the longest answer, but where each line says how long its own is.
    """
    longest = max(request.output_tokens for request in requests)

    def length(request: Request) -> str | None:
        answer = request.output_tokens if scenario.own_lengths else longest
        return limit_exceeded(build.limits, len(request.prompt_ids), answer)

    ordered = sorted(requests, key=lambda each: len(each.prompt_ids) + each.output_tokens, reverse=True)
    reasons: dict[str, str] = {}  # by source
    for why in (partial(_unknown_id, build), length, attrgetter("unfit")):
        for request in ordered:
            if reason := why(request):
                reasons.setdefault(request.source, reason)
    if not reasons:
        return None
    source, reason = next(iter(reasons.items()))
    others = f" (others that do not fit: {len(reasons) - 1})" if len(reasons) > 1 else ""
    return f"{source}: {reason}{others}" if source else reason


def _unknown_id(build: Build, request: Request) -> str | None:
    known, highest = build.shape.vocabulary, max(request.prompt_ids)
    if known is None or highest < known:
        return None
    return f"token id {highest} is beyond the build's vocabulary of {known}"


def _not_run_as_asked(build: Build, scenario: Scenario, cell: Cell) -> str | None:
    """A server keeps its KV cache as it was configured, whatever a scenario asks."""
    return reuses_no_kv_cache(build) if scenario.kv_cache_reuse and cell.path == "direct" else None
