"""The page of ``enginebench trend``: every series as a chart, those that stepped first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.files import write_text
from enginebench.report.figures import Section
from enginebench.report.page import render
from enginebench.report.trend import Series, trend_json
from enginebench.report.trend_figures import Line, trend_section
from enginebench.report.units import count


@dataclass(frozen=True, slots=True)
class TrendPage:
    """The page, top to bottom."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part."""
        return (("trend", "Trend"),)

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""
        return bool(self.sections)


def write_trend(found: Sequence[Series], runs: int, target: Path) -> Path:
    """Write the page of ``found``, the series of so many ``runs``, to ``target`` and return it.

    Raises:
        RunError: the page cannot be written.
    """
    section = trend_section([Line("", "", series) for series in found])
    steps = sum(len(series.steps) for series in found)
    said = f"{count(runs, 'run')}, {count(len(found), 'series', 'series')}, {count(steps, 'step')}"
    page = TrendPage("enginebench trend", said, (section,) if section else ())
    write_text(target, render("trend.html.j2", page, json.loads(trend_json(found))))
    return target
