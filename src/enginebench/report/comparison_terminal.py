"""A comparison as a terminal shows it."""

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from enginebench.decide.model import Verdict
from enginebench.report import comparison_words as words
from enginebench.report.comparison import Comparison

MIN_WIDTH = 160
_STYLES = {"regression": "bold red", "improvement": "green", "equivalent": "green", "inconclusive": "yellow",
           "invalid": "bold red"}  # fmt: skip
_MOST_CAUSES = 8


def comparison_text(comparison: Comparison, *, width: int, colour: bool, watched: bool = True) -> str:
    """The verdicts as a table with everything around them; ``watched``: with the numbers that decide nothing."""
    target = io.StringIO()
    console = Console(
        file=target, width=max(width, MIN_WIDTH), force_terminal=colour, no_color=not colour, highlight=False
    )
    style = "bold green" if comparison.gate.passed else "bold red"
    console.print(Text(words.headline(comparison), style=style), soft_wrap=True)
    for line in _lead(comparison):
        console.print(Text(line), soft_wrap=True)
    if comparison.verdicts:
        console.print(_table(comparison, watched))
        console.print(Text(words.Q, style="dim"), soft_wrap=True)
    for line in _after(comparison):
        console.print(Text(line), soft_wrap=True)
    return target.getvalue()


def _lead(comparison: Comparison) -> list[str]:
    sides = [("old", comparison.old), ("new", comparison.new)]
    lines = [f"{name} {each.build}  {each.source} {each.run_id}  {each.host}" for name, each in sides]
    if comparison.reference:
        lines.append(words.REFERENCE)
    return [*lines, words.design_sentence(comparison.design)]


def _table(comparison: Comparison, watched: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "cell", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("old", "new", "change", "interval", "margin", "q"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    for verdict in comparison.gated:
        table.add_row(*_row(verdict))
    if watched and comparison.watched:
        table.add_section()
        table.add_row("", Text(words.watch_summary(comparison.watched), style="dim"))
        for verdict in comparison.watched:
            table.add_row(*_row(verdict), style="dim")
    return table


def _row(verdict: Verdict) -> tuple[Text | str, ...]:
    return (
        Text(words.MARKS[verdict.outcome], style=_STYLES[verdict.outcome]),
        verdict.endpoint.cell_id,
        words.metric_title(verdict),
        *words.numbers(verdict),
        Text(verdict.outcome, style=_STYLES[verdict.outcome]),
    )


def _after(comparison: Comparison) -> list[str]:
    gate = comparison.gate
    lines = [f"✗ {reason}" for reason in gate.reasons] + [f"? {warning}" for warning in gate.warnings]
    lines += [f"allowed: {each.sentence}" for each in comparison.problems if each.allowed]
    lines += [
        f"discarded: pair {each.pair + 1}, {each.cell_id}, {each.side}: {each.reason}"
        for each in comparison.design.discarded
    ]
    if comparison.causes:
        lines.append("What differs, the likeliest first:")
        lines += [f"  {cause.sentence}" for cause in comparison.causes[:_MOST_CAUSES]]
    return [*lines, *comparison.notes]
