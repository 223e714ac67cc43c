"""Figures as JSON that the page's script hands to plotly.js: nothing but this module knows plotly.

Only SVG traces are used, which a strict CSP lets draw. Colours that differ between light and dark are left to the page.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from plotly.offline import get_plotlyjs

from enginebench.report.figures import Axis, Figure, Plot, Rule
from enginebench.report.looks import categories
from enginebench.report.traces import digits, label, traces

Json = dict[str, Any]

CONFIG = {
    "displayModeBar": False,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
}
GREY = "#808890"
GAP = 0.075
"""Between plots beside each other, as a share of the figure's width."""
NAME_PX = 26
"""Height of the place of one name on a vertical axis."""
WRAPPED = {"wide": 34, "narrow": 18}
"""Letters in a line of a name on a vertical axis."""


@lru_cache(maxsize=1)
def plotly_bundle() -> str:
    """plotly.js, compressed with gzip, in base64: less than half its size, and the page opens before it is read."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode("ascii")


def chart_json(figure: Figure) -> str:
    """Data and layout of ``figure``, and what differs on a ``wide`` and on a ``narrow`` page."""
    suffixes = ["" if number == 0 else str(number + 1) for number in range(len(figure.plots))]
    data = [trace for plot, suffix in zip(figure.plots, suffixes, strict=True) for trace in traces(plot, suffix)]
    spec = {
        "data": data,
        "layout": _layout(figure, suffixes),
        "config": CONFIG,
        "wide": _places(figure, suffixes, columns=figure.columns),
        "narrow": _places(figure, suffixes, columns=False),
    }
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def heights_px(figure: Figure) -> tuple[int, int]:
    """How high the figure is on a wide and on a narrow page, so that the page keeps its place for it."""
    return _height(figure, columns=figure.columns), _height(figure, columns=False)


def _layout(figure: Figure, suffixes: Sequence[str]) -> Json:
    layout: Json = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "family": "inherit"},
        "margin": {"l": 48, "r": 14, "t": 44, "b": 42},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "barmode": "stack" if any(plot.stacked for plot in figure.plots) else "group",
        "bargap": 0.3,
        "annotations": [_title(plot, suffix) for plot, suffix in zip(figure.plots, suffixes, strict=True)],
        "shapes": [
            _shape(rule, suffix) for plot, suffix in zip(figure.plots, suffixes, strict=True) for rule in plot.rules
        ],
    }
    last = suffixes[-1]
    for plot, suffix in zip(figure.plots, suffixes, strict=True):
        shared = not figure.columns and suffix != last
        x, y = _axis(plot, plot.x, across=True), _axis(plot, plot.y, across=False)
        if shared:
            x |= {"matches": f"x{last}", "showticklabels": False, "title": {"text": ""}}
        layout[f"xaxis{suffix}"] = x | {"anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = y | {"anchor": f"x{suffix}"}
    return layout


def _axis(plot: Plot, axis: Axis, *, across: bool) -> Json:
    """``across``: the horizontal one. The values' axis has the grid; the title of a vertical one is the plot's."""
    of_values = across if plot.horizontal else not across
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
        unit = f", {axis.unit}" if axis.unit else ""
        spec["title"] = {"text": label(axis.title + unit), "standoff": 6, "font": {"size": 12}}
    names = categories(plot)
    if names and not of_values:
        return spec | _name_axis(names, reverse=plot.horizontal)
    if axis.ticks:
        return spec | {"tickvals": [at for at, _ in axis.ticks], "ticktext": [label(text) for _, text in axis.ticks]}
    return spec | _number_axis(axis)


def _number_axis(axis: Axis) -> Json:
    if axis.log:
        return {"nticks": 6, "minor": {"ticks": ""}}
    return {"nticks": 5, "rangemode": "tozero" if axis.from_zero else "normal"}


def _name_axis(names: Sequence[str], *, reverse: bool) -> Json:
    ends = [-0.6, len(names) - 0.4]
    return {
        "range": ends[::-1] if reverse else ends,
        "tickvals": list(range(len(names))),
        "ticktext": [label(name) for name in names],
        "ticks": "",
    }


def _title(plot: Plot, suffix: str) -> Json:
    values = plot.x if plot.horizontal else plot.y
    unit = f", {values.unit}" if values.unit and not plot.horizontal else ""
    better = f" · {values.better} is better" if values.better else ""
    return {
        "text": f"<b>{label(plot.title)}</b>{label(unit + better)}",
        "xref": f"x{suffix} domain",
        "yref": f"y{suffix} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": 0 if plot.horizontal else -36,
        "yshift": 12,
        "showarrow": False,
    }


def _shape(rule: Rule, suffix: str) -> Json:
    """A line or a shaded span from one side of the plot to the other."""
    other = "y" if rule.axis == "x" else "x"
    words = {"text": label(rule.label), "font": {"size": 11}, "padding": 3}
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
        return place | shade | {"label": words | {"textposition": "top left"}}
    line = {"type": "line", "line": {"color": GREY, "width": 1.5, "dash": "dash"}}
    position = {"textposition": "end", "textangle": 0, "xanchor": "right", "yanchor": "bottom"}
    if rule.axis == "x":
        position = {"textposition": "end", "textangle": 0, "xanchor": "left", "yanchor": "top"}
    return place | line | {"label": words | position}


def _places(figure: Figure, suffixes: Sequence[str], *, columns: bool) -> Json:
    """Where the plots lie, as keys for ``Plotly.relayout``."""
    places: Json = {"height": _height(figure, columns=columns)}
    shares = _shares(figure, columns=columns)
    wrapped = WRAPPED["wide" if columns or not figure.columns else "narrow"]
    first = categories(figure.plots[0])
    for number, (plot, suffix) in enumerate(zip(figure.plots, suffixes, strict=True)):
        places[f"xaxis{suffix}.domain"] = shares[number] if columns else [0, 1]
        places[f"yaxis{suffix}.domain"] = [0, 1] if columns else shares[number]
        names = categories(plot)
        if plot.horizontal and names:
            places[f"yaxis{suffix}.ticktext"] = [_wrapped(name, wrapped) for name in names]
            places[f"yaxis{suffix}.showticklabels"] = not (columns and number and names == first)
    return places


def _shares(figure: Figure, *, columns: bool) -> list[list[float | int | None]]:
    """Start and end of each plot along the direction in which they are placed, 0..1."""
    if columns:
        weights, gap = [1.0] * len(figure.plots), GAP
    else:
        weights = [float(_plot_height(plot, figure)) for plot in figure.plots]
        gap = _between(figure) / max(1.0, sum(weights) + _between(figure) * (len(weights) - 1))
    room = (1 - gap * (len(weights) - 1)) / sum(weights)
    starts = [sum(weights[:number]) * room + gap * number for number in range(len(weights))]
    shares = [(start, start + weight * room) for start, weight in zip(starts, weights, strict=True)]
    if not columns:
        shares = [(1 - end, 1 - start) for start, end in shares]
    return [[digits(max(0.0, start)), digits(min(1.0, end))] for start, end in shares]


def _height(figure: Figure, *, columns: bool) -> int:
    each = [_plot_height(plot, figure) for plot in figure.plots]
    return 86 + (max(each) if columns else sum(each) + _between(figure) * (len(each) - 1))


def _plot_height(plot: Plot, figure: Figure) -> int:
    if plot.horizontal:
        return max(70, NAME_PX * len(categories(plot)))
    return 184 if figure.columns or len(figure.plots) == 1 else 130


def _between(figure: Figure) -> int:
    """Room between plots below each other, px: for a title, and for the names of an axis unless all share it."""
    return 80 if figure.columns else 42


def _wrapped(name: str, letters: int) -> str:
    """``name`` in at most two lines, broken at a space or a dash where there is one."""
    if len(name) <= letters:
        return label(name)
    cut = max(name.rfind(mark, 0, letters) for mark in " -,") + 1 or letters
    rest = name[cut:]
    if len(rest) > letters:
        rest = rest[: letters - 1] + "…"
    return f"{label(name[:cut])}<br>{label(rest)}"
