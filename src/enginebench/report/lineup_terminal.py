"""Several runs side by side as a terminal shows them."""

import io
from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from enginebench.report.lineup import Lineup
from enginebench.report.lineup_table import LineupTable, table_of
from enginebench.report.lineup_words import commands, headline, level_of, notes
from enginebench.report.terminal import LEVEL_STYLES, console_on
from enginebench.report.units import DASH, count

WIDTH = 300
"""As wide as the table needs: lines that a narrow terminal breaks can still be read."""
MOST_REASONS = 8
_STYLES = {"failed": "bold red", "invalid": "bold red", "degraded": "yellow", "missing": "yellow"}


def lineup_text(lineup: Lineup, *, colour: bool) -> str:
    """The table of all cells with what is to be known of it, and the commands that decide."""
    target = io.StringIO()
    console = console_on(target, WIDTH, colour)
    console.print(Text(headline(lineup), style=LEVEL_STYLES.get(level_of(lineup), "bold")), soft_wrap=True)
    for note in notes(lineup):
        console.print(Text(f"  {note}"), soft_wrap=True)
    made = table_of(lineup)
    console.print(_table(made))
    for line in _after(lineup, made):
        console.print(Text(line), soft_wrap=True)
    return target.getvalue()


def _table(made: LineupTable) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("cell and build", no_wrap=True)
    for number, column in enumerate(made.columns):
        ratio = number % 2 == 1
        head = "" if ratio else f"{column.title}\n{column.unit}".rstrip()
        table.add_column(head, justify="left" if ratio else "right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for group in made.groups:
        table.add_row(Text(group.cell_id, style="bold"))
        for row in group.rows:
            texts = [value.text for value in row.values] or [DASH, ""] * (len(made.columns) // 2)
            table.add_row(
                Text(f"  {row.label}"), *map(Text, texts), Text(row.status_words, style=_STYLES.get(row.status, ""))
            )
    return table


def _after(lineup: Lineup, made: LineupTable) -> Iterator[str]:
    reasons = [
        f"{row.status_words}: {row.label}, {group.cell_id}: {row.reason}"
        for group in made.groups
        for row in group.rows
        if row.reason
    ]
    yield from reasons[:MOST_REASONS]
    if (more := len(reasons) - MOST_REASONS) > 0:
        yield f"{count(more, 'more reason')} on the page."
    yield from (made.lead, *made.notes)
    yield from (command for pair in commands(lineup) for command in pair)
