"""Every number that two runs share, cell by cell, with its verdict; and every cell that has none, with the reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from enginebench.decide.model import OUTCOMES, Verdict, open_problems
from enginebench.measure.metrics import BY_NAME
from enginebench.report import comparison_words as words
from enginebench.report.cells import STATUS_WORDS, CellView, path_rank
from enginebench.report.comparison_subject import Subject, harm
from enginebench.report.units import DASH, count, percent, scale_for
from enginebench.report.view import Column, Text

COLUMNS = (
    Column("Old"),
    Column("New"),
    Column("Unit", numeric=False),
    Column("Change", "%"),
    Column("From", "%"),
    Column("To", "%"),
    Column("Margin", "%"),
    Column("q"),
)
MOST_ROWS = 700
"""More rows than this make the page slow."""
_NO_CHANGE = "no block gave a ratio of the two"


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A number of a cell. Either ``values`` or, for a cell without a verdict, ``reason`` is there."""

    cell_id: str
    cell: str  # in words
    path: str
    metric: str
    gated: bool
    status: str  # an outcome, or what became of the cell
    status_words: str
    values: tuple[Text, ...] = ()
    reason: str = ""
    remark: str = ""  # what is to be said of the outcome


@dataclass(frozen=True, slots=True)
class ChangeGroup:
    """The numbers of a cell."""

    cell_id: str
    cell: str
    path: str
    rows: tuple[ChangeRow, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """The table. ``paths`` and ``statuses`` (with its words): what there is to filter by."""

    lead: str
    columns: tuple[Column, ...]
    groups: tuple[ChangeGroup, ...]
    paths: tuple[str, ...]
    statuses: tuple[tuple[str, str], ...]
    left_out: int


def changes_of(subject: Subject) -> Changes:
    """All verdicts by cell, cells without one included."""
    kept, left_out = _kept(subject.comparison.verdicts)
    names = subject.names()
    rows = [_row(each, names, _path(each, subject)) for each in kept]
    rows += _without_verdict(subject, names)
    order = {cell_id: place for place, cell_id in enumerate(dict.fromkeys([*names, *(row.cell_id for row in rows)]))}
    rows.sort(key=lambda row: order[row.cell_id])
    groups = tuple(_group(list(members)) for _, members in groupby(rows, key=lambda row: row.cell_id))
    found = {row.status: row.status_words for row in rows}
    ranked = sorted(found, key=lambda status: [*OUTCOMES, status].index(status))
    paths = tuple(sorted({row.path for row in rows}, key=path_rank))
    return Changes(_lead(rows), COLUMNS, groups, paths, tuple((each, found[each]) for each in ranked), left_out)


def _kept(verdicts: Sequence[Verdict]) -> tuple[Sequence[Verdict], int]:
    """What fits on the page: gated numbers, and of the others those that changed most."""
    if len(verdicts) <= MOST_ROWS:
        return verdicts, 0
    ranked = sorted(
        verdicts, key=lambda each: (each.endpoint.kind != "gated", -abs(harm(each.endpoint, each.change) or 0.0))
    )
    kept = {each.endpoint.key for each in ranked[:MOST_ROWS]}
    return [each for each in verdicts if each.endpoint.key in kept], len(verdicts) - MOST_ROWS


def _path(verdict: Verdict, subject: Subject) -> str:
    cell_id = verdict.endpoint.cell_id
    record = subject.runs[0]["cells"].get(cell_id) or subject.runs[1]["cells"].get(cell_id)
    return str(record["path"]) if record else cell_id  # memory is that of a path


def _group(rows: Sequence[ChangeRow]) -> ChangeGroup:
    first = rows[0]
    return ChangeGroup(first.cell_id, first.cell, first.path, tuple(rows))


def _row(verdict: Verdict, names: Mapping[str, str], path: str) -> ChangeRow:
    endpoint = verdict.endpoint
    return ChangeRow(
        cell_id=endpoint.cell_id,
        cell=names.get(endpoint.cell_id, f"{endpoint.cell_id}, engine loaded"),
        path=path,
        metric=words.metric_title(verdict),
        gated=endpoint.kind == "gated",
        status=verdict.outcome,
        status_words=verdict.outcome,
        values=tuple(_values(verdict)),
        remark="; ".join(each.rstrip(".") for each in (*verdict.reasons, words.more_pairs(verdict)) if each),
    )


def _values(verdict: Verdict) -> Iterator[Text]:
    metric = BY_NAME.get(verdict.endpoint.metric)
    unit = metric.unit if metric else "bytes"
    scale = scale_for(unit, (verdict.old, verdict.new))
    for value in (verdict.old, verdict.new):
        yield Text(DASH, "no block has this number") if value is None else Text(scale.number(value))
    yield Text(scale.symbol or unit)
    for change in (verdict.change, verdict.low, verdict.high):
        known = change is not None
        yield Text(percent(change).rstrip("%"), number=change * 100) if known else Text(DASH, _NO_CHANGE)  # type: ignore[operator,arg-type]
    yield Text(f"±{verdict.endpoint.margin * 100:.3g}", number=verdict.endpoint.margin * 100)
    yield (
        Text(DASH, "decided without a test")
        if verdict.q_value is None
        else Text(words.q_value(verdict), number=verdict.q_value)
    )


def _without_verdict(subject: Subject, names: Mapping[str, str]) -> Iterator[ChangeRow]:
    judged = {each.endpoint.cell_id for each in subject.comparison.verdicts}
    old, new = subject.cells()
    for cell_id in {**old, **new}:
        if cell_id not in judged and any(_planned(side.get(cell_id)) for side in (old, new)):
            yield _silent(subject, cell_id, names[cell_id], old.get(cell_id), new.get(cell_id))


def _planned(cell: CellView | None) -> bool:
    """Whether somebody wanted it measured; what both runs left out is no news."""
    return cell is not None and cell.status != "left_out"


def _silent(subject: Subject, cell_id: str, name: str, old: CellView | None, new: CellView | None) -> ChangeRow:
    states = [_state(cell) for cell in (old, new)]
    reasons = [
        f"{side}: {state}{f' ({why})' if why else ''}"
        for side, (state, why) in zip(("old", "new"), states, strict=True)
    ]
    if all(state == "measured" for state, _ in states):
        stopped = open_problems(subject.comparison.problems)
        why = "the runs cannot be compared" if stopped else "no block of both has a number"
        reasons.append(why)
    status, status_words = _status(old, new)
    path = (old or new).path  # type: ignore[union-attr]
    return ChangeRow(cell_id, name, path, "every number", False, status, status_words, reason="; ".join(reasons))


def _state(cell: CellView | None) -> tuple[str, str]:
    if cell is None:
        return "not there", ""
    return STATUS_WORDS[cell.status], (cell.reason or "").rstrip(".")


def _status(old: CellView | None, new: CellView | None) -> tuple[str, str]:
    """What became of the cell: of the side that lacks it, the new one first."""
    for cell in (new, old):
        if cell is None:
            return "missing", "missing"
        if not cell.measured:
            return cell.status, STATUS_WORDS[cell.status]
    return "invalid", "not judged"


def _lead(rows: Sequence[ChangeRow]) -> str:
    judged = [row for row in rows if row.values]
    silent = [row for row in rows if not row.values]
    cells = count(len({row.cell_id for row in judged if row.cell_id != row.path}), "cell")
    parts = [f"{count(len(judged), 'number')} of {cells}"] if judged else []
    parts += [f"{count(len(silent), 'cell')} without a verdict"] if silent else []
    return (
        f"{', '.join(parts)}. Old and new are typical values over blocks (geometric means). From and to: the interval "
        f"of the change. {words.Q}"
    )
