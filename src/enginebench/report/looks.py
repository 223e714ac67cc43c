"""How series look: a colour, a marker, a dash and a hatch each, so that colour alone tells nothing apart.

Each colour passes 3:1 on white and on the dark background. Knows neither plotly nor the page: both draw from here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from enginebench.report.figures import Figure, Marks, Plot

MAX_MARKED = 16
"""A line of more points than this shows none of them."""


@dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn."""

    colour: str
    symbol: str
    dash: str = "solid"
    hatch: str = ""


PATHS = {
    "direct": Look("#0072B2", "circle"),
    "core": Look("#CC79A7", "triangle-up", "dashdot", "/"),
    "ensemble": Look("#D55E00", "square", "dash", "x"),
    "bls": Look("#009E73", "diamond", "dot", "\\"),
    "llmapi": Look("#7C6FD0", "cross", "longdash", "-"),
}
MEANINGS = {
    "old": Look("#0072B2", "circle", "dash"),
    "new": Look("#D55E00", "square", hatch="/"),
    "good": Look("#009E73", "circle"),
    "warn": Look("#A6761D", "diamond", "dash", "/"),
    "bad": Look("#D6453D", "x", "dashdot", "x"),
    "muted": Look("#808890", "cross", "dot"),
    "regression": Look("#D6453D", "x"),
    "improvement": Look("#009E73", "triangle-up"),
    "equivalent": Look("#0072B2", "circle"),
    "inconclusive": Look("#A6761D", "diamond"),
    "invalid": Look("#808890", "square"),
}
OTHERS = (
    Look("#0072B2", "circle"),
    Look("#D55E00", "square", "dash", "/"),
    Look("#009E73", "diamond", "dot", "\\"),
    Look("#7C6FD0", "triangle-up", "dashdot", "x"),
    Look("#A6761D", "triangle-down", "longdash", "-"),
    Look("#CC79A7", "cross", "longdashdot", "|"),
    Look("#1B8AA6", "x", "dash", "+"),
    Look("#5B8C00", "hexagon", "dot", "."),
)
BUILDS = {f"build-{number}": look for number, look in enumerate(OTHERS, 1)}
"""Several runs side by side, in their order."""

SYMBOLS = {
    "circle": "M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "triangle-up": "M6 1l5.6 9.6H.4z",
    "triangle-down": "M6 11l5.6-9.6H.4z",
    "square": "M1.5 1.5h9v9h-9z",
    "diamond": "M6 0l6 6l-6 6l-6-6z",
    "cross": "M4.5 1h3v3.5H11v3H7.5V11h-3V7.5H1v-3h3.5z",
    "x": "M3 1l3 3l3-3l2 2l-3 3l3 3l-2 2l-3-3l-3 3l-2-2l3-3l-3-3z",
    "hexagon": "M6 .5l5 2.75v5.5l-5 2.75l-5-2.75v-5.5z",
}
"""Outlines in a box of 12 by 12."""

HATCHES = {
    "/": "M0 12L7 0M7 12L14 0",
    "\\": "M0 0L7 12M7 0L14 12",
    "x": "M0 12L7 0M7 12L14 0M0 0L7 12M7 0L14 12",
    "-": "M0 3h14M0 8h14",
    "|": "M4 0v12M10 0v12",
    "+": "M0 3h14M0 8h14M4 0v12M10 0v12",
    ".": "M2 3h1M7 3h1M12 3h1M2 8h1M7 8h1M12 8h1",
}
"""Strokes in a box of 14 by 12."""

_FIXED = PATHS | MEANINGS | BUILDS
"""Looks of roles: the same in every plot."""

DASHES = {"dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "9 4", "longdashdot": "9 4 2 4"}


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """A series in words, with what its sign is made of."""

    name: str
    look: Look
    kind: str  # of the marks
    marked: bool  # its line shows its points
    hollow: bool

    @property
    def outline(self) -> str:
        """The marker as an SVG path."""
        return SYMBOLS[self.look.symbol]

    @property
    def hatching(self) -> str:
        """The hatch of bars as an SVG path; empty without one."""
        return HATCHES.get(self.look.hatch, "")

    @property
    def dash_array(self) -> str:
        """The dash as SVG wants it."""
        return DASHES.get(self.look.dash, "")


def looks(plot: Plot) -> Iterator[tuple[Marks, Look]]:
    """Each series of ``plot`` with its look; those of one name share it."""
    free = cycle(OTHERS)
    taken: dict[str, Look] = {}
    for marks in plot.marks:
        look = _FIXED.get(marks.role) or taken.get(marks.name) or next(free)
        taken.setdefault(marks.name, look)
        yield marks, look


def legend(figure: Figure) -> tuple[LegendEntry, ...]:
    """The series of ``figure`` by name, each once: those that share their plot with another, muted ones last."""
    found: dict[str, LegendEntry] = {}
    for plot in figure.plots:
        names = {marks.name for marks in plot.marks if marks.name}
        if len(names) > 1:
            for marks, look in looks(plot):
                found.setdefault(marks.name, LegendEntry(marks.name, look, marks.kind, is_marked(marks), marks.dashed))
    entries = [entry for name, entry in found.items() if name]
    return tuple(sorted(entries, key=lambda entry: entry.look == MEANINGS["muted"]))


def is_marked(marks: Marks) -> bool:
    """Whether its points are shown."""
    few = len(marks.x) <= MAX_MARKED and marks.role != "muted"
    return marks.kind in ("dots", "intervals") or (marks.kind == "line" and few)


def categories(plot: Plot) -> Sequence[str]:
    """What stands on the axis of names, in order of appearance; empty where both axes are numbers."""
    columns = [marks.y if plot.horizontal else marks.x for marks in plot.marks]
    names = [value for column in columns for value in column if isinstance(value, str)]
    return tuple(dict.fromkeys(names))
