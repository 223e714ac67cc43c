"""Two runs → one comparison: endpoints chosen, samples taken, pairs discarded, decided, and the gate's answer.

Works on run.json alone, so that runs of any size are compared at once; the pure part is in ``decide``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from enginebench.decide.causes import causes
from enginebench.decide.comparable import comparable
from enginebench.decide.decisions import decide_pairs, decide_stored
from enginebench.decide.gate import gate
from enginebench.decide.model import Cause, Endpoint, Noise, Policy, Problem, Sample, Samples, Verdict
from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME
from enginebench.measure.validity import validity
from enginebench.plan.scenario import MEMORY, OF_GPU
from enginebench.report.comparison import Compared, Comparison, Design, Discarded, Turn
from enginebench.run.ab_schedule import SIDES
from enginebench.run.endpoints import (
    blocks_of,
    default_gates,
    read_gates,
    samples_of,
    scenario_gates,
    watched,
    why_no_memory,
)
from enginebench.run.machine import machine_words

Json = Mapping[str, Any]

ONE_LOAD = (
    "Both engines were loaded once and stayed loaded side by side: a block is not a load of its own, so that this "
    "holds for these two loads alone; others of the same builds may differ by more."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """How two runs are to be compared. ``gates``: CELL:METRIC:MARGIN, in place of those that the runs name."""

    policy: Policy = "release"
    allow: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    noise: Noise | None = None
    noise_sessions: int = 0
    sources: tuple[str, str] = ("run", "run")
    problems: tuple[Problem, ...] = ()


def compare(
    old: Json, new: Json, terms: Terms, directories: tuple[str | None, str | None] = (None, None)
) -> Comparison:
    """Compare two runs (run.json), paired when ``enginebench ab`` made them together.

    Raises:
        RunError: a gate that is none, a run is compared with itself, or the sides of an A/B measurement are swapped.
    """
    _refuse(old, new)
    gated, source = _gated(old, new, terms.gates)
    problems = (*comparable(old, new, terms.allow), *_allowed([*_unmeasured(old, new, gated), *terms.problems], terms))
    endpoints = sorted((*gated, *watched(gated, (old, new))), key=lambda each: each.kind != "gated")
    design = _design(old, new, source, terms)
    verdicts = _decide(endpoints, (old, new), design, terms.noise) if _may_decide(problems) else ()
    return Comparison(
        id=f"{old['id']}_{new['id']}",
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        old=_compared(old, directories[0], terms.sources[0]),
        new=_compared(new, directories[1], terms.sources[1]),
        design=design,
        verdicts=verdicts,
        gate=gate(verdicts, problems, terms.policy),
        problems=problems,
        causes=_causes(old, new, verdicts),
        notes=tuple(_notes(design)),
        units={each.metric: _unit(each.metric) for each in endpoints},
    )


def _refuse(old: Json, new: Json) -> None:
    if old["id"] == new["id"]:
        raise RunError(f"Both runs are {old['id']}: a run cannot be compared with itself; name another one.")
    if made_together(old, new) and old["ab"]["side"] != "old":
        raise RunError(f"{old['id']} is the new side of this A/B measurement: name {new['id']} first.")


def _allowed(problems: Sequence[Problem], terms: Terms) -> list[Problem]:
    return [replace(each, allowed=each.what in terms.allow) for each in problems]


def made_together(one: Json, other: Json) -> bool:
    """Whether the runs are the two sides of one A/B measurement."""
    return bool((one.get("ab") or {}).get("other") == other["id"] and (other.get("ab") or {}).get("other") == one["id"])


def discarded_pairs(old: Json, new: Json) -> tuple[Discarded, ...]:
    """Pairs of blocks that one side could not measure well enough: by the instrument's fault, never by the build's."""
    return tuple(
        Discarded(entry["pair"], cell_id, side, reason)
        for side, run in zip(SIDES, (old, new), strict=True)
        for cell_id, cell in run["cells"].items()
        for entry in blocks_of(cell)
        if entry["pair"] is not None and (reason := _spoilt(entry))
    )


def take_samples(endpoint: Endpoint, old: Json, new: Json, discarded: Iterable[Discarded]) -> Samples:
    """The blocks of both runs, without those of discarded pairs."""
    spoilt = {each.pair for each in discarded if each.cell_id == endpoint.cell_id}
    sides = [_kept(samples_of(run, endpoint), spoilt) for run in (old, new)]
    return Samples(*sides)


def _kept(samples: Sequence[Sample], spoilt: Collection[int]) -> tuple[Sample, ...]:
    return tuple(sample for sample in samples if sample.pair not in spoilt)


def _spoilt(entry: Json) -> str | None:
    """Late requests, a clock that was set, throttling and the like; not the client's error, which all blocks have."""
    if entry["broken"] is not None:
        lost = entry["rounds"] and not entry["failed_requests"] and not entry["metrics"]
        return str(entry["broken"]) if lost else None
    judged = entry.get("validity") or {}
    of_the_client = [each["level"] for each in (judged.get("endpoints") or {}).values()]
    if judged.get("level") == "invalid" and "invalid" not in of_the_client:
        return "; ".join(judged["reasons"])
    alone = validity({name: {"summary": summary} for name, summary in entry["metrics"].items()}, calibration=None)
    return "; ".join(alone.reasons[:-1]) if alone.level == "invalid" else None  # the last: not calibrated


def _decide(
    endpoints: Sequence[Endpoint], runs: tuple[Json, Json], design: Design, noise: Noise | None
) -> tuple[Verdict, ...]:
    samples = {each: take_samples(each, *runs, design.discarded) for each in endpoints}
    verdicts = decide_pairs(samples, design.looks) if design.paired else decide_stored(samples, noise)
    return tuple(_of_gpu(_resolved(verdict, runs), runs, samples[verdict.endpoint]) for verdict in verdicts)


