"""Figures as plotly reads them: its own validators accept them, names stay names, and no text is read as HTML."""

import json
from typing import Any

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.report.axes import axis_spec
from enginebench.report.charts import chart_json, heights_px
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule
from enginebench.report.looks import MAX_MARKED, legend, looks
from enginebench.report.view import Table

HOSTILE = "</script><b>x</b>"
NAMES = ("8", "16", HOSTILE, "a name that is far too long for one line of the axis of a phone")
TIMES = tuple(float(time) for time in range(60))


def plot(*marks: Marks, x: Axis | None = None, y: Axis | None = None, **rest: Any) -> Plot:
    return Plot("Latency", x or Axis("time", "s"), y or Axis("latency", "ms", better="lower"), marks, **rest)


def figure(*plots: Plot, columns: bool = True) -> Figure:
    return Figure("one", "One", "It shows something.", plots, Table("Numbers", (), ()), columns)


KINDS = {
    "line": plot(Marks("direct", "line", (1.0, 2.0), (3.0, None), (2.0, 2.0), (4.0, 4.0), ("a", "b"), role="direct")),
    "steps": plot(Marks("all", "steps", TIMES, TIMES), x=Axis("time", "s", log=True), rules=(Rule("x", 5, "SLO"),)),
    "dots": plot(Marks("all", "dots", TIMES, NAMES * 15), horizontal=True),
    "bars": plot(
        Marks("one", "bars", NAMES, (1.0, 2.0, None, 3.0)), Marks("two", "bars", NAMES, (1.0,) * 4), stacked=True
    ),
    "intervals": plot(
        Marks("change", "intervals", (1.0, -1.0), NAMES[:2], (0.0, -2.0), (2.0, 0.0), role="new"),
        horizontal=True,
        rules=(Rule("x", 5, "margin"), Rule("x", -5, "margin")),
    ),
    "band": plot(
        Marks("p50 to p90", "band", TIMES, (None,) * 60, TIMES, (float("nan"), *TIMES[1:])),
        rules=(Rule("x", 0, "", to=9),),
    ),
}


def spec_of(one: Figure) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(chart_json(one))
    return spec


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [True, False])
def test_plotly_accepts_every_kind_of_marks_wherever_it_lies(kind: str, columns: bool) -> None:
    spec = spec_of(figure(KINDS[kind], KINDS["line"], columns=columns))
    for places in (spec["wide"], spec["narrow"]):
        layout = spec["layout"] | {"height": places.pop("height")}
        for key, value in places.items():
            outer, inner = key.split(".")
            layout[outer] = layout[outer] | {inner: value}
        drawn = go.Figure(data=spec["data"], layout=layout)
        assert len(drawn.data) == len(KINDS[kind].marks) + 1


def test_names_are_places_on_an_axis_and_never_numbers() -> None:
    spec = spec_of(figure(plot(Marks("one", "bars", (1.0, 2.0, 3.0, 4.0), NAMES), horizontal=True)))
    assert spec["data"][0]["y"] == [0, 1, 2, 3]
    assert spec["layout"]["yaxis"]["ticktext"][:2] == ["8", "16"]
    assert spec["layout"]["yaxis"]["range"] == [3.6, -0.6]  # the first is at the top


def test_no_text_is_read_as_html_or_ends_its_script() -> None:
    titled = Plot(
        HOSTILE, Axis(HOSTILE), Axis(HOSTILE), (Marks(HOSTILE, "bars", (HOSTILE,), (1.0,)),), (Rule("y", 1, HOSTILE),)
    )
    texts = chart_json(figure(titled, KINDS["bars"]))
    assert HOSTILE not in texts
    assert texts.count("&lt;/script&gt;") >= 6


def test_stacked_bars_begin_where_those_before_end() -> None:
    spec = spec_of(figure(KINDS["bars"]))
    assert [trace["base"] for trace in spec["data"]] == [[0, 0, 0, 0], [1, 2, 0, 3]]


