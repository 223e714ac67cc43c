"""Several runs of one workload side by side, as plain data: the page, the terminal's table and the JSON are made of it.

Describes and decides nothing: a ratio is one number over that of the first run, the reference. Seconds, bytes, joules.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from enginebench.decide.comparable import asked, comparable
from enginebench.decide.model import Problem
from enginebench.errors import RunError
from enginebench.report import trust
from enginebench.report.cells import STATUS_WORDS, CellView, Json, cells_of, path_rank
from enginebench.report.compare import overlap
from enginebench.report.lineup_quantities import OUTSIDE, Quantity, chosen
from enginebench.report.looks import BUILDS
from enginebench.report.summary import is_reference

SCHEMA = "enginebench/lineup/1"
FILE = "lineup.json"


@dataclass(frozen=True, slots=True)
class Given:
    """A run or baseline as it is put in. ``named``: what a command calls it; the rest: GPU memory of each path."""

    run: Json
    named: str
    outside_bytes: Mapping[str, float]  # outside the KV pool
    why_none: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Entrant:
    """One of the runs. ``label``: its build, unlike every other label; ``role``: how its marks look."""

    label: str
    role: str
    given: Given
    cells: Mapping[str, CellView]

    @property
    def run(self) -> Json:
        """Its run.json."""
        return self.given.run


@dataclass(frozen=True, slots=True)
class Value:
    """A number of a cell. ``ratio``: to the reference; ``why``: there is no number; ``why_no_ratio``: though there is.

    ``overlaps``: its rounds reach into those of the reference, so that rounds do not tell them apart.
    """

    number: float | None
    ratio: float | None = None
    overlaps: bool = False
    why: str = ""
    why_no_ratio: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a run has of a cell. ``values``: one of each quantity where it was measured.

    ``reason``: why it was not, or why its numbers are not to be trusted. ``alike``: the reference was asked the same.
    """

    entrant: Entrant
    cell: CellView | None
    status: str
    status_words: str
    values: tuple[Value, ...] = ()
    reason: str = ""
    alike: bool = True

    @property
    def measured(self) -> bool:
        """Whether the run has numbers of the cell."""
        return self.cell is not None and self.cell.measured


