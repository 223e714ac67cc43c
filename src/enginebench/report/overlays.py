"""Old over new where it got worst: how single requests are distributed, and what more load does to both builds.

Reads a row a request, and no arrival. Rounds of discarded pairs are among the requests.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from enginebench.measure.metrics import BY_NAME
from enginebench.report import slo
from enginebench.report.aggregates import request_curves
from enginebench.report.cells import CellView
from enginebench.report.compare import E2E, OUTPUT_RATE, TPOT, TTFT, Shown, metric_scale
from enginebench.report.comparison_subject import SIDES, Subject, worst_cells
from enginebench.report.distributions import FEW, MIN_REQUESTS, curve_marks, share_ticks
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.quantiles import Quantiles
from enginebench.report.units import DASH, Scale, count, percent, scale_for
from enginebench.report.view import Column, Table, Text
from enginebench.store import Run

MOST = 3
"""Cells that are shown in depth, and families of cells whose loads are."""
METRICS = ("ttft", "tpot", "e2e_latency")
OF_DISTRIBUTIONS = (
    "The share of requests that took at most so long, in the cells that got worst (at most "
    f"{MOST}). Grey and dotted: fewer than {FEW} requests lie beyond."
)
OF_LOADS = "Medians over all measured rounds, old against new; bars reach from the lowest to the highest block."
Curves = Sequence[Mapping[str, Quantiles]]
"""Of the old and the new run, by metric."""


def overlay_section(subject: Subject) -> Section | None:
    """Distributions of the worst cells; None where a run left no tables or too few requests.

    Raises:
        RunError: stored tables cannot be read.
    """
    runs = [
        None if directory is None else Run(directory, data)
        for directory, data in zip(subject.directories, subject.runs, strict=True)
    ]
    names, figures = subject.names(), list[Figure]()
    for cell_id in worst_cells(subject.comparison, MOST):
        curves = [{} if run is None else request_curves(run, cell_id) for run in runs]
        if _drawable(curves):
            figures.append(_distribution(len(figures) + 1, names.get(cell_id, cell_id), curves))
    if not figures:
        return None
    return Section("distributions", "Distributions", OF_DISTRIBUTIONS, tuple(figures))


def _drawable(curves: Curves) -> bool:
    return all(each and max(curve.requests for curve in each.values()) >= MIN_REQUESTS for each in curves)


def _distribution(number: int, name: str, curves: Curves) -> Figure:
    shown = [metric for metric in METRICS if all(metric in each for each in curves)]
    scales = {metric: scale_for("s", [each[metric].at(0.5) for each in curves]) for metric in shown}
    return Figure(
        id=f"distribution-{number}",
        title=name,
        finding=_shift(shown, scales, curves),
        plots=tuple(_curves(metric, scales[metric], curves) for metric in shown),
        table=_quantiles(name, shown, scales, curves),
    )


def _curves(metric: str, scale: Scale, curves: Curves) -> Plot:
    title = BY_NAME[metric].title
    marks = tuple(
        part for side, each in zip(SIDES, curves, strict=True) for part in curve_marks(side, side, each[metric], scale)
    )
    ticks = share_ticks(min(each[metric].requests for each in curves))
    y = Axis("share of requests", "%", ticks=ticks)
    return Plot(title, Axis(title, scale.symbol, log=True, better="lower"), y, marks)


def _shift(shown: Sequence[str], scales: Mapping[str, Scale], curves: Curves) -> str:
    """How the medians moved."""
    parts = []
    for metric in shown:
        old, new = (each[metric].at(0.5) for each in curves)
        scale = scales[metric]
        moved = f" ({percent(new / old - 1)})" if 0 < old < float("inf") and new < float("inf") else ""
        parts.append(f"{BY_NAME[metric].title} p50 {_number(old, scale)} → {_number(new, scale)} {scale.symbol}{moved}")
    requests = [max(curve.requests for curve in each.values()) for each in curves]
    return f"{', '.join(parts)}; {requests[0]:,} and {count(requests[1], 'request')}."


def _quantiles(name: str, shown: Sequence[str], scales: Mapping[str, Scale], curves: Curves) -> Table:
    columns = [Column(title, numeric=False) for title in ("Metric", "Build", "Unit")]
    columns += [Column(title) for title in ("min", "p50", "max", "requests", "failed")]
    rows = []
    for metric in shown:
        for side, each in zip(SIDES, curves, strict=True):
            curve, scale = each[metric], scales[metric]
            ends = (float(curve.values_s[0]), curve.at(0.5), float(curve.values_s[-1]))
            numbers = [_text(value, scale) for value in ends]
            counts = [Text(f"{curve.requests:,}"), Text(f"{curve.failed:,}")]
            rows.append((Text(BY_NAME[metric].title), Text(side), Text(scale.symbol), *numbers, *counts))
    return Table(name, tuple(columns), tuple(rows))


def _number(value: float, scale: Scale) -> str:
    return "never" if value == float("inf") else scale.number(value)


def _text(value: float, scale: Scale) -> Text:
    failed = value == float("inf")
    return Text(DASH, "a failed request counts as infinitely slow") if failed else Text(scale.number(value))


def load_section(subject: Subject) -> Section | None:
    """Old and new against the load, for the families of the worst cells; None where no family has two loads."""
    old, new = subject.cells()
    shared = [cell_id for cell_id in old if cell_id in new and old[cell_id].measured and new[cell_id].measured]
    wanted = [cell_id for cell_id in worst_cells(subject.comparison, len(shared)) if cell_id in shared]
    families = list(dict.fromkeys(_family(old[cell_id]) for cell_id in wanted))
    grouped = {
        family: sorted(members, key=lambda cell: cell.load.level)
        for family, members in _grouped([old[cell_id] for cell_id in shared]).items()
    }
    drawn = [grouped[family] for family in families if len(grouped[family]) > 1][:MOST]
    limits = {cell.scenario: slo.limits_of(subject.runs[1], cell.scenario) for cell in old.values()}
    figures = tuple(_loads(number, cells, new, limits) for number, cells in enumerate(drawn, 1))
    return Section("load", "Against the load", OF_LOADS, figures) if figures else None


def _family(cell: CellView) -> tuple[str, ...]:
    mode = "streaming" if cell.streaming else "whole answers"
    return cell.scenario, cell.path, mode, f"{cell.output_words} tokens out", cell.load.kind, cell.load.pattern


def _grouped(cells: Sequence[CellView]) -> Mapping[tuple[str, ...], list[CellView]]:
    return {family: list(members) for family, members in groupby(sorted(cells, key=_family), key=_family)}


def _loads(
    number: int, cells: Sequence[CellView], new: Mapping[str, CellView], limits: Mapping[str, Mapping[str, float]]
) -> Figure:
    sides = (cells, [new[cell.id] for cell in cells])
    wanted = (TTFT, TPOT, OUTPUT_RATE) if cells[0].streaming else (E2E, OUTPUT_RATE)
    shown = [one for one in wanted if all(any(one.of(cell) is not None for cell in side) for side in sides)]
    scales = {one.metric: metric_scale(one, [*sides[0], *sides[1]]) for one in shown}
    title = ", ".join(part for part in _family(cells[0])[:4])
    return Figure(
        id=f"load-{number}",
        title=title,
        finding=_at_the_ends(shown, sides),
        plots=tuple(_load(one, scales[one.metric], sides, limits[cells[0].scenario]) for one in shown),
        table=_load_table(title, shown, scales, sides),
    )


def _load(shown: Shown, scale: Scale, sides: Sequence[Sequence[CellView]], limits: Mapping[str, float]) -> Plot:
    first = sides[0][0]
    ticks = tuple((cell.load.level, f"{cell.load.level:,.6g}") for cell in sides[0])
    limit_s = limits.get(shown.metric)
    rules = () if limit_s is None else (Rule("y", limit_s * scale.factor, f"SLO {slo.limit_words(limit_s)}"),)
    y = Axis(shown.title, scale.symbol, better="lower" if shown.better == "lower" else "higher")
    marks = tuple(_side(side, cells, shown, scale) for side, cells in zip(SIDES, sides, strict=True))
    return Plot(shown.title, Axis(first.load.axis, log=True, ticks=ticks), y, marks, rules)


def _side(side: str, cells: Sequence[CellView], shown: Shown, scale: Scale) -> Marks:
    known = [(cell, value) for cell in cells if (value := shown.of(cell)) is not None]
    reaches = [[*_blocks(cell, shown), value] for cell, value in known]
    return Marks(
        name=side,
        kind="line",
        x=tuple(cell.load.level for cell, _ in known),
        y=tuple(value * scale.factor for _, value in known),
        low=tuple(min(reach) * scale.factor for reach in reaches),
        high=tuple(max(reach) * scale.factor for reach in reaches),
        texts=tuple(f"{side}, {cell.load.words}: {scale.text(value)}" for cell, value in known),
        role=side,
    )


def _blocks(cell: CellView, shown: Shown) -> Iterator[float]:
    """The number of each block; a run of an older version has no blocks."""
    for block in cell.record.get("per_block") or ():
        summary = block["metrics"].get(shown.metric, {})
        value = summary.get("value", summary.get("p50"))
        if value is not None:
            yield float(value)


def _at_the_ends(shown: Sequence[Shown], sides: Sequence[Sequence[CellView]]) -> str:
    """What changed at the lightest and at the heaviest load."""
    parts = []
    for place in (0, -1):
        changes = [
            f"{one.title} {percent(new / old - 1)}"
            for one in shown
            if (old := one.of(sides[0][place])) and (new := one.of(sides[1][place])) is not None
        ]
        parts.append(f"at {sides[0][place].load.words}: {', '.join(changes) or 'nothing to compare'}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _load_table(
    caption: str, shown: Sequence[Shown], scales: Mapping[str, Scale], sides: Sequence[Sequence[CellView]]
) -> Table:
    columns = [Column("Load", numeric=False), Column("Build", numeric=False)]
    columns += [Column(one.title, scales[one.metric].symbol) for one in shown]
    rows = []
    for pair in zip(*sides, strict=True):
        for side, cell in zip(SIDES, pair, strict=True):
            values = [(one, one.of(cell)) for one in shown]
            numbers = [
                Text(DASH, cell.why_none(one.metric)) if value is None else Text(scales[one.metric].number(value))
                for one, value in values
            ]
            rows.append((Text(cell.load.words), Text(side), *numbers))
    return Table(caption, tuple(columns), tuple(rows))
