"""Every cell of several runs, build under build, with the ratios to the reference: what the page and the terminal show.

Strings out; what is not there has its reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.report.cells import path_rank
from enginebench.report.comparison_subject import short_names
from enginebench.report.lineup import Entry, Lineup, Row, Value
from enginebench.report.lineup_quantities import RATE, Quantity
from enginebench.report.units import DASH, Scale, count, scale_for
from enginebench.report.view import Column, Finding, Text

LEAD = (
    "Medians over all measured rounds. × is a number over that of {}, the first run; ≈ stands there instead where the "
    "rounds of both overlap, so that rounds alone do not tell them apart."
)


@dataclass(frozen=True, slots=True)
class LineupRow:
    """A build in a cell. ``anchor``: its id in the page.

    ``reason``: why there are no ``values``, or why they are not to be trusted.
    """

    anchor: str
    label: str
    role: str
    status: str
    status_words: str
    values: tuple[Text, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class LineupGroup:
    """A cell. ``name``: in words."""

    cell_id: str
    name: str
    path: str
    rows: tuple[LineupRow, ...]


@dataclass(frozen=True, slots=True)
class LineupTable:
    """The table. ``paths`` and ``statuses`` (with its words): what there is to filter by.

    ``doubts``: why measured cells are not to be trusted.
    """

    lead: str
    columns: tuple[Column, ...]
    groups: tuple[LineupGroup, ...]
    paths: tuple[str, ...]
    statuses: tuple[tuple[str, str], ...]
    doubts: tuple[Finding, ...]
    notes: tuple[str, ...]


def table_of(lineup: Lineup) -> LineupTable:
    """A group a cell, a row a build, two columns a quantity: the number and its ratio."""
    scales = {each.name: _scale(index, each, lineup.rows) for index, each in enumerate(lineup.quantities)}
    names = short_names([row.cell for row in lineup.rows])
    groups = tuple(
        _group(number, row, names[row.cell.id], lineup.quantities, scales) for number, row in enumerate(lineup.rows, 1)
    )
    found = {row.status: row.status_words for group in groups for row in group.rows}
    return LineupTable(
        lead=LEAD.format(lineup.reference.label),
        columns=tuple(_columns(lineup.quantities, scales)),
        groups=groups,
        paths=tuple(sorted({group.path for group in groups}, key=path_rank)),
        statuses=tuple(found.items()),
        doubts=tuple(_doubts(groups)),
        notes=tuple(_notes(lineup)),
    )


def _doubts(groups: Sequence[LineupGroup]) -> Iterator[Finding]:
    about: dict[str, list[tuple[str, str]]] = {}
    for group in groups:
        for row in group.rows:
            if row.values and row.reason:
                about.setdefault(f"{row.status_words}: {row.reason}", []).append(
                    (row.anchor, f"{row.label}, {group.name}")
                )
    yield from (Finding(text, tuple(cells)) for text, cells in about.items())


def _scale(index: int, quantity: Quantity, rows: Sequence[Row]) -> Scale:
    return scale_for(
        quantity.unit, (entry.values[index].number for row in rows for entry in row.entries if entry.values)
    )


def _columns(quantities: Sequence[Quantity], scales: Mapping[str, Scale]) -> Iterator[Column]:
    for each in quantities:
        unit = scales[each.name].symbol or ("" if each.unit in each.title.lower() else each.unit)
        yield Column(each.title, unit)
        yield Column(f"× {each.short}")


def _group(
    number: int, row: Row, name: str, quantities: Sequence[Quantity], scales: Mapping[str, Scale]
) -> LineupGroup:
    place = quantities.index(RATE) if RATE in quantities else None
    rates = [entry.values[place].number or 0.0 for entry in row.entries if entry.values and place is not None]
    rows = tuple(
        _row(f"row-{number}-{place}", entry, quantities, scales, max(rates, default=0.0))
        for place, entry in enumerate(row.entries, 1)
    )
    return LineupGroup(row.cell.id, name, row.cell.path, rows)


def _row(
    anchor: str, entry: Entry, quantities: Sequence[Quantity], scales: Mapping[str, Scale], fastest: float
) -> LineupRow:
    values = [
        text
        for quantity, value in zip(quantities, entry.values, strict=False)
        for text in (_number(value, scales[quantity.name], fastest if quantity is RATE else 0.0), _ratio(value))
    ]
    entrant = entry.entrant
    return LineupRow(anchor, entrant.label, entrant.role, entry.status, entry.status_words, tuple(values), entry.reason)


def _number(value: Value, scale: Scale, fastest: float) -> Text:
    if value.number is None:
        return Text(DASH, value.why)
    share = value.number / fastest if fastest else None
    return Text(scale.number(value.number), share=share, number=value.number * scale.factor)


def _ratio(value: Value) -> Text:
    if value.number is None:
        return Text("")
    if value.ratio is None:
        return Text(DASH, value.why_no_ratio)
    return Text(ratio_text(value.ratio, overlaps=value.overlaps), number=value.ratio)


def ratio_text(ratio: float, *, overlaps: bool) -> str:
    """``×0.74``, ``×12.3``; ``≈1.02`` where rounds overlap."""
    return f"{'≈' if overlaps else '×'}{ratio:.{3 if ratio < 0.1 else 2 if ratio < 10 else 1}f}"


def _notes(lineup: Lineup) -> Iterator[str]:
    if lineup.absent:
        titles = ", ".join(each.title for each in lineup.absent)
        yield f"No run has a value of {titles}."
    lacking = [row for row in lineup.rows if row.measured < len(row.entries)]
    if lacking:
        yield f"{len(lacking)} of {count(len(lineup.rows), 'cell')} not measured by every run: the rows say why."