@dataclass(frozen=True, slots=True)
class Row:
    """A cell with an entry a run, in the order of the runs."""

    cell: CellView
    entries: tuple[Entry, ...]

    @property
    def measured(self) -> int:
        """By how many runs."""
        return sum(entry.measured for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Lineup:
    """The runs, the first of them the reference. ``problems``: by label, what keeps it from being compared with that.

    ``absent``: quantities of which no run has a value.
    """

    entrants: tuple[Entrant, ...]
    quantities: tuple[Quantity, ...]
    absent: tuple[Quantity, ...]
    rows: tuple[Row, ...]
    problems: Mapping[str, tuple[Problem, ...]]

    @property
    def reference(self) -> Entrant:
        """What ratios are of."""
        return self.entrants[0]

    @property
    def id(self) -> str:
        """A name for a directory: the reference's id, and how those of the others end."""
        ids = [str(entrant.run["id"]) for entrant in self.entrants]
        return "_".join([ids[0], *(each.rsplit("-", 1)[-1] for each in ids[1:])])[:200]

    @property
    def created(self) -> str:
        """When the latest of the runs began."""
        return max(str(entrant.run["created"]) for entrant in self.entrants)

    @property
    def of_reference_engine(self) -> tuple[str, ...]:
        """Labels of the runs whose numbers stand for no other engine."""
        return tuple(entrant.label for entrant in self.entrants if is_reference(entrant.run))

    def as_json(self) -> dict[str, Any]:
        """The content of ``lineup.json``."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "created": self.created,
            "runs": [_run_json(entrant) for entrant in self.entrants],
            "problems": {label: [asdict(each) for each in found] for label, found in self.problems.items()},
            "cells": {row.cell.id: [_entry_json(entry, self.quantities) for entry in row.entries] for row in self.rows},
        }


def lineup_json(lineup: Lineup) -> str:
    """The text of ``lineup.json``."""
    return json.dumps(lineup.as_json(), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def line_up(given: Sequence[Given]) -> Lineup:
    """Put runs side by side, the first as the reference.

    Raises:
        RunError: too many, one twice, or one without a measured cell, or without one that the reference has.
    """
    _refuse(given)
    labels = _labels([each.run for each in given])
    entrants = tuple(
        Entrant(label, role, each, {cell.id: cell for cell in cells_of(each.run)})
        for label, role, each in zip(labels, BUILDS, given, strict=False)
    )
    _refuse_strangers(entrants)
    first, *others = entrants
    quantities, absent = chosen(
        (entrant.given.outside_bytes, cell) for entrant in entrants for cell in entrant.cells.values()
    )
    return Lineup(
        entrants=entrants,
        quantities=quantities,
        absent=absent,
        rows=tuple(_row(cell, entrants, quantities) for cell in _cells(entrants)),
        problems={each.label: _problems(first.run, each.run) for each in others},
    )


def _refuse(given: Sequence[Given]) -> None:
    if len(given) > len(BUILDS):
        raise RunError(f"{len(given)} runs are too many for one page: name {len(BUILDS)} at most.")
    for run_id, times in Counter(str(each.run["id"]) for each in given).items():
        if times > 1:
            raise RunError(f"Run {run_id} is named {times} times: name each run once.")
    for each in given:
        if all(cell["status"] != "measured" for cell in each.run["cells"].values()):
            raise RunError(f"Run {each.run['id']} has no measured cell: leave it out, or measure it again.")


def _refuse_strangers(entrants: Sequence[Entrant]) -> None:
    """A run that has nothing in common with the reference has no place beside it."""
    first, *others = entrants
    for each in others:
        if not any(cell.measured and _is_measured(first, cell.id) for cell in each.cells.values()):
            raise RunError(
                f"Run {each.run['id']} measured no cell that {first.run['id']}, the first, did too: leave it out, or "
                "measure both with the same scenario and paths."
            )


def _is_measured(entrant: Entrant, cell_id: str) -> bool:
    return cell_id in entrant.cells and entrant.cells[cell_id].measured


def _labels(runs: Sequence[Json]) -> list[str]:
    """The names of the builds; with the run where several share one, and the reference engine where not all are it."""
    names = Counter(str(run["build"]["name"]) for run in runs)
    mixed = len({is_reference(run) for run in runs}) > 1
    return [
        str(run["build"]["name"])
        + (f", run {run['id']}" if names[run["build"]["name"]] > 1 else "")
        + (" (reference engine)" if mixed and is_reference(run) else "")
        for run in runs
    ]


def _problems(reference: Json, run: Json) -> tuple[Problem, ...]:
    """What keeps two runs from being compared; cells that one of them lacks are seen in the table."""
    return tuple(each for each in comparable(reference, run) if each.what != "cell")


def _cells(entrants: Sequence[Entrant]) -> list[CellView]:
    """Every cell that some run wanted measured, each once: by scenario, answers and path, the loads rising."""
    found: dict[str, CellView] = {}
    for entrant in entrants:
        for cell in entrant.cells.values():
            if cell.status != "left_out":
                found.setdefault(cell.id, cell)
    scenarios = list(dict.fromkeys(cell.scenario for cell in found.values()))
    return sorted(found.values(), key=lambda cell: (scenarios.index(cell.scenario), *_rank(cell)))


def _rank(cell: CellView) -> tuple[bool, int, float, int, str, tuple[int, str, float]]:
    return (
        not cell.streaming, cell.output_tokens, cell.output_stdev, path_rank(cell.path), cell.path, cell.load.rank,
    )  # fmt: skip


def _row(cell: CellView, entrants: Sequence[Entrant], quantities: Sequence[Quantity]) -> Row:
    return Row(cell, tuple(_entry(cell.id, each, entrants[0], quantities) for each in entrants))


def _entry(cell_id: str, entrant: Entrant, reference: Entrant, quantities: Sequence[Quantity]) -> Entry:
    cell = entrant.cells.get(cell_id)
    if cell is None:
        return Entry(entrant, None, "missing", "missing", reason="this run has no such cell")
    status = trust.status_of(cell.record, cell.status)
    words = trust.status_words(cell.record, STATUS_WORDS[cell.status])
    if not cell.measured:
        return Entry(entrant, cell, status, words, reason=cell.reason or "")
    alike = _asked_alike(entrant, reference, cell)
    values = tuple(_value(each, entrant, cell, reference, alike) for each in quantities)
    return Entry(entrant, cell, status, words, values, "; ".join(trust.reasons_of(cell.record)), alike)


def _value(quantity: Quantity, entrant: Entrant, cell: CellView, reference: Entrant, alike: bool) -> Value:
    number = quantity.of(entrant.given.outside_bytes, cell)
    if number is None:
        return Value(None, why=_why_none(quantity, entrant, cell))
    base = reference.cells.get(cell.id)
    if entrant is reference:
        return Value(number, 1.0)
    if base is None or not base.measured:
        return Value(number, why_no_ratio=f"{reference.label} did not measure this cell")
    if not alike:
        return Value(number, why_no_ratio=f"{reference.label} was asked something else in this cell")
    before = quantity.of(reference.given.outside_bytes, base)
    if not before:
        return Value(number, why_no_ratio=f"{reference.label} has no value")
    return Value(number, number / before, bool(quantity.metric) and overlap(base, cell, quantity.metric))


def _why_none(quantity: Quantity, entrant: Entrant, cell: CellView) -> str:
    if quantity is OUTSIDE:
        return entrant.given.why_none.get(cell.path, "not known")
    return cell.why_none(quantity.metric or "memory")


def _asked_alike(entrant: Entrant, reference: Entrant, cell: CellView) -> bool:
    """Whether a cell stands for the same question in both: its id promises it, and a scenario's file may change."""
    base = reference.cells.get(cell.id)
    scenarios = [each.run["plan"]["scenarios"].get(cell.scenario) for each in (entrant, reference)]
    if all(scenarios) and asked(scenarios[0]) != asked(scenarios[1]):
        return False
    return base is None or not base.measured or base.record.get("prompt_tokens") == cell.record.get("prompt_tokens")


def _run_json(entrant: Entrant) -> dict[str, Any]:
    run, build = entrant.run, entrant.run["build"]
    facts = {key: build[key] for key in ("name", "kind", "version", "fingerprint")}
    return {"label": entrant.label, "run": run["id"], "created": run["created"], "build": facts}


def _entry_json(entry: Entry, quantities: Sequence[Quantity]) -> dict[str, Any]:
    values = {
        quantity.name: {"value": value.number, "ratio": value.ratio, "rounds_overlap": value.overlaps}
        for quantity, value in zip(quantities, entry.values, strict=False)
    }
    return {"label": entry.entrant.label, "status": entry.status, "reason": entry.reason or None, "values": values}
