"""What will be measured without pytest: of two builds the same cells, the endpoints that decide, and the budget.

Starts no engine. What cannot be compared is refused here, before anything is measured.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from enginebench.builds.model import Build
from enginebench.builds.tokenizer import Tokenizer, open_tokenizer
from enginebench.decide.looks import LOOKS, looks_within
from enginebench.decide.model import Endpoint, Problem
from enginebench.errors import RunError, ScenarioError
from enginebench.plan.cells import PATHS, Cell
from enginebench.plan.expand import Expansion, expand, requests_per_round
from enginebench.plan.scenario import MEMORY, scenario_facts
from enginebench.plan.selection import Selection, load_selection
from enginebench.run.ab_memory import REASON
from enginebench.run.ab_schedule import SIDES, Side
from enginebench.run.attached import EMBEDDED, OF_CHECKPOINTS, Attached, OwnServer
from enginebench.run.direct import read_settings, runtime_of
from enginebench.run.endpoints import default_gates, floor, read_gates, scenario_gates
from enginebench.run.managed import check_own_server
from enginebench.run.plan import Plan, make_plan
from enginebench.server.filling import read_overrides

MOST_PAIRS = LOOKS[-1]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person asks for; the words of the command line."""

    scenarios: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()  # patterns such as *-bs008; none: all cells
    gates: tuple[str, ...] = ()
    engine: tuple[str, ...] = ()  # KEY=VALUE
    rounds: int | None = None
    templates: Path | None = None
    overrides: tuple[str, ...] = ()  # MODEL.VARIABLE=VALUE
    co_resident: bool = False


def wishes_of(options: Any) -> Wishes:
    """The wishes on a command line that ``compare_options.add_choices`` read."""
    return Wishes(
        scenarios=tuple(options.scenario),
        paths=tuple(options.path),
        cells=tuple(options.cell),
        gates=tuple(getattr(options, "gate", ())),
        engine=tuple(options.engine),
        rounds=options.rounds,
        templates=options.templates,
        overrides=tuple(options.set),
        co_resident=getattr(options, "co_resident", False),
    )


@dataclass(frozen=True, slots=True)
class AbPlan:
    """Two builds, the cells that both can run, and what decides. ``gate_source``: who named the endpoints.

    ``attached``: what is asked of servers that are started. ``warnings``: what there is to worry about in them.
    ``co_resident``: both engines are loaded once and stay, in place of anew for every block.
    """

    plans: Mapping[Side, Plan]
    gated: tuple[Endpoint, ...]
    gate_source: str
    pairs: int
    problems: tuple[Problem, ...] = ()
    attached: Attached = field(default_factory=Attached)
    warnings: tuple[str, ...] = ()
    co_resident: bool = False

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they are measured in every block."""
        return tuple(planned.cell for planned in self.plans["old"].cells)

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of pairs at which is decided."""
        return looks_within(self.pairs)

    @property
    def base_seed(self) -> int:
        """From which the seeds of pairs follow."""
        return self.plans["old"].cells[0].scenario.sampling.seed

    @property
    def pair_s(self) -> float:
        """About how long one pair takes."""
        return sum(plan.estimate_s for plan in self.plans.values())


def plan_ab(builds: Mapping[Side, Build], wishes: Wishes, root: Path, pairs: int | None = None) -> AbPlan:
    """Plan an A/B measurement of two builds; ``pairs``: the most, by default as many as the last look needs.

    Raises:
        EnginebenchError: a choice that is none, or builds that cannot be compared.
    """
    pairs = MOST_PAIRS if pairs is None else pairs
    _check_counts(wishes, pairs)
    plans, problems = plan_sides(builds, wishes, root)
    gated, source = gates_of(plans["old"], wishes.gates)
    _check_floors(gated, plans["old"])
    if wishes.co_resident:
        check_together(plans, gated)
    attached = attached_of(wishes, plans["old"])
    warnings = [f"{side}: {each}" for side in SIDES for each in check_servers(plans[side], attached)]
    return AbPlan(plans, gated, source, pairs, problems, attached, tuple(warnings), wishes.co_resident)


