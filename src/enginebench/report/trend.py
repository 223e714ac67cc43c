"""Series of stored runs with their steps, as plain data, as a table and as JSON."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from enginebench.report.units import count, percent, scale_for

SCHEMA = "enginebench/trend/1"


@dataclass(frozen=True, slots=True)
class Point:
    """A run in a series. ``value``: in the metric's unit; None: it has none."""

    run_id: str
    created: str
    build: str
    fingerprint: str
    version: str | None
    driver: str | None
    commit: str | None
    value: float | None


@dataclass(frozen=True, slots=True)
class StepAt:
    """A change for good. ``index``: of the first point after it; ``differs``: what is new there, in words."""

    index: int
    before: float
    after: float
    change: float
    p_value: float
    worse: bool
    differs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One number of one cell over the runs of one machine and workload, oldest first."""

    machine: str
    cell_id: str
    metric: str
    unit: str
    better: str
    points: tuple[Point, ...]
    steps: tuple[StepAt, ...]


def trend_text(found: Sequence[Series], runs: int) -> str:
    """The steps of all series, and what has none."""
    target = io.StringIO()
    console = Console(file=target, width=180, highlight=False)
    stepped = [series for series in found if series.steps]
    if stepped:
        console.print(_table(stepped))
    longest = max((len(series.points) for series in found), default=0)
    console.print(
        Text(
            f"{count(runs, 'run')}, {count(len(found), 'series', 'series')} of up to {count(longest, 'run')}; "
            f"{count(len(stepped), 'series', 'series')} with a step."
        )
    )
    for line in _remarks(found):
        console.print(Text(line))
    return target.getvalue()


def trend_json(found: Sequence[Series]) -> str:
    """Every series with its points and steps."""
    content = {"schema": SCHEMA, "series": [asdict(series) for series in found]}
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _table(stepped: Sequence[Series]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "cell", "metric"):
        table.add_column(title, no_wrap=True)
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("since run", "what is new there"):
        table.add_column(title, overflow="fold")
    for series in stepped:
        for step in series.steps:
            scale = scale_for(series.unit, (step.before, step.after))
            table.add_row(
                Text("✗", style="red") if step.worse else Text("✓", style="green"),
                series.cell_id,
                series.metric,
                scale.text(step.before),
                scale.text(step.after),
                percent(step.change),
                series.points[step.index].run_id,
                ", ".join(step.differs) or "nothing that is known",
            )
    return table


def _remarks(found: Sequence[Series]) -> list[str]:
    machines = list(dict.fromkeys(series.machine for series in found))
    lines = [f"Machines: {'; '.join(machines)}; their runs are series of their own."] if len(machines) > 1 else []
    if found and all(len(series.points) < 4 for series in found):
        lines.append("A step takes two runs on either side at least, and is seen for sure with five or more.")
    return lines
