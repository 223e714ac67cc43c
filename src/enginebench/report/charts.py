"""Figures as JSON that the page's script hands to plotly.js: nothing but this module knows plotly.

Only SVG traces are used, which a strict CSP lets draw. Colours that differ between light and dark are left to the page.
"""

import base64
import gzip
import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from plotly.offline import get_plotlyjs

from enginebench.report.axes import axis_spec, rule_spec, title_spec
from enginebench.report.figures import Figure, Plot
from enginebench.report.looks import categories
from enginebench.report.traces import digits, label, traces

Json = dict[str, Any]
Share: TypeAlias = tuple[float | int | None, float | int | None]

CONFIG = {
    "displayModeBar": False,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
}
MARGINS_PX = 86
GAP = 0.075
"""Between plots beside each other, as a share of the figure's width."""
LINE_PX = 15
"""Height of a line of a name on a vertical axis."""
LETTERS = {True: 44, False: 18}
"""In a line of such a name, on a wide page and on a narrow one."""


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
        "wide": _places(figure, suffixes, wide=True),
        "narrow": _places(figure, suffixes, wide=False),
    }
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def heights_px(figure: Figure) -> tuple[int, int]:
    """How high the figure is on a wide and on a narrow page, so that the page keeps its place for it."""
    return _height(figure, wide=True), _height(figure, wide=False)


def _layout(figure: Figure, suffixes: Sequence[str]) -> Json:
    plots = list(zip(figure.plots, suffixes, strict=True))
    layout: Json = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "family": "inherit"},
        "margin": {"l": 48, "r": 14, "t": 44, "b": 42},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "barmode": "group",
        "bargap": 0.3,
        "annotations": [title_spec(plot, suffix) for plot, suffix in plots],
        "shapes": [rule_spec(plot, rule, suffix) for plot, suffix in plots for rule in plot.rules],
    }
    for plot, suffix in plots:
        x, y = axis_spec(plot, across=True), axis_spec(plot, across=False)
        if not figure.columns and suffix != suffixes[-1]:
            x |= {"matches": f"x{suffixes[-1]}", "showticklabels": False, "title": {"text": ""}}
        layout[f"xaxis{suffix}"] = x | {"anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = y | {"anchor": f"x{suffix}"}
    return layout


def _places(figure: Figure, suffixes: Sequence[str], *, wide: bool) -> Json:
    """Where the plots lie, as keys for ``Plotly.relayout``."""
    columns = wide and figure.columns
    places: Json = {"height": _height(figure, wide=wide)}
    shares = _columns(figure) if columns else _rows(figure, wide=wide)
    first = categories(figure.plots[0])
    for number, (plot, suffix) in enumerate(zip(figure.plots, suffixes, strict=True)):
        places[f"xaxis{suffix}.domain"] = shares[number] if columns else [0, 1]
        places[f"yaxis{suffix}.domain"] = [0, 1] if columns else shares[number]
        names = categories(plot)
        if plot.horizontal and names:
            places[f"yaxis{suffix}.ticktext"] = [_wrapped(name, LETTERS[wide]) for name in names]
            places[f"yaxis{suffix}.showticklabels"] = not (columns and number and names == first)
    return places


def _columns(figure: Figure) -> list[Share]:
    """Start and end of each plot from left to right, 0..1."""
    each = (1 - GAP * (len(figure.plots) - 1)) / len(figure.plots)
    starts = [number * (each + GAP) for number in range(len(figure.plots))]
    return [(digits(start), digits(min(1.0, start + each))) for start in starts]


def _rows(figure: Figure, *, wide: bool) -> list[Share]:
    """Start and end of each plot from the bottom up, 0..1; the first is at the top."""
    heights = [_plot_height(plot, figure, wide=wide) for plot in figure.plots]
    between = _between(figure)
    total = sum(heights) + between * (len(heights) - 1)
    tops = [sum(heights[:number]) + between * number for number in range(len(heights))]
    return [
        (digits(max(0.0, 1 - (top + height) / total)), digits(1 - top / total))
        for top, height in zip(tops, heights, strict=True)
    ]


def _height(figure: Figure, *, wide: bool) -> int:
    each = [_plot_height(plot, figure, wide=wide) for plot in figure.plots]
    return MARGINS_PX + (max(each) if wide and figure.columns else sum(each) + _between(figure) * (len(each) - 1))


def _plot_height(plot: Plot, figure: Figure, *, wide: bool) -> int:
    if plot.horizontal:
        lines = max((1 + (len(name) > LETTERS[wide]) for name in categories(plot)), default=1)
        return max(60, (LINE_PX * lines + 9) * len(categories(plot)))
    if figure.tall:
        return 330
    return 184 if figure.columns or len(figure.plots) == 1 else 130


def _between(figure: Figure) -> int:
    """Room between plots below each other, px: for a title, and for the ticks of an axis unless all share it."""
    return 84 if figure.columns else 44


def _wrapped(name: str, letters: int) -> str:
    """``name`` in at most two lines, broken at a space or a dash where there is one."""
    if len(name) <= letters:
        return label(name)
    cut = max(name.rfind(mark, 0, letters) for mark in " -,") + 1 or letters
    rest = name[cut:]
    if len(rest) > letters:
        rest = rest[: letters - 1] + "…"
    return f"{label(name[:cut])}<br>{label(rest)}"
