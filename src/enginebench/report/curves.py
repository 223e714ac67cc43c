"""Metrics against the load: what the figures draw, and the same numbers as a table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from enginebench.report import slo, trust
from enginebench.report.cells import CellView, Json, cells_of, path_rank
from enginebench.report.compare import E2E, OUTPUT_RATE, TPOT, TTFT, Shown, finding, metric_scale
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.units import DASH, Scale, count
from enginebench.report.view import Column, Table, Text

MAX_FIGURES = 16
"""More figures than this make the page slow; further ones are left out, and the page says so."""
DODGE = 0.018
"""In decades: markers of two paths at one load stay apart."""
READING = (
    "Points are medians over all measured rounds; bars reach from the lowest to the highest round. "
    "Axes of values start at zero. Dotted and hollow: without streaming."
)


def load_section(run: Json, _directory: Path | None) -> Section | None:
    """One figure for each scenario, output length and kind of load that has numbers."""
    cells = cells_of(run)
    measured = sorted((cell for cell in cells if cell.measured), key=lambda cell: _rank(cells, cell))
    groups = groupby(measured, key=lambda cell: (cell.scenario, cell.output_words, cell.load.rank[:2]))
    figures = [_figure(number, list(members), run) for number, (_, members) in enumerate(groups, 1)]
    drawn = tuple(figure for figure in figures if figure.plots)
    if not drawn:
        return None
    left_out = len(drawn) - MAX_FIGURES
    more = f"{count(left_out, 'more figure')} are left out to keep the page light; the table of cells has the numbers."
    return Section("load", "Against the load", READING, drawn[:MAX_FIGURES], notes=(more,) if left_out > 0 else ())


def _rank(cells: Sequence[CellView], cell: CellView) -> tuple[int, int, float, tuple[int, str]]:
    first = next(number for number, other in enumerate(cells) if other.scenario == cell.scenario)
    return first, cell.output_tokens, cell.output_stdev, cell.load.rank[:2]


def _figure(number: int, cells: Sequence[CellView], run: Json) -> Figure:
    wanted = (TTFT, TPOT, OUTPUT_RATE) if any(cell.streaming for cell in cells) else (E2E, OUTPUT_RATE)
    shown = [one for one in wanted if any(cell.value(one.metric) is not None for cell in cells)]
    scales = {one.metric: metric_scale(one, cells) for one in shown}
    first = cells[0]
    pattern = f", {first.load.pattern} arrivals" if first.load.pattern else ""
    title = f"{first.scenario}, {first.output_words} tokens out{pattern}"
    limits = slo.limits_of(run, first.scenario)
    return Figure(
        id=f"load-{number}",
        title=title,
        finding=f"{finding(cells)} {slo.sentence(limits, cells)}".rstrip(),
        plots=tuple(_plot(one, scales[one.metric], cells, limits) for one in shown),
        table=_table(title, shown, scales, cells),
    )


def _plot(shown: Shown, scale: Scale, cells: Sequence[CellView], limits: Mapping[str, float]) -> Plot:
    levels = sorted({cell.load.level for cell in cells})
    ticks = tuple((level, f"{level:,.6g}") for level in levels)
    x = Axis(cells[0].load.axis, log=True, ticks=ticks)
    y = Axis(shown.title, scale.symbol, better="lower" if shown.better == "lower" else "higher")
    limit_s = limits.get(shown.metric)
    rules = () if limit_s is None else (Rule("y", limit_s * scale.factor, f"SLO {slo.limit_words(limit_s)}"),)
    rings = (*_last_kept(shown, scale, cells), *_doubtful(shown, scale, cells))
    return Plot(shown.title, x, y, (*_series(shown, scale, cells), *rings), rules)


def _last_kept(shown: Shown, scale: Scale, cells: Sequence[CellView]) -> Iterator[Marks]:
    """A ring around the heaviest load at which each path keeps the SLOs."""
    kept = [cell for cell in slo.last_kept(cells).values() if cell is not None]
    yield from _ring("heaviest load within the SLOs", "good", shown, scale, kept)


def _doubtful(shown: Shown, scale: Scale, cells: Sequence[CellView]) -> Iterator[Marks]:
    """Rings around what is not to be trusted."""
    for level, role in trust.RINGS.items():
        doubtful = [cell for cell in cells if trust.level_of(cell.record) == level]
        yield from _ring(level.upper(), role, shown, scale, doubtful)


def _ring(name: str, role: str, shown: Shown, scale: Scale, cells: Iterable[CellView]) -> Iterator[Marks]:
    known = [(cell, value) for cell in cells if (value := cell.value(shown.metric)) is not None]
    if known:
        yield Marks(
            name=name,
            kind="dots",
            x=tuple(_place(cell) for cell, _ in known),
            y=tuple(value * scale.factor for _, value in known),
            texts=tuple(_words(cell, scale.text(value)) for cell, value in known),
            role=role,
            dashed=True,
        )


def _place(cell: CellView) -> float:
    """Where a cell stands on the axis of loads: paths lie side by side."""
    return cell.load.level * 10 ** ((path_rank(cell.path) - 1.5) * DODGE)


def _series(shown: Shown, scale: Scale, cells: Iterable[CellView]) -> Iterator[Marks]:
    ordered = sorted(cells, key=lambda cell: (not cell.streaming, path_rank(cell.path), cell.load.level))
    for (whole, path), members in groupby(ordered, key=lambda cell: (not cell.streaming, cell.path)):
        known = [(cell, value) for cell in members if (value := cell.value(shown.metric)) is not None]
        if not known:
            continue
        reaches = [(*cell.per_round(shown.metric), value) for cell, value in known]
        yield Marks(
            name=f"{path}, whole answers" if whole else path,
            kind="line",
            x=tuple(_place(cell) for cell, _ in known),
            y=tuple(value * scale.factor for _, value in known),
            low=tuple(min(reach) * scale.factor for reach in reaches),
            high=tuple(max(reach) * scale.factor for reach in reaches),
            texts=tuple(_words(cell, scale.text(value)) for cell, value in known),
            role=path,
            dashed=whole,
        )


def _words(cell: CellView, value: str) -> str:
    mode = "" if cell.streaming else ", without streaming"
    mark = trust.mark(cell.record)
    return f"{cell.path}{mode}, {cell.load.words}: {value}{f', {mark}' if mark else ''}"


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
