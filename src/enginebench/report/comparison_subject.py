"""What the page of a comparison is made from: the comparison, both records, and what its charts need beside them.

Also the words for cells and the scale of harm that its parts share. Strings and numbers out, no looks.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.decide.model import Endpoint, Samples, Verdict
from enginebench.report.cells import CellView, Json, cells_of
from enginebench.report.comparison import Comparison
from enginebench.report.comparison_words import metric_title
from enginebench.report.trend import Series

SIDES = ("old", "new")
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 100.0, 1000.0)
_MOST_TICKS = 3
"""On either side of no change."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that the page of a comparison may show.

    ``runs``: run.json of the old and the new run. ``directories``: theirs; None for a baseline, which has no tables.
    ``samples``: by the key of a gated endpoint, those of discarded pairs included. ``history``: of each build's name
    the series of its stored runs.
    """

    comparison: Comparison
    runs: tuple[Json, Json]
    directories: tuple[Path | None, Path | None] = (None, None)
    samples: Mapping[str, Samples] | None = None
    history: tuple[tuple[str, tuple[Series, ...]], ...] = ()

    def cells(self) -> tuple[Mapping[str, CellView], Mapping[str, CellView]]:
        """The cells of both runs, by id."""
        old, new = ({cell.id: cell for cell in cells_of(run)} for run in self.runs)
        return old, new

    def names(self) -> Mapping[str, str]:
        """Every cell by as few words as tell it from the others."""
        old, new = self.cells()
        return short_names(list({**new, **old}.values()))


def short_names(cells: Sequence[CellView]) -> Mapping[str, str]:
    """By id: the load, and what else is not the same in all ``cells``."""
    parts = {cell.id: _parts(cell) for cell in cells}
    varied = [len({each[place] for each in parts.values()}) > 1 for place in range(5)]
    varied[-1] = True
    return {
        cell_id: ", ".join(part for part, there in zip(each, varied, strict=True) if there)
        for cell_id, each in parts.items()
    }


def _parts(cell: CellView) -> tuple[str, ...]:
    mode = "streaming" if cell.streaming else "whole answers"
    return cell.scenario, cell.path, mode, f"{cell.output_words} tokens out", cell.load.words


def endpoint_words(verdict: Verdict, names: Mapping[str, str]) -> str:
    """``TPOT p50, direct, batch 4``."""
    return f"{metric_title(verdict)}, {names.get(verdict.endpoint.cell_id, verdict.endpoint.cell_id)}"


def harm(endpoint: Endpoint, change: float | None) -> float | None:
    """ln(new/old) with its sign turned so that above zero is worse; None for what has no finite logarithm."""
    if change is None or not math.isfinite(change) or change <= -1:
        return None
    size = math.log1p(change)
    return size if endpoint.better == "lower" else -size


def harms(verdict: Verdict) -> tuple[float, float, float] | None:
    """Lower end, estimate and upper end of a verdict's harm; None without an interval."""
    found = [harm(verdict.endpoint, value) for value in (verdict.low, verdict.change, verdict.high)]
    low, middle, high = found
    if low is None or middle is None or high is None:
        return None
    return min(low, high), middle, max(low, high)


def worst_cells(comparison: Comparison, most: int) -> tuple[str, ...]:
    """Cells with verdicts, those first that a gated number, and then any, got worst in."""
    known = [(each, found[1]) for each in comparison.verdicts if (found := harms(each)) and not each.endpoint.exact]
    ranked = sorted(known, key=lambda pair: (pair[0].endpoint.kind != "gated", -pair[1]))
    return tuple(dict.fromkeys(verdict.endpoint.cell_id for verdict, _ in ranked))[:most]


def harm_ticks(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Round changes that ``values`` (harms) reach, on either side of none, as ticks: 5% is a factor of 1.05."""
    reach = max(abs(value) for value in values)
    left, right = (list(_side(max((sign * value for value in values), default=0.0), reach)) for sign in (-1.0, 1.0))
    return (
        *((-math.log1p(step), _tick(step)) for step in reversed(left)),
        (0.0, "0"),
        *((math.log1p(step), _tick(step)) for step in right),
    )


def _side(end: float, reach: float) -> Iterator[float]:
    """The largest steps up to ``end``, far enough apart to be read."""
    reached = [step for step in _STEPS if math.log1p(step) <= end * 1.02]
    kept: list[float] = []
    for step in reversed(reached):
        before = math.log1p(kept[-1]) if kept else math.inf
        if before - math.log1p(step) > reach / 5 and math.log1p(step) > reach / 5 and len(kept) < _MOST_TICKS:
            kept.append(step)
    yield from reversed(kept)


def _tick(step: float) -> str:
    return f"{step * 100:g}%" if step < 5 else f"{step + 1:g}×"
