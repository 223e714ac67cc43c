"""Series of stored runs as charts: one number of one cell over time, with its steps and what was new there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from enginebench.measure.metrics import BY_NAME
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.summary import date
from enginebench.report.trend import Point, Series, StepAt
from enginebench.report.units import DASH, Scale, count, percent, scale_for
from enginebench.report.view import Column, Table, Text

LEAD = (
    "One point a stored run, the oldest on the left, at equal distances. A line across marks a step: from there on the "
    "number was another, beyond chance (p < 0.001)."
)
MOST_FIGURES = 12
MOST_PLOTS = 4
"""Beside each other."""
_FEW = 9
"""So many runs are named below the axis; of more, every second, third … one is."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series as a page shows it: ``role`` is that of its marks, ``name`` that of its builds."""

    name: str
    role: str
    series: Series


def trend_section(lines: Sequence[Line]) -> Section | None:
    """A figure a cell; cells whose numbers stepped come first. None where no series has two points."""
    known = [each for each in lines if sum(point.value is not None for point in each.series.points) > 1]
    cells = {name: list(members) for name, members in groupby(sorted(known, key=_cell), key=_cell)}
    ranked = sorted(cells, key=lambda name: -sum(len(each.series.steps) for each in cells[name]))
    figures = tuple(
        figure for number, name in enumerate(ranked[:MOST_FIGURES], 1) for figure in _figures(number, name, cells[name])
    )
    if not figures:
        return None
    left_out = len(ranked) - MOST_FIGURES
    notes = (f"{count(left_out, 'more cell')} without room here: enginebench trend --cell names some.",)
    return Section("trend", "Trend", LEAD, figures, notes=notes if left_out > 0 else ())


def _cell(line: Line) -> tuple[str, str]:
    return line.series.machine, line.series.cell_id


def _figures(number: int, cell: tuple[str, str], lines: Sequence[Line]) -> Iterator[Figure]:
    metrics = list(dict.fromkeys(each.series.metric for each in lines))
    for part, start in enumerate(range(0, len(metrics), MOST_PLOTS)):
        shown = metrics[start : start + MOST_PLOTS]
        chosen = [each for each in lines if each.series.metric in shown]
        suffix = f"-{part + 1}" if len(metrics) > MOST_PLOTS else ""
        yield _figure(f"trend-{number}{suffix}", cell, shown, chosen)


def _figure(figure_id: str, cell: tuple[str, str], metrics: Sequence[str], lines: Sequence[Line]) -> Figure:
    machine, cell_id = cell
    runs = _runs(lines)
    plots = tuple(_plot(metric, [each for each in lines if each.series.metric == metric], runs) for metric in metrics)
    return Figure(figure_id, cell_id, f"{_finding(lines)} On {machine}.", plots, _table(cell_id, lines))


def _runs(lines: Iterable[Line]) -> list[Point]:
    """The runs of all series, each once, the oldest first."""
    found = {point.run_id: point for each in lines for point in each.series.points}
    return sorted(found.values(), key=lambda point: (point.created, point.run_id))


def _plot(metric: str, lines: Sequence[Line], runs: Sequence[Point]) -> Plot:
    first = lines[0].series
    scale = scale_for(first.unit, (point.value for each in lines for point in each.series.points))
    places = {point.run_id: float(place) for place, point in enumerate(runs, 1)}
    every = -(-len(runs) // _FEW)
    x = Axis("run", ticks=tuple((place, f"{place:g}") for place in list(places.values())[::every]), from_zero=False)
    title = metric_words(metric)
    unit = scale.symbol or ("" if first.unit in title else first.unit)
    y = Axis(title, unit, better="lower" if first.better == "lower" else "higher")
    marks = tuple(_marks(each, scale, places) for each in lines)
    rules = tuple(_rule(step, each.series, places) for each in lines for step in each.series.steps)
    return Plot(title, x, y, marks, rules)


def metric_words(name: str) -> str:
    """``tpot_p50`` as ``TPOT p50``."""
    metric, _, statistic = name.rpartition("_")
    return BY_NAME[name].title if name in BY_NAME else f"{BY_NAME[metric].title} {statistic}"


def _marks(line: Line, scale: Scale, places: dict[str, float]) -> Marks:
    points = line.series.points
    return Marks(
        name=line.name,
        kind="line",
        x=tuple(places[point.run_id] for point in points),
        y=tuple(None if point.value is None else point.value * scale.factor for point in points),
        texts=tuple(_words(point, scale) for point in points),
        role=line.role,
    )


def _words(point: Point, scale: Scale) -> str:
    value = "no value" if point.value is None else scale.text(point.value)
    commit = f", commit {point.commit[:10]}" if point.commit else ""
    return f"{point.run_id}, {point.build}{commit}: {value}"


def _rule(step: StepAt, series: Series, places: dict[str, float]) -> Rule:
    at = places[series.points[step.index].run_id]
    return Rule("x", at - 0.5, f"{percent(step.change)} {'worse' if step.worse else 'better'}")


def _finding(lines: Sequence[Line]) -> str:
    steps = [(each, step) for each in lines for step in each.series.steps]
    longest = max(len(each.series.points) for each in lines)
    if not steps:
        return f"No step in {count(longest, 'run')}."
    return " ".join(_step_words(each, step) for each, step in steps)


def _step_words(line: Line, step: StepAt) -> str:
    point = line.series.points[step.index]
    news = ", ".join(step.differs) or "nothing that is known"
    name = f" ({line.name})" if line.name else ""
    return (
        f"{metric_words(line.series.metric)}{name}: {percent(step.change)}, {'worse' if step.worse else 'better'}, "
        f"since {point.run_id}; new there: {news}."
    )


def _table(caption: str, lines: Sequence[Line]) -> Table:
    runs = _runs(lines)
    scales = [scale_for(each.series.unit, (point.value for point in each.series.points)) for each in lines]
    columns = [Column(title, numeric=False) for title in ("Run", "Began", "Build", "Commit")]
    columns += [Column(_title(each), scale.symbol) for each, scale in zip(lines, scales, strict=True)]
    columns.append(Column("Step", numeric=False))
    return Table(caption, tuple(columns), tuple(_row(number, run, lines, scales) for number, run in enumerate(runs, 1)))


def _title(line: Line) -> str:
    return f"{metric_words(line.series.metric)}{f', {line.name}' if line.name else ''}"


def _row(number: int, run: Point, lines: Sequence[Line], scales: Sequence[Scale]) -> tuple[Text, ...]:
    head = (Text(f"{number}. {run.run_id}"), Text(date(run.created)), Text(run.build), Text((run.commit or DASH)[:10]))
    values = tuple(_value(run, each.series, scale) for each, scale in zip(lines, scales, strict=True))
    steps = [
        f"{metric_words(each.series.metric)} {percent(step.change)}"
        for each in lines
        for step in each.series.steps
        if each.series.points[step.index].run_id == run.run_id
    ]
    return (*head, *values, Text(", ".join(steps)))


def _value(run: Point, series: Series, scale: Scale) -> Text:
    found = next((point.value for point in series.points if point.run_id == run.run_id), None)
    return Text(DASH, "this run has no such value") if found is None else Text(scale.number(found))
