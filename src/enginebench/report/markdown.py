"""A run as Markdown: the verdict, a table per scenario and the findings, for a pull request or a wiki."""

from collections.abc import Iterable, Sequence

from enginebench.report.cells import cells_of
from enginebench.report.summary import title, verdict
from enginebench.report.tables import anchors_of, findings, matrix
from enginebench.report.units import DASH
from enginebench.report.view import Column, MatrixGroup, MatrixRow
from enginebench.store import Run

_SPECIAL = str.maketrans({one: f"\\{one}" for one in "\\`*_[]<>|#~$"} | {"\n": " ", "\r": " "})


def run_markdown(run: Run) -> str:
    """The whole text.

    Raises:
        RunError: the plan names something that is not a cell.
    """
    cells = cells_of(run.data)
    said = verdict(run.data, cells)
    anchors = anchors_of(cells)
    shown = matrix(run.data, cells, anchors)
    parts = [f"# {escaped(title(run.data))}", f"**{escaped(said.headline)}**", _list(said.notes)]
    parts += [_group(group, shown.columns) for group in shown.groups]
    if found := findings(cells, anchors):
        lines = [f"{one.text} ({', '.join(cell_id for _, cell_id in one.cells)})" for one in found]
        parts += ["## Findings", _list(lines)]
    parts.append(f"Run {escaped(run.id)}. Medians over all measured rounds.")
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool]) -> str:
    """A table; ``numeric``: which columns stand to the right."""
    rule = ["---:" if one else "---" for one in numeric]
    lines = [[escaped(one) for one in head], rule, *([escaped(one) for one in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """``text`` as Markdown that shows it as it stands, on one line."""
    return text.translate(_SPECIAL)


def _group(group: MatrixGroup, columns: Sequence[Column]) -> str:
    titles = [f"{column.title} ({column.unit})" if column.unit else column.title for column in columns]
    head = ["Answer", "Tokens", "Load", "Path", *titles, "Status"]
    rows = [_row(row, len(columns)) for row in group.rows]
    table = markdown_table(head, rows, [False, True, False, False, *[True] * len(columns), False])
    about = " ".join(part for part in (group.description, group.facts) if part)
    return "\n\n".join(part for part in (f"## {escaped(group.scenario)}", escaped(about), table) if part)


def _row(row: MatrixRow, columns: int) -> list[str]:
    values = [value.text for value in row.values] or [DASH] * columns
    status = f"{row.status_words}: {row.reason}" if row.reason else row.status_words
    return [*row.shape, row.path, *values, status]


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
