"""Throughput against latency: which loads and paths nothing else beats on both.

From the summaries of the cells; the front is that of their medians and knows no noise.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

from enginebench.report import trust
from enginebench.report.cells import CellView, Json, cells_of, path_rank
from enginebench.report.compare import E2E, OUTPUT_RATE, TPOT, TTFT, Shown, doubts, metric_scale
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.units import Scale, count
from enginebench.report.view import Column, Table, Text

_T = TypeVar("_T")

MAX_FIGURES = 8
LEAD = (
    "Each point is a cell: up is more throughput, left is less waiting. The dotted line is the front: "
    "no other cell of the figure is better on both; INVALID cells are no part of it. "
    "Medians over all measured rounds."
)


@dataclass(frozen=True, slots=True)
class _Point:
    cell: CellView
    latency_s: float
    rate: float  # output tokens/s, of a GPU where their number is known

    @property
    def level(self) -> str:
        """``valid``, ``uncalibrated``, ``degraded`` or ``invalid``."""
        return trust.level_of(self.cell.record)


def pareto_section(run: Json, _directory: Path | None) -> Section | None:
    """A figure for each scenario, mode and length of answers with at least three cells."""
    gpus = gpus_of(run)
    key = _group_key
    measured = sorted((cell for cell in cells_of(run) if cell.measured), key=lambda cell: key(cell)[1:])
    order = list(dict.fromkeys(cell.scenario for cell in cells_of(run)))
    measured.sort(key=lambda cell: order.index(cell.scenario))
    groups = [list(members) for _, members in groupby(measured, key=key)]
    figures = [_figure(number, group, gpus) for number, group in enumerate(groups, 1) if len(group) >= 3]
    drawn = tuple(figure for figure in figures if figure.plots)
    return Section("pareto", "Throughput against latency", LEAD, drawn[:MAX_FIGURES]) if drawn else None


def gpus_of(run: Json) -> int | None:
    """How many GPUs every path of the run used, as its sessions say; None where one used none, or nobody knows."""
    used = {len(session.get("gpus") or ()) for session in run["sessions"]}
    return used.pop() or None if len(used) == 1 else None


def _group_key(cell: CellView) -> tuple[str, bool, int, float]:
    return cell.scenario, not cell.streaming, cell.output_tokens, cell.output_stdev


def _figure(number: int, cells: Sequence[CellView], gpus: int | None) -> Figure:
    first = cells[0]
    wanted = (TTFT, TPOT) if first.streaming else (E2E,)
    shown = {one: points for one in wanted if len(points := _points(cells, one, gpus)) >= 3}
    mode = "" if first.streaming else ", without streaming"
    title = f"{first.scenario}, {first.output_words} tokens out{mode}"
    scales = {one.metric: metric_scale(one, cells) for one in shown}
    return Figure(
        id=f"pareto-{number}",
        title=title,
        finding=" ".join(_sentence(one, points, scales[one.metric]) for one, points in shown.items()) + doubts(cells),
        plots=tuple(_plot(one, points, scales[one.metric], gpus) for one, points in shown.items()),
        table=_table(title, shown, scales, gpus),
    )


def _points(cells: Sequence[CellView], shown: Shown, gpus: int | None) -> list[_Point]:
    known = [(cell, cell.value(shown.metric), cell.value(OUTPUT_RATE.metric)) for cell in cells]
    return [
        _Point(cell, latency_s, rate / (gpus or 1))
        for cell, latency_s, rate in known
        if latency_s is not None and rate is not None
    ]


def front(points: Sequence[_Point]) -> list[_Point]:
    """The points that no other beats on both, by latency; INVALID ones aside."""
    sure = [point for point in points if point.level != "invalid"]
    return unbeaten(sure, lambda point: point.latency_s, lambda point: point.rate)


def unbeaten(points: Iterable[_T], cost: Callable[[_T], float], gain: Callable[[_T], float]) -> list[_T]:
    """The points than which no other costs less and gains more, the cheapest first."""
    best: list[_T] = []
    for point in sorted(points, key=lambda one: (cost(one), -gain(one))):
        if not best or gain(point) > gain(best[-1]):
            best.append(point)
    return best


def _plot(shown: Shown, points: Sequence[_Point], scale: Scale, gpus: int | None) -> Plot:
    edge = _marks("front", "line", front(points), scale, "muted")
    latencies = [point.latency_s for point in points]
    x = Axis(shown.title, scale.symbol, log=max(latencies) > 8 * min(latencies) > 0, from_zero=False, better="lower")
    y = Axis(_rate_words(gpus), better="higher")
    marks = (edge, *_dots(points, scale), *_rings(points, scale))
    return Plot(f"{_rate_words(gpus)} against {shown.title}", x, y, marks)


def _dots(points: Sequence[_Point], scale: Scale) -> Iterator[Marks]:
    ordered = sorted(points, key=lambda point: path_rank(point.cell.path))
    for path, members in groupby(ordered, key=lambda point: point.cell.path):
        yield _marks(path, "dots", list(members), scale, path)


def _rings(points: Sequence[_Point], scale: Scale) -> Iterator[Marks]:
    for level, role in trust.RINGS.items():
        if doubtful := [point for point in points if point.level == level]:
            yield replace(_marks(level.upper(), "dots", doubtful, scale, role), dashed=True)


def _marks(name: str, kind: Literal["line", "dots"], points: Sequence[_Point], scale: Scale, role: str) -> Marks:
    return Marks(
        name=name,
        kind=kind,
        x=tuple(point.latency_s * scale.factor for point in points),
        y=tuple(point.rate for point in points),
        texts=tuple(_words(point, scale) for point in points),
        role=role,
    )


def _words(point: _Point, scale: Scale) -> str:
    cell, mark = point.cell, trust.mark(point.cell.record)
    said = f"{cell.path}, {cell.load.words}: {scale.text(point.latency_s)}, {point.rate:,.1f} tokens/s"
    return f"{said}, {mark}" if mark else said


def _rate_words(gpus: int | None) -> str:
    return "Output tokens/s per GPU" if gpus else "Output tokens/s"


def _sentence(shown: Shown, points: Sequence[_Point], scale: Scale) -> str:
    best = front(points)
    if not best:
        return f"{shown.title}: no cell is on the front, none can be trusted."
    on_it = list(dict.fromkeys(point.cell.path for point in best))
    ends = f"from {scale.text(best[0].latency_s)} at {best[0].rate:,.1f} tokens/s"
    if len(best) > 1:
        ends += f" ({best[0].cell.load.words}) to {scale.text(best[-1].latency_s)} at {best[-1].rate:,.1f} tokens/s"
        ends += f" ({best[-1].cell.load.words})"
    return f"{shown.title}: {count(len(best), 'cell')} of {len(points)} on the front ({', '.join(on_it)}), {ends}."


def _table(caption: str, shown: dict[Shown, list[_Point]], scales: dict[str, Scale], gpus: int | None) -> Table:
    columns = [Column("Path", numeric=False), Column("Load", numeric=False), Column(_rate_words(gpus))]
    for one in shown:
        columns += [Column(one.title, scales[one.metric].symbol), Column("on the front", numeric=False)]
    fronts = {one: {point.cell.id for point in front(points)} for one, points in shown.items()}
    by_cell = {one: {point.cell.id: point for point in points} for one, points in shown.items()}
    rows = []
    for cell_id, point in next(iter(by_cell.values()), {}).items():
        cell = point.cell
        row = [Text(cell.path, path=cell.path), Text(cell.load.words), Text(f"{point.rate:,.1f}")]
        for one in shown:
            other = by_cell[one].get(cell_id)
            row.append(
                Text("—", "the path does not tell")
                if other is None
                else Text(scales[one.metric].number(other.latency_s))
            )
            row.append(Text("no: INVALID" if point.level == "invalid" else "yes" if cell_id in fronts[one] else "no"))
        rows.append(tuple(row))
    return Table(caption, tuple(columns), tuple(rows))
