"""Figures and sections as plain data: points ready to be drawn, sentences and tables ready to be printed.

Whatever a page shows beyond its fixed head is a :class:`Section`; ``charts`` draws its figures, templates its words.
"""

from dataclasses import dataclass
from typing import Literal

from enginebench.report.view import Table


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. ``ticks``: (value, text) where the ticks are not to be chosen freely."""

    title: str
    unit: str = ""
    log: bool = False
    from_zero: bool = True
    better: Literal["lower", "higher", ""] = ""
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Marks:
    """One series. ``band`` fills between ``low`` and ``high``; ``dots`` and ``line`` with both draw intervals of y.

    ``y`` of a horizontal plot's ``bars`` and ``intervals`` are categories, ``x`` the values.
    """

    name: str
    kind: Literal["line", "steps", "dots", "bars", "intervals", "band"]
    x: tuple[float | str, ...]
    y: tuple[float | str | None, ...]  # None: a gap
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    texts: tuple[str, ...] = ()  # under the pointer, one a point
    labels: tuple[tuple[str, str], ...] = ()  # beside each point on a wide page: words, and where they stand
    role: str = ""  # a path, "old", "new", "good", "warn", "bad", "muted", an outcome, or "": the next of eight
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A line across the plot at a value of ``axis``, or, with ``to``, a shaded span."""

    axis: Literal["x", "y"]
    at: float
    label: str
    to: float | None = None


@dataclass(frozen=True, slots=True)
class Plot:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    marks: tuple[Marks, ...]
    rules: tuple[Rule, ...] = ()
    stacked: bool = False  # bars on top of each other
    horizontal: bool = False  # bars and intervals lie along x


@dataclass(frozen=True, slots=True)
class Figure:
    """Plots that belong together, what they show in one sentence, and their numbers.

    ``columns``: plots beside each other (below each other on a narrow page); otherwise all share one time axis.
    ``tall``: they are what their page is about.
    """

    id: str
    title: str
    finding: str
    plots: tuple[Plot, ...]
    table: Table
    columns: bool = True
    tall: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with its place in the navigation. Empty parts are left out by whoever makes them."""

    id: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
