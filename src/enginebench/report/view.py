"""What the page shows, as plain data: every string ready to be printed.

Templates read these and decide nothing but looks. Parts with figures are in ``figures``.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from enginebench.report.units import DASH

if TYPE_CHECKING:
    from enginebench.report.figures import Section


@dataclass(frozen=True, slots=True)
class Text:
    """What stands in one place of a table. ``why``: the reason for a missing value, or what a text stands for."""

    text: str
    why: str | None = None
    share: float | None = None  # 0..1: length of the bar behind the number
    path: str | None = None  # marks the text with the sign of a path
    number: float | None = None  # what to sort by where the text does not say it

    @property
    def missing(self) -> bool:
        """Whether there is no value."""
        return self.text == DASH


@dataclass(frozen=True, slots=True)
class Column:
    """Head of a column."""

    title: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A plain table; the first text of a row is its head."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to know before any number. ``level``: ``good``, ``warn`` or ``bad``."""

    level: str
    headline: str
    counts: tuple[tuple[str, str, int], ...]  # status, words, cells
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CardLine:
    """One number of a card."""

    title: str
    value: Text
    unit: str
    note: str  # change against the first path, or the range of the rounds
    better: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A path at the reference load. ``status``: ``invalid`` or ``degraded``, with its words; empty: to be trusted."""

    path: str
    subtitle: str
    status: str
    status_words: str
    lines: tuple[CardLine, ...]


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """A cell. Either ``values`` (measured) or ``reason`` is there."""

    anchor: str
    cell_id: str
    path: str
    shape: tuple[str, str, str]  # mode, output tokens, load
    new_shape: bool  # differs from the row above
    status: str
    status_words: str
    remark: str  # what made a doubtful status
    values: tuple[Text, ...]
    reason: str | None


@dataclass(frozen=True, slots=True)
class MatrixGroup:
    """The cells of a scenario."""

    scenario: str
    description: str
    facts: str
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Cells that were not planned, for one reason."""

    reason: str
    cells: tuple[tuple[str, str], ...]  # anchor and id


@dataclass(frozen=True, slots=True)
class Matrix:
    """Every cell of the run. ``paths`` and ``statuses`` (with its words): what there is to filter by."""

    columns: tuple[Column, ...]
    groups: tuple[MatrixGroup, ...]
    left_out: tuple[LeftOut, ...]
    paths: tuple[str, ...]
    statuses: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RoundsRow:
    """The rounds of a cell. ``dots``: where each round lies between the ends of the common axis, 0..1."""

    anchor: str
    cell_id: str
    path: str
    median: str
    spread: str
    values: str
    dots: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """How far rounds lie apart, for every measured cell."""

    sentence: str
    unit: str
    reach: str  # the end of the axis, e.g. "5%"
    rows: tuple[RoundsRow, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence and the cells that it is about: anchor and id of each."""

    text: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """A list of names and values."""

    title: str
    rows: tuple[tuple[str, str], ...]


class Shell(Protocol):
    """What every page has, whatever it is about."""

    @property
    def title(self) -> str:
        """The title of the document."""

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part, top to bottom."""

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a run, top to bottom."""

    title: str
    heading: str
    subtitle: tuple[str, ...]
    run_id: str
    date: str
    verdict: Verdict
    card_title: str
    cards: tuple[Card, ...]
    matrix: Matrix
    percentiles: Table | None
    requests: Table | None
    sections: "tuple[Section, ...]"
    rounds: Rounds
    findings: tuple[Finding, ...]
    facts: tuple[Facts, ...]
    metrics: Table

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part, top to bottom."""
        parts = [(section.id, section.title) for section in self.sections]
        return (
            ("results", "Results"),
            ("cells", "Cells"),
            *parts,
            ("rounds", "Rounds"),
            ("findings", "Findings"),
            ("environment", "Environment"),
            ("reading", "How to read"),
        )

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""
        return any(section.figures for section in self.sections)
