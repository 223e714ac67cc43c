"""The page of several runs side by side: one offline file. From a :class:`Lineup` to strings, and to HTML."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from enginebench.files import write_text
from enginebench.report.cells import Json
from enginebench.report.figures import Section
from enginebench.report.lineup import Lineup
from enginebench.report.lineup_curves import curves_section
from enginebench.report.lineup_differences import runs_section
from enginebench.report.lineup_table import LineupTable, table_of
from enginebench.report.lineup_words import commands, headline, level_of, notes
from enginebench.report.page import render
from enginebench.report.summary import REFERENCE_LABEL, date, hardware
from enginebench.report.units import count

MOST_ROWS = 800
"""More rows than this make the page slow."""


@dataclass(frozen=True, slots=True)
class LineupPage:
    """The page, top to bottom. ``heading``: label and role of each build; ``commands``: of each but the first."""

    title: str
    heading: tuple[tuple[str, str], ...]
    subtitle: tuple[str, ...]
    lineup_id: str
    date: str
    level: str
    headline: str
    notes: tuple[str, ...]
    curves: Section | None
    table: LineupTable
    differences: Section
    commands: tuple[tuple[str, str], ...]

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part, top to bottom."""
        curves = ((self.curves.id, self.curves.title),) if self.curves else ()
        rest = (("cells", "Cells"), (self.differences.id, self.differences.title))
        return (*curves, *rest, ("deciding", "Which is better?"), ("reading", "How to read"))

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""
        return self.curves is not None


def write_lineup(lineup: Lineup, target: Path) -> Path:
    """Write the page of ``lineup`` to ``target`` and return it.

    Raises:
        RunError: the page cannot be written.
    """
    write_text(target, render("lineup.html.j2", lineup_page(lineup), lineup.as_json()))
    return target


def lineup_page(lineup: Lineup) -> LineupPage:
    """Everything that the page shows."""
    labels = [each.label for each in lineup.entrants]
    return LineupPage(
        title=f"{', '.join(labels)}, {date(lineup.created)[:10]}",
        heading=tuple((each.label, each.role) for each in lineup.entrants),
        subtitle=tuple(_subtitle(lineup)),
        lineup_id=lineup.id,
        date=date(lineup.created),
        level=level_of(lineup),
        headline=headline(lineup),
        notes=notes(lineup),
        curves=curves_section(lineup),
        table=_light(table_of(lineup), MOST_ROWS // len(lineup.entrants)),
        differences=runs_section(lineup),
        commands=commands(lineup),
    )


def _light(made: LineupTable, cells: int) -> LineupTable:
    """The table with at most so many cells, saying how many are left out."""
    if len(made.groups) <= cells:
        return made
    left_out = count(len(made.groups) - cells, "more cell")
    note = f"{left_out} without room on the page: the terminal and lineup.json have all."
    return replace(made, groups=made.groups[:cells], notes=(note, *made.notes))


def _subtitle(lineup: Lineup) -> Iterator[str]:
    runs = [each.run for each in lineup.entrants]
    if len(lineup.of_reference_engine) == len(runs):
        yield REFERENCE_LABEL
    yield from dict.fromkeys(str(run["build"]["architecture"]) for run in runs)
    yield from dict.fromkeys(where for run in runs if (where := hardware(run["environment"])))
    yield " to ".join(
        dict.fromkeys(date(str(run["created"]))[:10] for run in sorted(runs, key=_began)[:: len(runs) - 1])
    )


def _began(run: Json) -> str:
    return str(run["created"])
