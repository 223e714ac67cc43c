"""From the marks of a plot to traces, as plotly.js reads them: plain dictionaries, no looks of a page.

Only scatter and bar traces, so that a smaller bundle could replace the full one. Names become positions on a numeric
axis, because an axis of names would read ``"8"`` as a number; the axis writes them back.
"""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from enginebench.report.figures import Marks, Plot
from enginebench.report.looks import Look, categories, is_marked, looks

Json = dict[str, Any]
Numbers = list[float | int | None]

DODGE = 0.16
"""Share of a name's place between two series that lie side by side in it."""
BAND_OPACITY = 0.22
MAX_LARGE = 200
"""More dots than this are small."""


def traces(plot: Plot, suffix: str) -> Iterator[Json]:
    """The traces of ``plot`` on the axes ``x<suffix>`` and ``y<suffix>``."""
    places = {name: float(place) for place, name in enumerate(categories(plot))}
    shifts = _shifts(plot)
    piles: dict[float | str | None, float] = {}
    for number, (marks, look) in enumerate(looks(plot)):
        trace = _MAKERS.get(marks.kind, _line)(plot, marks, look, _Places(places, shifts.get(number, 0.0)))
        if marks.kind == "bars":
            trace |= _stacked(plot, marks, piles) if plot.stacked else {}
        yield {**trace, **_words(plot, marks), "xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def label(text: str) -> str:
    """``text`` as plotly shows it literally: it reads a few HTML tags."""
    return html.escape(text, quote=False)


def digits(value: float) -> float | int | None:
    """Six digits are more than a screen shows and keep the page small. None for what is no number."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


class _Places:
    """Where names and numbers lie on an axis."""

    def __init__(self, places: Mapping[str, float], shift: float):
        self._places = places
        self._shift = shift

    def of(self, values: Sequence[float | str | None]) -> Numbers:
        return [self._one(value) for value in values]

    def _one(self, value: float | str | None) -> float | int | None:
        if value is None:
            return None
        return digits(self._places[value] + self._shift if isinstance(value, str) else value)


def _shifts(plot: Plot) -> Mapping[int, float]:
    """By number of the marks: how far dots of one role lie from the middle of a name's place, where roles share it."""
    roles: dict[str, list[int]] = {}
    for number, marks in enumerate(plot.marks):
        if marks.kind in ("dots", "intervals") and marks.role != "muted":
            roles.setdefault(marks.role or f"#{number}", []).append(number)
    if not _share_places(plot, [number for numbers in roles.values() for number in numbers]):
        return {}
    middle = (len(roles) - 1) / 2
    return {number: (place - middle) * DODGE for place, numbers in enumerate(roles.values()) for number in numbers}


def _share_places(plot: Plot, numbers: Sequence[int]) -> bool:
    """Whether two of the marks, by number, stand in one name's place."""
    columns = [plot.marks[number].y if plot.horizontal else plot.marks[number].x for number in numbers]
    names = [name for column in columns for name in set(column) if isinstance(name, str)]
    return len(set(names)) < len(names)


def _line(plot: Plot, marks: Marks, look: Look, places: _Places) -> Json:
    mode = "markers" if marks.kind in ("dots", "intervals") else "lines+markers" if is_marked(marks) else "lines"
    trace: Json = {"type": "scatter", "x": places.of(marks.x), "y": places.of(marks.y), "mode": mode}
    if mode != "markers":
        dash = "dot" if marks.dashed else look.dash if mode == "lines" and not _alone(plot, marks) else "solid"
        trace["line"] = {"color": look.colour, "width": 2, "dash": dash}
        if marks.kind == "steps":
            trace["line"]["shape"] = "hv"
    if mode != "lines":
        ring = marks.kind == "dots" and marks.dashed  # around another mark
        size = 16 if ring else 9 if len(marks.x) <= MAX_LARGE else 6
        trace["marker"] = {
            "color": look.colour,
            "symbol": look.symbol + ("-open" if marks.dashed else ""),
            "size": size,
        }
    if marks.labels:
        words, positions = zip(*marks.labels, strict=True)
        trace |= {"mode": f"{mode}+text", "text": [label(word) for word in words], "textposition": list(positions)}
        trace |= {"cliponaxis": False, "textfont": {"size": 11}}
    if marks.low and marks.high:
        trace["error_x" if plot.horizontal else "error_y"] = _error(marks, look, plot.horizontal)
    return trace


def _alone(plot: Plot, marks: Marks) -> bool:
    """Whether no other line of the plot needs to be told from this one."""
    lines = {one.name for one in plot.marks if one.kind in ("line", "steps") and one.role != "muted"}
    return lines == {marks.name}


def _error(marks: Marks, look: Look, horizontal: bool) -> Json:
    values = marks.x if horizontal else marks.y
    known = [(0.0 if not isinstance(value, int | float) else value) for value in values]
    wide = marks.kind == "intervals"
    return {
        "type": "data",
        "array": [digits(high - value) for high, value in zip(marks.high, known, strict=True)],
        "arrayminus": [digits(value - low) for low, value in zip(marks.low, known, strict=True)],
        "color": look.colour,
        "thickness": 2 if wide else 1.2,
        "width": 4 if wide else 3,
    }


def _bars(plot: Plot, marks: Marks, look: Look, places: _Places) -> Json:
    hatched = look.hatch and sum(one.kind == "bars" for one in plot.marks) > 1
    marker: Json = {"color": look.colour, "line": {"width": 0}}
    if hatched:
        marker["pattern"] = {"shape": look.hatch, "fillmode": "overlay", "size": 6, "solidity": 0.25}
    bars = {"type": "bar", "x": places.of(marks.x), "y": places.of(marks.y), "marker": marker}
    return {**bars, "orientation": "h" if plot.horizontal else "v"}


def _band(_: Plot, marks: Marks, look: Look, places: _Places) -> Json:
    x, y = _outlines(
        places.of(marks.x), [digits(value) for value in marks.low], [digits(value) for value in marks.high]
    )
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines",
        "line": {"width": 0, "color": look.colour},
        "fill": "toself",
        "fillcolor": _faded(look.colour),
        "hoverinfo": "skip",
    }