def test_a_gap_parts_a_band() -> None:
    low = (1.0, 1.0, float("nan"), 1.0, 1.0)
    (trace,) = spec_of(figure(plot(Marks("b", "band", TIMES[:5], (None,) * 5, low, (2.0,) * 5))))["data"]
    assert trace["x"] == [0, 1, 1, 0, None, 3, 4, 4, 3]
    assert trace["y"] == [1, 1, 2, 2, None, 1, 1, 2, 2]


def test_the_legend_names_series_that_share_a_plot_once_and_muted_ones_last() -> None:
    muted, one, two = (
        Marks(name, "steps", TIMES, TIMES, role=role) for name, role in (("tail", "muted"), ("a", ""), ("b", ""))
    )
    alone = plot(Marks("alone", "line", TIMES, TIMES))
    assert [entry.name for entry in legend(figure(plot(muted, one, two), plot(one, two), alone))] == ["a", "b", "tail"]
    assert legend(figure(alone)) == ()


def test_lines_differ_in_more_than_colour() -> None:
    names = [f"series {number}" for number in range(8)]
    marks = [Marks(name, "steps", TIMES, TIMES) for name in names]
    paths = [Marks(path, "line", (1.0,), (1.0,), role=path) for path in ("direct", "core", "ensemble", "bls", "llmapi")]
    assert len({(look.colour) for _, look in looks(plot(*marks))}) == 8
    assert len({(look.dash, look.symbol, look.hatch) for _, look in looks(plot(*marks))}) == 8
    assert (
        len({look.symbol for _, look in looks(plot(*paths))})
        == len({look.dash for _, look in looks(plot(*paths))})
        == 5
    )


def test_series_of_one_name_look_alike() -> None:
    found = [look for _, look in looks(plot(*(Marks(name, "bars", ("x",), (1.0,)) for name in ("a", "b", "a"))))]
    assert found[0] == found[2] != found[1]


def test_colours_can_be_seen_on_white_and_on_the_dark_background() -> None:
    marks = [Marks(str(number), "line", (1.0,), (1.0,)) for number in range(8)]
    marks += [
        Marks(role, "line", (1.0,), (1.0,), role=role)
        for role in ("direct", "core", "bls", "llmapi", "warn", "bad", "muted")
    ]
    for _, look in looks(plot(*marks)):
        assert min(_contrast(look.colour, "#ffffff"), _contrast(look.colour, "#0d1117")) >= 3, look


def test_long_lines_show_no_points() -> None:
    few, many = (Marks("a", "line", TIMES[:count], TIMES[:count]) for count in (MAX_MARKED, MAX_MARKED + 1))
    assert [trace["mode"] for trace in spec_of(figure(plot(few), plot(many)))["data"]] == ["lines+markers", "lines"]


def test_a_shared_time_axis_is_written_once() -> None:
    layout = spec_of(figure(KINDS["line"], KINDS["line"], KINDS["line"], columns=False))["layout"]
    assert [layout[f"xaxis{number}"].get("showticklabels", True) for number in ("", "2", "3")] == [False, False, True]
    assert layout["xaxis"]["matches"] == "x3"


def test_plots_below_each_other_need_their_height() -> None:
    wide, narrow = heights_px(figure(KINDS["line"], KINDS["line"], KINDS["line"]))
    assert narrow > 2 * wide
    tall = plot(Marks("one", "bars", (1.0,) * 30, tuple(map(str, range(30)))), horizontal=True)
    assert heights_px(figure(tall))[0] > 600


@given(st.floats(1e-6, 1e6), st.floats(1, 1e9))
def test_a_logarithmic_axis_has_round_ticks_among_its_values(low: float, ratio: float) -> None:
    one = plot(Marks("a", "line", (low, low * ratio), (1.0, 1.0)), x=Axis("x", log=True))
    ticks = axis_spec(one, across=True)["tickvals"]
    assert 1 <= len(ticks) <= 14
    assert all(low / 2 <= tick <= low * ratio * 2 for tick in ticks)


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