def check_together(plans: Mapping[Side, Plan], gated: Sequence[Endpoint]) -> None:
    """Raise RunError when both engines cannot stay loaded, or what is gated cannot be known of engines that do."""
    cells = [each.cell for each in plans["old"].cells]
    if away := [cell for cell in cells if cell.path != "direct"]:
        raise RunError(
            f"--co-resident keeps engines loaded on the path 'direct' alone, and cell {away[0].id} is on another: "
            "add --path direct, or leave --co-resident out."
        )
    if len({each.scenario.kv_cache_reuse for each in plans["old"].cells}) > 1:
        raise RunError(
            "--co-resident loads each engine once, and kv_cache_reuse is on in some cells and off in others."
        )
    for plan in plans.values():
        if not _has_fixed_pool(plan):
            raise RunError(
                f"--co-resident needs KV pools of a fixed size, and that of {plan.build.name} is none: add --engine "
                "kv_cache_tokens=N, or max_tokens to the kv_cache_config of its llm_args file, or leave it out."
            )
    if any(each.metric == MEMORY for each in gated):
        raise RunError(f"--co-resident cannot gate {MEMORY}, since {REASON}: leave one of them out.")


def _has_fixed_pool(plan: Plan) -> bool:
    if plan.build.kind == "reference":
        return True
    options = runtime_of(plan.build, plan.engine)[1]
    return bool(options.get("kv_cache_tokens") or (options["llm_args"].get("kv_cache_config") or {}).get("max_tokens"))


def attached_of(wishes: Wishes, plan: Plan) -> Attached:
    """What is asked of the servers that are started for ``plan``. Raises ServerError for a value of no variable."""
    bls = any(each.cell.path == "bls" for each in plan.cells)
    return Attached(own=OwnServer(wishes.templates, read_overrides(wishes.overrides), bls=bls))


def check_servers(plan: Plan, attached: Attached) -> tuple[str, ...]:
    """What there is to worry about in servers for ``plan``; raises ServerError when one cannot be started."""
    return check_own_server(plan, attached, list(dict.fromkeys(each.cell.path for each in plan.cells)))


def plan_one(build: Build, wishes: Wishes, root: Path) -> Plan:
    """A plan of one build for the cells that it can run, driven without pytest. Raises EnginebenchError."""
    _check_rounds(wishes)
    selection = load_selection(wishes.scenarios, root / "scenarios")
    expansion = _chosen(expand(selection, wishes.paths), wishes.cells, [build])
    tokenizer = open_tokenizer(build)
    plan = _plan(build, tokenizer, selection, expansion, wishes)
    limits = {each.cell.id: each.not_applicable for each in plan.cells if each.not_applicable}
    shared = _without(expansion, {"new": limits})
    if not shared.cells:
        raise RunError(f"No cell can be measured: {next(iter(limits.values()))}. Choose another --scenario.")
    return _plan(build, tokenizer, selection, shared, wishes)


def plan_sides(
    builds: Mapping[Side, Build], wishes: Wishes, root: Path
) -> tuple[dict[Side, Plan], tuple[Problem, ...]]:
    """The plans of both builds for the cells that both can run, and what one of them cannot."""
    selection = load_selection(wishes.scenarios, root / "scenarios")
    expansion = _chosen(expand(selection, wishes.paths), wishes.cells, builds.values())
    tokenizers = {side: open_tokenizer(build) for side, build in builds.items()}
    first = {side: _plan(build, tokenizers[side], selection, expansion, wishes) for side, build in builds.items()}
    _same_prompts(first)
    limits = {side: {each.cell.id: each.not_applicable for each in plan.cells if each.not_applicable}
              for side, plan in first.items()}  # fmt: skip
    shared = _without(expansion, limits)
    if not shared.cells:
        reason = next(iter([*limits["new"].values(), *limits["old"].values()]))
        raise RunError(f"No cell can be measured with both builds: {reason}. Choose another --scenario.")
    plans = {side: _plan(build, tokenizers[side], selection, shared, wishes) for side, build in builds.items()}
    return plans, _one_sided(limits)


def gates_of(plan: Plan, texts: Sequence[str]) -> tuple[tuple[Endpoint, ...], str]:
    """The gated endpoints: those of the command line, else those of the scenarios, else the default ones."""
    cells = cell_heads(plan)
    if texts:
        return read_gates(texts, cells), "--gate"
    scenarios = {each.scenario.name: scenario_facts(each.scenario) for each in plan.cells}
    if found := scenario_gates(scenarios, cells):
        return found, "the scenario"
    return default_gates(cells), "the default"


