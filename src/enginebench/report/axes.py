"""Axes, titles and rules of a plot, as plotly.js reads them: plain dictionaries.

What is drawn between the axes is in ``traces``; where plots lie is in ``charts``.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from enginebench.report.figures import Axis, Plot, Rule
from enginebench.report.looks import categories
from enginebench.report.traces import digits, label

Json = dict[str, Any]

GREY = "#808890"
MAX_TICKS = 7


def axis_spec(plot: Plot, *, across: bool) -> Json:
    """The horizontal axis (``across``) or the vertical one. That of the values has the grid."""
    axis = plot.x if across else plot.y
    of_values = across == plot.horizontal
    spec: Json = {
        "type": "log" if axis.log else "linear",
        "zeroline": False,
        "showline": False,
        "showgrid": of_values,
        "fixedrange": True,
        "separatethousands": True,
        "exponentformat": "none",
        "automargin": True,
    }
    if across:
        spec["title"] = {"text": label(_axis_words(axis)), "standoff": 6, "font": {"size": 12}}
    if (names := categories(plot)) and not of_values:
        return spec | _names(names, reverse=plot.horizontal)
    ticks = axis.ticks or (_log_ticks(list(_values(plot, across=across))) if axis.log else ())
    if ticks:
        return spec | {"tickvals": [digits(at) for at, _ in ticks], "ticktext": [label(text) for _, text in ticks]}
    return spec | {"nticks": 5, "rangemode": "tozero" if axis.from_zero and not axis.log else "normal"}


def title_spec(plot: Plot, suffix: str) -> Json:
    """The title of a plot with what its vertical axis counts, which has no title of its own."""
    known = plot.horizontal or plot.y.title.casefold() in plot.title.casefold()
    words = "" if plot.horizontal else _axis_words(plot.y)
    words = words.removeprefix(plot.y.title) if known else f", {words}"
    return {
        "text": f"<b>{label(plot.title)}</b>{label(words)}",
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": 0 if plot.horizontal else -36,
        "yshift": 14,
        "showarrow": False,
    }


def rule_spec(plot: Plot, rule: Rule, suffix: str) -> Json:
    """A line or a shaded span from one side of ``plot`` to the other, with its label at its end, a span's above it."""
    other = "y" if rule.axis == "x" else "x"
    words = {"text": label(rule.label), "font": {"size": 11}, "padding": 2}
    place: Json = {
        f"{rule.axis}ref": f"{rule.axis}{suffix}",
        f"{other}ref": f"{other}{suffix} domain",
        f"{rule.axis}0": digits(rule.at),
        f"{rule.axis}1": digits(rule.at if rule.to is None else rule.to),
        f"{other}0": 0,
        f"{other}1": 1,
        "layer": "below",
    }
    if rule.to is not None:
        shade = {"type": "rect", "fillcolor": GREY, "opacity": 0.16, "line": {"width": 0}}
        return place | shade | {"label": words | {"textposition": "top left", "yanchor": "bottom"}}
    line = {"type": "line", "line": {"color": GREY, "width": 1.5, "dash": "dash"}}
    return place | line | {"label": words | _beside(plot, rule)}


def _beside(plot: Plot, rule: Rule) -> Json:
    """Where a line's label stands: above the plot for an upright line, on the line for a level one."""
    known = list(_values(plot, across=rule.axis == "x"))
    if rule.axis == "y":
        high = rule.at > 0.8 * max(known)
        return {"textposition": "end", "textangle": 0, "xanchor": "right", "yanchor": "top" if high else "bottom"}
    far = rule.at > min(known) + 0.7 * (max(known) - min(known))
    return {"textposition": "end", "textangle": 0, "xanchor": "right" if far else "left", "yanchor": "bottom"}


def _axis_words(axis: Axis) -> str:
    unit = f", {axis.unit}" if axis.unit else ""
    better = f" · {axis.better} is better" if axis.better else ""
    return f"{axis.title}{unit}{better}"


def _names(names: Sequence[str], *, reverse: bool) -> Json:
    ends = [-0.6, len(names) - 0.4]
    return {
        "range": ends[::-1] if reverse else ends,
        "tickvals": list(range(len(names))),
        "ticktext": [label(name) for name in names],
        "ticks": "",
        "ticklabelstandoff": 5,
    }


def _values(plot: Plot, *, across: bool) -> Iterator[float]:
    """Every number that has to find a place on an axis."""
    for marks in plot.marks:
        column = marks.x if across else marks.y
        yield from (value for value in column if isinstance(value, int | float) and math.isfinite(value))
        if across == plot.horizontal:
            yield from (value for value in (*marks.low, *marks.high) if math.isfinite(value))
    yield from (rule.at for rule in plot.rules if (rule.axis == "x") == across)


def _log_ticks(values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    """Round numbers that cover ``values``, as few as can be read: 1, 2, 5 of each decade, or the decades alone."""
    known = [value for value in values if value > 0]
    if not known:
        return ()
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)))
    if max(known) < 5 * min(known):
        return _even_ticks(min(known), max(known))
    for each in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**power for power in range(low, high + 1) for digit in each]
        ticks = [tick for tick in ticks if min(known) / 1.6 <= tick <= max(known) * 1.6]
        if len(ticks) <= MAX_TICKS:
            break
    return _texts(ticks[:: max(1, math.ceil(len(ticks) / (2 * MAX_TICKS)))])


def _even_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Round numbers at equal steps: what a short stretch of a logarithmic axis needs."""
    rough = max(high - low, high * 1e-3) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return _texts([number * step for number in range(max(1, first), last + 1)])


def _texts(ticks: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple((tick, f"{tick:,.6g}") for tick in ticks)