def _of_gpu(verdict: Verdict, runs: tuple[Json, Json], samples: Samples) -> Verdict:
    """No verdict on a number of the GPU that a run has no value of, with the reason."""
    endpoint = verdict.endpoint
    failed = verdict.outcome == "regression"  # by failed requests, which need no value
    if failed or endpoint.metric not in (*OF_GPU, MEMORY):
        return verdict
    for side, run, blocks in zip(SIDES, runs, (samples.old, samples.new), strict=True):
        if all(block.value is None for block in blocks):
            reason = f"The {side} run has no value: {_no_value(endpoint, run)}."
            return replace(verdict, outcome="invalid", reasons=(reason,), pairs_needed=None)
    return verdict


def _no_value(endpoint: Endpoint, run: Json) -> str:
    if endpoint.metric == MEMORY:
        return why_no_memory(run, endpoint.cell_id)
    known = run["cells"].get(endpoint.cell_id, {}).get("gpu")
    return "its GPU does not tell what it is made of" if known else "no GPU"


def _resolved(verdict: Verdict, runs: tuple[Json, Json]) -> Verdict:
    """A verdict on what the client could not resolve is none."""
    endpoint = verdict.endpoint
    errors = [_client_error(run["cells"].get(endpoint.cell_id, {}), endpoint.name) for run in runs]
    worst = max((error for error in errors if error is not None), default=0.0)
    if worst <= endpoint.margin:
        return verdict
    reason = f"The client's own error is {worst:.1%}, more than the margin: see validity in run.json."
    return replace(verdict, outcome="invalid", reasons=(*verdict.reasons, reason), pairs_needed=None)


def _client_error(cell: Json, name: str) -> float | None:
    relative = ((cell.get("validity") or {}).get("endpoints") or {}).get(name, {}).get("relative")
    return None if relative is None else abs(relative)


def _may_decide(problems: Sequence[Problem]) -> bool:
    """Nothing is said of runs that cannot be compared; a missing cell leaves the others."""
    return all(each.allowed or each.what == "cell" for each in problems)


def _gated(old: Json, new: Json, texts: Sequence[str]) -> tuple[tuple[Endpoint, ...], str]:
    cells = {**new["cells"], **old["cells"]}
    if texts:
        return read_gates(texts, cells), "--gate"
    for run in (new, old):
        if named := (run.get("ab") or {}).get("gated"):
            return tuple(Endpoint(**each) for each in named), run["ab"]["gate_source"]
    if found := scenario_gates({**new["plan"]["scenarios"], **old["plan"]["scenarios"]}, cells):
        return found, "the scenario"
    return default_gates(cells), "the default"


def _unmeasured(old: Json, new: Json, gated: Iterable[Endpoint]) -> Iterator[Problem]:
    """Gated cells that the old run has no number of; those that the new one lacks are found by whoever compares."""
    for cell_id in dict.fromkeys(each.cell_id for each in gated if each.metric != MEMORY):
        cell = old["cells"].get(cell_id, {"status": "missing", "reason": None})
        if cell["status"] != "measured":
            why = f" ({str(cell['reason']).rstrip('.')})" if cell["reason"] else ""
            found = new["cells"].get(cell_id, {"status": "missing"})["status"]
            sentence = f"Cell {cell_id} is gated, and in the old run it is {cell['status']}{why}."
            yield Problem("cell", sentence, cell["status"], found)


def _design(old: Json, new: Json, source: str, terms: Terms) -> Design:
    if not made_together(old, new):
        return Design(paired=False, gate_source=source, noise_sessions=terms.noise_sessions or None)
    ab = old["ab"]
    turns = tuple(Turn(**each) for each in ab["order"])
    sides = {side: {turn.pair for turn in turns if turn.side == side} for side in SIDES}
    pairs = len(sides["old"] & sides["new"])
    return Design(
        paired=True,
        pairs=pairs,
        pairs_planned=ab["pairs_planned"],
        looks=tuple(ab["looks"]),
        stopped=ab["stopped"],
        gate_source=source,
        co_resident=ab.get("co_resident", False),
        turns=turns,
        discarded=discarded_pairs(old, new),
        smallest_effect=ab["smallest_effect"],
    )


def _notes(design: Design) -> Iterator[str]:
    if design.co_resident:
        yield ONE_LOAD
        if any(sum(turn.loads for turn in design.turns if turn.side == side) > 1 for side in SIDES):
            yield "An engine broke and was loaded again: blocks before and after it are not of one load."


def _causes(old: Json, new: Json, verdicts: Sequence[Verdict]) -> tuple[Cause, ...]:
    """What differs, when something got worse: beside the endpoint that did most."""
    worse = [each for each in verdicts if each.outcome == "regression" and each.endpoint.kind == "gated"]
    if not worse:
        return ()
    most = max(worse, key=lambda each: abs(each.change or 0.0))
    return causes(old, new, most.endpoint, most.change, verdicts)


def _compared(run: Json, directory: str | None, source: str) -> Compared:
    build, environment = run["build"], run["environment"]
    return Compared(
        run_id=run["id"],
        created=run["created"],
        build=build["name"],
        kind=build["kind"],
        fingerprint=build["fingerprint"],
        directory=directory,
        commit=(environment.get("git") or {}).get("commit"),
        host=machine_words(environment),
        source=source,
    )


def _unit(metric: str) -> str:
    return "bytes" if metric == MEMORY else BY_NAME[metric].unit
