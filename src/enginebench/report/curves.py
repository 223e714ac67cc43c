"""Metrics against the load: what the charts draw, and the same numbers as a table."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from enginebench.report.cells import CellView, path_rank
from enginebench.report.compare import E2E, OUTPUT_RATE, TPOT, TTFT, Shown, finding, metric_scale
from enginebench.report.units import DASH, Scale
from enginebench.report.view import Chart, Column, Panel, Point, Series, Table, Text

MAX_CHARTS = 16
"""More figures than this make the page slow; further ones are left out, and the page says so."""


def charts(cells: Sequence[CellView]) -> tuple[Chart, ...]:
    """One chart for each scenario, output length and kind of load that has numbers."""
    measured = sorted((cell for cell in cells if cell.measured), key=lambda cell: _rank(cells, cell))
    groups = groupby(measured, key=lambda cell: (cell.scenario, cell.output_words, cell.load.rank[:2]))
    drawn = (_chart(number, list(members)) for number, (_, members) in enumerate(groups, 1))
    return tuple(chart for chart in drawn if chart.panels)


def _rank(cells: Sequence[CellView], cell: CellView) -> tuple[int, int, float, tuple[int, str]]:
    first = next(number for number, other in enumerate(cells) if other.scenario == cell.scenario)
    return first, cell.output_tokens, cell.output_stdev, cell.load.rank[:2]


def _chart(number: int, cells: Sequence[CellView]) -> Chart:
    wanted = (TTFT, TPOT, OUTPUT_RATE) if any(cell.streaming for cell in cells) else (E2E, OUTPUT_RATE)
    shown = [one for one in wanted if any(cell.value(one.metric) is not None for cell in cells)]
    scales = {one.metric: metric_scale(one, cells) for one in shown}
    first = cells[0]
    pattern = f", {first.load.pattern} arrivals" if first.load.pattern else ""
    title = f"{first.output_words} tokens out{pattern}"
    return Chart(
        id=f"chart-{number}",
        scenario=first.scenario,
        title=title,
        finding=finding(cells),
        axis=first.load.axis,
        panels=tuple(_panel(one, scales[one.metric], cells) for one in shown),
        table=_table(f"{first.scenario}, {title}", shown, scales, cells),
    )


def _panel(shown: Shown, scale: Scale, cells: Iterable[CellView]) -> Panel:
    ordered = sorted(cells, key=lambda cell: (not cell.streaming, path_rank(cell.path), cell.load.level))
    series = []
    for (_, path), members in groupby(ordered, key=lambda cell: (not cell.streaming, cell.path)):
        group = list(members)
        points = tuple(point for cell in group if (point := _point(cell, shown, scale)))
        if points:
            series.append(Series(path, group[0].streaming, points))
    return Panel(shown.title, scale.symbol, shown.better, tuple(series))


def _point(cell: CellView, shown: Shown, scale: Scale) -> Point | None:
    value = cell.value(shown.metric)
    if value is None:
        return None
    reach = (*cell.per_round(shown.metric), value)
    mode = "" if cell.streaming else ", without streaming"
    return Point(
        level=cell.load.level,
        value=value * scale.factor,
        low=min(reach) * scale.factor,
        high=max(reach) * scale.factor,
        text=f"{cell.path}{mode}, {cell.load.words}: {scale.text(value)}",
    )


def _table(caption: str, shown: Sequence[Shown], scales: dict[str, Scale], cells: Sequence[CellView]) -> Table:
    columns = [Column("Path", numeric=False), Column("Mode", numeric=False), Column("Load", cells[0].load.axis)]
    for one in shown:
        columns += [Column(one.title, scales[one.metric].symbol), Column("rounds")]
    rows = []
    for cell in cells:
        mode = "stream" if cell.streaming else "whole"
        row = [Text(cell.path, path=cell.path), Text(mode), Text(cell.load.number)]
        for one in shown:
            row += _table_values(cell, one, scales[one.metric])
        rows.append(tuple(row))
    return Table(caption, tuple(columns), tuple(rows))


def _table_values(cell: CellView, shown: Shown, scale: Scale) -> tuple[Text, Text]:
    value, rounds = cell.value(shown.metric), cell.per_round(shown.metric)
    why = cell.why_none(shown.metric)
    reach = f"{scale.number(min(rounds))}–{scale.number(max(rounds))}" if rounds else DASH
    return (Text(DASH, why) if value is None else Text(scale.number(value)), Text(reach, None if rounds else why))
