"""Charts, drawn by plotly: nothing else knows it. A chart becomes JSON; the page's script hands it to plotly.js.

Only SVG scatter traces are used, so that a smaller bundle could replace the full one, and a strict CSP lets them draw.
"""

import json
import math
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from enginebench.report.cells import path_rank
from enginebench.report.view import Chart, Panel, Point, Series

# Each passes 3:1 on white and on #0d1117. Marker and dash tell paths and modes apart without colour.
COLOURS = {"direct": "#0072B2", "core": "#CC79A7", "ensemble": "#D55E00", "bls": "#009E73", "llmapi": "#7C6FD0"}
MARKERS = {"direct": "circle", "core": "triangle-up", "ensemble": "square", "bls": "diamond", "llmapi": "star"}
GREY = "#808890"
CONFIG = {
    "displayModeBar": False,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "responsive": True,
}
WIDE_GAP = 0.075
DODGE = 0.018  # in decades: markers of two paths at one load stay apart


def plotly_script() -> str:
    """The plotly.js bundle."""
    return str(get_plotlyjs())


def chart_json(chart: Chart) -> str:
    """Data and layout of ``chart``, with ``narrow``: what differs where panels stand below each other."""
    figure = go.Figure(layout=_layout(chart))
    for number, panel in enumerate(chart.panels, 1):
        for series in panel.series:
            figure.add_trace(_trace(series, number))
    spec = json.loads(figure.to_json())
    wide, narrow = _places(len(chart.panels), columns=True), _places(len(chart.panels), columns=False)
    return json.dumps({**spec, "config": CONFIG, "wide": wide, "narrow": narrow}, sort_keys=True)


def _layout(chart: Chart) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12, "family": "inherit"},
        "margin": {"l": 44, "r": 12, "t": 44, "b": 40},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "annotations": [_panel_title(number, panel) for number, panel in enumerate(chart.panels, 1)],
    }
    levels = sorted({point.level for panel in chart.panels for one in panel.series for point in one.points})
    for number, panel in enumerate(chart.panels, 1):
        layout[f"xaxis{_suffix(number)}"] = _load_axis(number, levels, chart.axis)
        layout[f"yaxis{_suffix(number)}"] = _value_axis(number, panel)
    return layout


def _load_axis(number: int, levels: list[float], title: str) -> dict[str, Any]:
    low, high = math.log10(levels[0]), math.log10(levels[-1])
    room = max(0.12, (high - low) * 0.12)
    return {
        "anchor": f"y{_suffix(number)}",
        "type": "log",
        "range": [low - room, high + room],
        "tickvals": levels,
        "ticktext": [f"{level:,.6g}" for level in levels],
        "title": {"text": title, "standoff": 6, "font": {"size": 12}},
        "showgrid": False,
        "zeroline": False,
        "fixedrange": True,
    }


def _value_axis(number: int, panel: Panel) -> dict[str, Any]:
    top = max((point.high for series in panel.series for point in series.points), default=1.0)
    return {
        "anchor": f"x{_suffix(number)}",
        "range": [0, top * 1.12 or 1.0],
        "nticks": 5,
        "zeroline": False,
        "showline": False,
        "fixedrange": True,
        "separatethousands": True,
    }


def _panel_title(number: int, panel: Panel) -> dict[str, Any]:
    unit = f", {panel.unit}" if panel.unit else ""
    return {
        "text": f"<b>{panel.title}</b>{unit} · {panel.better} is better",
        "xref": f"x{_suffix(number)} domain",
        "yref": f"y{_suffix(number)} domain",
        "x": 0,
        "y": 1,
        "xanchor": "left",
        "yanchor": "bottom",
        "xshift": -34,
        "yshift": 12,
        "showarrow": False,
    }


def _trace(series: Series, number: int) -> go.Scatter:
    colour = COLOURS.get(series.path, GREY)
    return go.Scatter(
        x=[_dodged(point, series) for point in series.points],
        y=[_digits(point.value) for point in series.points],
        xaxis=f"x{_suffix(number)}",
        yaxis=f"y{_suffix(number)}",
        name=series.path,
        mode="lines+markers",
        line={"color": colour, "width": 2, "dash": "solid" if series.streaming else "dot"},
        marker={"symbol": MARKERS.get(series.path, "cross") + ("" if series.streaming else "-open"), "size": 9},
        error_y=_error_bars(series.points, colour),
        hovertext=[point.text for point in series.points],
        hoverinfo="text",
    )


def _error_bars(points: tuple[Point, ...], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [_digits(point.high - point.value) for point in points],
        "arrayminus": [_digits(point.value - point.low) for point in points],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _dodged(point: Point, series: Series) -> float:
    return _digits(point.level * 10 ** ((path_rank(series.path) - 1.5) * DODGE))


def _digits(value: float) -> float:
    """Six digits are more than a screen shows and keep the page small."""
    return float(f"{value:.6g}")


def _places(panels: int, *, columns: bool) -> dict[str, Any]:
    """Where the panels lie, as keys for ``Plotly.relayout``: beside each other, or below each other."""
    gap = WIDE_GAP if columns else 0.34 / panels
    each = (1 - gap * (panels - 1)) / panels
    places: dict[str, Any] = {"height": 270 if columns else 70 + 215 * panels}
    for number in range(1, panels + 1):
        start = (number - 1 if columns else panels - number) * (each + gap)
        share = [_digits(start), _digits(min(1.0, start + each))]
        places[f"xaxis{_suffix(number)}.domain"] = share if columns else [0, 1]
        places[f"yaxis{_suffix(number)}.domain"] = [0, 1] if columns else share
    return places


def _suffix(number: int) -> str:
    return "" if number == 1 else str(number)
