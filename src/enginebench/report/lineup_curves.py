"""Throughput against speed, a curve a build through its loads, and the front over all builds.

From the summaries of the cells; the front is that of their medians and knows no noise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from enginebench.report import trust
from enginebench.report.cells import CellView
from enginebench.report.compare import E2E, OUTPUT_RATE, Shown, metric_scale, overlap
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.lineup import Entrant, Lineup, Row
from enginebench.report.lineup_quantities import PER_GPU, PER_USER
from enginebench.report.lineup_table import ratio_text
from enginebench.report.pareto import unbeaten
from enginebench.report.point_labels import places
from enginebench.report.units import Scale, count
from enginebench.report.view import Column, Table, Text

MAX_FIGURES = 12
LEAD = (
    "A curve a build, a point a load, whose number stands beside it where there is room: up is more throughput for the "
    "operator, right more speed for each user (without streaming: left is less waiting). The dotted line is the front "
    "over all builds: no other point is better on both."
)


@dataclass(frozen=True, slots=True)
class _Point:
    entrant: Entrant
    cell: CellView
    speed: float  # in the unit of its axis, as stored
    rate: float  # output tokens/s

    @property
    def level(self) -> str:
        """``valid``, ``uncalibrated``, ``degraded`` or ``invalid``."""
        return trust.level_of(self.cell.record)


@dataclass(frozen=True, slots=True)
class _Group:
    """The points of one figure, with what stands on its axes."""

    rows: Sequence[Row]
    points: Sequence[_Point]
    x: Shown
    y: Shown
    scale: Scale

    @property
    def front(self) -> list[_Point]:
        """The best trustworthy points, from the fastest for a user on."""
        sign = -1 if self.x.better == "higher" else 1
        sure = [point for point in self.points if point.level != "invalid"]
        return unbeaten(sure, lambda point: sign * point.speed, lambda point: point.rate)


def curves_section(lineup: Lineup) -> Section | None:
    """A figure for each scenario, length and mode of answers, path and kind of load; None without a point."""
    families: dict[tuple[object, ...], list[Row]] = {}
    for row in lineup.rows:
        families.setdefault(_family(row.cell), []).append(row)
    groups = [group for rows in families.values() if (group := _group(rows)).points]
    figures = tuple(_figure(number, group, lineup) for number, group in enumerate(groups[:MAX_FIGURES], 1))
    notes = tuple(_notes(len(families), len(groups)))
    return Section("curves", "Throughput against speed", LEAD, figures, notes=notes) if groups else None


def _family(cell: CellView) -> tuple[object, ...]:
    return cell.scenario, cell.streaming, cell.output_words, cell.path, cell.load.rank[:2]


def _notes(families: int, drawn: int) -> Iterator[str]:
    if (hidden := drawn - MAX_FIGURES) > 0:
        yield f"{count(hidden, 'more figure')} left out to keep the page light: the table of cells has the numbers."
    if silent := families - drawn:
        yield f"{count(silent, 'more figure')} without a point: the table of cells says why."


def _group(rows: Sequence[Row]) -> _Group:
    x = PER_USER if rows[0].cell.streaming else E2E
    entries = [entry for row in rows for entry in row.entries if entry.measured and entry.alike]
    measured = [(entry.entrant, entry.cell) for entry in entries if entry.cell]
    known = [
        (entrant, cell) for entrant, cell in measured if x.of(cell) is not None and OUTPUT_RATE.of(cell) is not None
    ]
    y = PER_GPU if known and all(PER_GPU.of(cell) is not None for _, cell in known) else OUTPUT_RATE
    points = [_Point(entrant, cell, x.of(cell) or 0.0, y.of(cell) or 0.0) for entrant, cell in known]
    return _Group(rows, points, x, y, metric_scale(x, [cell for _, cell in known]))


def _figure(number: int, group: _Group, lineup: Lineup) -> Figure:
    first = group.rows[0].cell
    pattern = f", {first.load.pattern} arrivals" if first.load.pattern else ""
    mode = "" if first.streaming else ", without streaming"
    title = f"{first.scenario}, {first.path}, {first.output_words} tokens out{mode}{pattern}"
    return Figure(
        id=f"curves-{number}",
        title=title,
        finding=" ".join(_sentences(group, lineup)),
        plots=(_plot(group, lineup),),
        table=_table(title, group),
        tall=True,
    )


def _plot(group: _Group, lineup: Lineup) -> Plot:
    speeds = [point.speed for point in group.points]
    log = max(speeds) > 8 * min(speeds) > 0
    x = Axis(
        group.x.title,
        group.scale.symbol,
        log=log,
        from_zero=False,
        better="higher" if group.x.better == "higher" else "lower",
    )
    edge = _marks("front", "line", group.front, group, "muted")
    curves = tuple(_curves(group, lineup, log))
    return Plot(group.y.title, x, Axis(group.y.title, better="higher"), (edge, *curves, *_rings(group)))


def _curves(group: _Group, lineup: Lineup, log: bool) -> Iterator[Marks]:
    found = [[point for point in group.points if point.entrant is entrant] for entrant in lineup.entrants]
    curves = [curve for curve in found if curve]
    words = [[point.cell.load.number for point in curve] for curve in curves]
    room = places([[(point.speed, point.rate) for point in curve] for curve in curves], words, log_x=log)
    for curve, texts, spots in zip(curves, words, room, strict=True):
        labels = tuple((text if spot else "", spot or "top right") for text, spot in zip(texts, spots, strict=True))
        entrant = curve[0].entrant
        yield replace(_marks(entrant.label, "line", curve, group, entrant.role), labels=labels)


def _rings(group: _Group) -> Iterator[Marks]:
    for level, role in trust.RINGS.items():
        if points := [point for point in group.points if point.level == level]:
            yield _marks(level.upper(), "dots", points, group, role, dashed=True)


def _marks(
    name: str,
    kind: Literal["line", "dots"],
    points: Sequence[_Point],
    group: _Group,
    role: str,
    *,
    dashed: bool = False,
) -> Marks:
    return Marks(
        name=name,
        kind=kind,
        x=tuple(point.speed * group.scale.factor for point in points),
        y=tuple(point.rate for point in points),
        texts=tuple(_words(point, group) for point in points),
        role=role,
        dashed=dashed,
    )


def _words(point: _Point, group: _Group) -> str:
    doubt = f", {point.level.upper()}" if point.level in trust.RINGS else ""
    speed = (
        group.scale.text(point.speed) if group.scale.symbol else f"{group.scale.number(point.speed)} tokens/s per user"
    )
    return f"{point.entrant.label}, {point.cell.load.words}: {speed}, {point.rate:,.1f} {_unit(group)}{doubt}"


def _unit(group: _Group) -> str:
    return "output tokens/s per GPU" if group.y is PER_GPU else "output tokens/s"


def _sentences(group: _Group, lineup: Lineup) -> Iterator[str]:
    front = {id(point) for point in group.front}
    of_each = {each.label: [point for point in group.points if point.entrant is each] for each in lineup.entrants}
    on_it = {label: sum(id(point) in front for point in points) for label, points in of_each.items()}
    parts = [
        f"{label} with {number} of {count(len(of_each[label]), 'load')}" for label, number in on_it.items() if number
    ]
    yield f"On the front: {', '.join(parts)}." if parts else "No point is on the front: none can be trusted."
    yield from _at_the_heaviest(group, lineup.reference)
    if silent := [label for label, points in of_each.items() if not points]:
        yield f"No point of {', '.join(silent)}."
    if others := _asked_otherwise(group):
        yield f"{', '.join(others)} {'was' if len(others) == 1 else 'were'} asked something else than the reference."
    if group.y is OUTPUT_RATE and any(PER_GPU.of(point.cell) not in (None, point.rate) for point in group.points):
        yield "Not per GPU: not every run tells how many it used."
    if any(point.level == "invalid" for point in group.points):
        yield "INVALID points are not part of the front."


def _asked_otherwise(group: _Group) -> Sequence[str]:
    entries = [entry for row in group.rows for entry in row.entries if not entry.alike]
    return tuple(dict.fromkeys(entry.entrant.label for entry in entries))


def _at_the_heaviest(group: _Group, reference: Entrant) -> Iterator[str]:
    """The rates of all curves at the heaviest load that they share, as ratios to the reference."""
    curves = {point.entrant.label for point in group.points}
    loads = [[point for point in group.points if point.cell.id == row.cell.id] for row in group.rows]
    shared = [points for points in loads if len(points) == len(curves)]
    if len(curves) < 2 or not shared:
        return
    first, *others = shared[-1]
    if first.entrant is reference and first.rate:
        ratios = ", ".join(f"{other.entrant.label} {_ratio(other, first, group.y)}" for other in others)
        yield f"At {first.cell.load.words}, {_unit(group)} of {reference.label} are {first.rate:,.1f}; {ratios}."


def _ratio(point: _Point, first: _Point, shown: Shown) -> str:
    return ratio_text(point.rate / first.rate, overlaps=overlap(first.cell, point.cell, shown.metric))


def _table(caption: str, group: _Group) -> Table:
    front = {id(point) for point in group.front}
    titles = (Column("Build", numeric=False), Column("Load", numeric=False))
    columns = (*titles, Column(group.x.title, group.scale.symbol), Column(group.y.title))
    rows = tuple(
        (
            Text(point.entrant.label, path=point.entrant.role),
            Text(point.cell.load.words),
            Text(group.scale.number(point.speed)),
            Text(f"{point.rate:,.1f}"),
            Text(f"no: {point.level.upper()}" if point.level == "invalid" else "yes" if id(point) in front else "no"),
        )
        for point in group.points
    )
    return Table(caption, (*columns, Column("On the front", numeric=False)), rows)
