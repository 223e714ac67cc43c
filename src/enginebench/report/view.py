"""What the page shows, as plain data: every string ready to be printed, every point ready to be drawn.

Templates and charts read these and decide nothing but looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from enginebench.report.units import DASH


@dataclass(frozen=True, slots=True)
class Text:
    """What stands in one place of a table. ``why``: the reason for a missing value, or what a text stands for."""

    text: str
    why: str | None = None
    share: float | None = None  # 0..1: length of the bar behind the number
    path: str | None = None  # marks the text with the sign of a path

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
    """A path at the reference load."""

    path: str
    subtitle: str
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
class Matrix:
    """Every cell of the run."""

    columns: tuple[Column, ...]
    groups: tuple[MatrixGroup, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a load with the range of its rounds, in the panel's unit."""

    level: float
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """The points of a path, with or without streaming."""

    path: str
    streaming: bool
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One metric against the load."""

    title: str
    unit: str
    better: str
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels side by side for one scenario, output length and kind of load, what they show, and their numbers."""

    id: str
    scenario: str
    title: str
    finding: str
    axis: str  # what the horizontal axis counts
    panels: tuple[Panel, ...]
    table: Table


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
class Memory:
    """What engines and servers took."""

    sentence: str
    table: Table


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


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page, top to bottom."""

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
    charts: tuple[Chart, ...]
    charts_left_out: int
    legend: tuple[tuple[str, str], ...]  # path and what it is
    dashed: bool  # some series have no streaming
    rounds: Rounds
    memory: Memory
    findings: tuple[Finding, ...]
    facts: tuple[Facts, ...]
    metrics: Table
    run_json: Mapping[str, object]