def cell_heads(plan: Plan) -> dict[str, dict[str, Any]]:
    """The cells of a plan as far as endpoints ask."""
    cells = [each.cell for each in plan.cells]
    return {cell.id: {"scenario": cell.scenario, "path": cell.path, "streaming": cell.streaming} for cell in cells}


def _check_counts(wishes: Wishes, pairs: int) -> None:
    if pairs < 2:
        raise RunError(f"--pairs {pairs} cannot decide anything: give 2 at least, better {LOOKS[0]} or more.")
    _check_rounds(wishes)


def _check_rounds(wishes: Wishes) -> None:
    if wishes.rounds is not None and wishes.rounds < 1:
        raise RunError(f"--rounds {wishes.rounds} is not possible; give 1 or more.")


def _chosen(expansion: Expansion, patterns: Sequence[str], builds: Collection[Build]) -> Expansion:
    cells = tuple(cell for cell in expansion.cells if not patterns or _matches(cell, patterns))
    if not cells:
        ids = ", ".join(cell.id for cell in expansion.cells[:4])
        raise ScenarioError(f"--cell {' '.join(patterns)} leaves no cell; there are {ids}, … (* stands for anything)")
    offered = [path for path in PATHS if path == "direct" or all(path in _offered(build) for build in builds)]
    if away := {cell.path for cell in cells} - set(offered):
        raise RunError(
            f"The path {sorted(away)[0]!r} needs a server that cannot be started for "
            f"{' and '.join(build.name for build in builds)}, and every block starts anew what it measures: choose "
            f"among {', '.join(offered)}."
        )
    return replace(expansion, cells=cells)


def _offered(build: Build) -> Sequence[str]:
    return OF_CHECKPOINTS if build.kind == "pytorch" else EMBEDDED


def _matches(cell: Cell, patterns: Sequence[str]) -> bool:
    return any(fnmatch(cell.id, pattern) or pattern in cell.id for pattern in patterns)


def _plan(build: Build, tokenizer: Tokenizer, selection: Selection, expansion: Expansion, wishes: Wishes) -> Plan:
    engine = read_settings(wishes.engine, build, [cell.path for cell in expansion.cells])
    return make_plan(build, tokenizer, selection, expansion.cells, expansion.left_out, wishes.rounds, engine=engine)


def _same_prompts(plans: Mapping[Side, Plan]) -> None:
    """Raise RunError when the tokenizers of the builds make prompts of different lengths."""
    for old, new in zip(*(plans[side].cells for side in SIDES), strict=True):
        if old.prompt_tokens != new.prompt_tokens:
            raise RunError(
                f"Cell {old.cell.id} has prompts of {_span(old.prompt_tokens)} tokens with the old build and "
                f"{_span(new.prompt_tokens)} with the new one: builds with different tokenizers cannot be compared."
            )


def _span(lengths: tuple[int, int]) -> str:
    return str(lengths[0]) if lengths[0] == lengths[1] else f"{lengths[0]} to {lengths[1]}"


def _without(expansion: Expansion, limits: Mapping[Side, Mapping[str, str]]) -> Expansion:
    reasons = {
        cell_id: f"not applicable to the {side} build: {reason}"
        for side, each in limits.items()
        for cell_id, reason in each.items()
    }
    cells = tuple(cell for cell in expansion.cells if cell.id not in reasons)
    return Expansion(cells, {**expansion.left_out, **reasons})


def _one_sided(limits: Mapping[Side, Mapping[str, str]]) -> tuple[Problem, ...]:
    """Cells that the old build can run and the new one cannot: nothing that a gate may pass over."""
    lost = [(cell_id, reason) for cell_id, reason in limits["new"].items() if cell_id not in limits["old"]]
    return tuple(
        Problem("cell", f"Cell {cell_id} cannot run on the new build: {reason}.", "applicable", "not applicable")
        for cell_id, reason in lost
    )


def _check_floors(gated: Sequence[Endpoint], plan: Plan) -> None:
    """Raise RunError for a percentile that a block has too few requests for."""
    by_id = {each.cell.id: each for each in plan.cells}
    for each in gated:
        planned = by_id.get(each.cell_id)
        if planned is None:
            continue
        requests = requests_per_round(planned.scenario, planned.cell.load) * planned.rounds
        if requests < floor(each):
            raise RunError(
                f"{each.key} needs {floor(each)} requests a block, and there are {requests}: add rounds or requests, "
                "or gate a lower percentile."
            )