def _outlines(x: Numbers, low: Numbers, high: Numbers) -> tuple[Numbers, Numbers]:
    """One closed outline for each stretch without a gap, with a gap between two of them."""
    around_x: Numbers = []
    around_y: Numbers = []
    for known, stretch in groupby(zip(x, low, high, strict=True), key=lambda point: None not in point):
        if known:
            there, below, above = (list(column) for column in zip(*stretch, strict=True))
            around_x += [*there, *reversed(there), None]
            around_y += [*below, *reversed(above), None]
    return around_x[:-1], around_y[:-1]


_MAKERS = {"bars": _bars, "band": _band}


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND_OPACITY})"


def _stacked(plot: Plot, marks: Marks, piles: dict[float | str | None, float]) -> Json:
    """Where each bar begins: on top of those before it. ``piles``: how high each place is so far; grows."""
    names, values = (marks.y, marks.x) if plot.horizontal else (marks.x, marks.y)
    base = [digits(piles.get(name, 0.0)) for name in names]
    for name, value in zip(names, values, strict=True):
        piles[name] = piles.get(name, 0.0) + (value if isinstance(value, int | float) else 0.0)
    return {"base": base, "offsetgroup": "stack"}


def _words(plot: Plot, marks: Marks) -> Json:
    """What stands under the pointer."""
    if marks.kind == "band":
        return {"name": label(marks.name)}
    texts = marks.texts or (tuple(_bar_words(plot, marks)) if marks.kind == "bars" else ())
    if texts:
        return {"name": label(marks.name), "hovertext": [label(text) for text in texts], "hoverinfo": "text"}
    return {"name": label(marks.name), "hoverinfo": "x+y+name" if marks.name else "x+y"}


def _bar_words(plot: Plot, marks: Marks) -> Iterator[str]:
    names, values = (marks.y, marks.x) if plot.horizontal else (marks.x, marks.y)
    unit = (plot.x if plot.horizontal else plot.y).unit
    for name, value in zip(names, values, strict=True):
        amount = f"{value:,.4g}" if isinstance(value, int | float) else "no value"
        yield f"{name}, {marks.name}: {amount} {unit}".rstrip()
