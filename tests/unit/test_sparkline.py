"""Rows of bars: as many as values, the least lowest, the greatest highest, gaps where nothing is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.report.sparkline import BARS, GAP, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1, 2, 3, 4, 5, 6, 7, 8], BARS),
        ([8, 1], "█▁"),
        ([5, 5], "▄▄"),
        ([1, None, math.inf, math.nan, 2], "▁···█"),
        ([None, None], "··"),
    ],
)
def test_lines(values: list[float | None], line: str) -> None:
    assert sparkline(values) == line


def test_from_zero_what_differs_by_little_looks_alike() -> None:
    assert sparkline([99, 100], low=0.0) == "██"
    assert sparkline([99, 100]) == "▁█"
    assert sparkline([0, 0], low=0.0) == "▄▄"


def test_thinning_keeps_the_greatest() -> None:
    assert sparkline([0, 7, 0, 0, None, None], width=3) == f"█▁{GAP}"


@given(st.lists(st.none() | st.floats(allow_nan=True), max_size=50), st.integers(0, 20))
def test_a_place_for_every_value(values: list[float | None], width: int) -> None:
    assert len(sparkline(values, width=width)) == (min(width, len(values)) if width else len(values))
