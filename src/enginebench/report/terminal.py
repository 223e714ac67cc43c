"""What the terminal shows: the plan before a run, a line for each cell, and the table of all cells after it.

The page holds everything; the table holds what people compare first.
"""

import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from enginebench.report import trust
from enginebench.report.cells import cells_of
from enginebench.report.sparkline import sparkline
from enginebench.report.summary import verdict
from enginebench.store import load_run

NO_VALUE = "—"
MIN_WIDTH = 150
"""Lines that a narrow terminal breaks can still be read; numbers that are cut off cannot."""
LEVEL_STYLES = {"good": "bold green", "warn": "bold yellow", "bad": "bold red"}
COLUMNS = (
    ("TTFT", "ttft", "ms"),
    ("TPOT", "tpot", "ms"),
    ("E2E", "e2e_latency", "ms"),
    ("output", "output_tokens_per_s", "tokens/s"),
)


def plan_lines(
    build: str, cells: Sequence[str], not_applicable: Mapping[str, str], left_out: Mapping[str, str], estimate_s: float
) -> list[str]:
    """The plan of a run, before it starts: its cells by id, what cannot run and why, and about how long it takes."""
    count = len(cells) - len(not_applicable)
    lines = [f"enginebench: {count} cell{'s' * (count != 1)} on build {build}, {_duration(estimate_s)}"]
    for cell in cells:
        reason = not_applicable.get(cell)
        lines.append(f"  {cell}" + (f"  not applicable: {reason}" if reason else ""))
    for reason in sorted(set(left_out.values())):
        count = sum(1 for other in left_out.values() if other == reason)
        lines.append(f"  {count} more cells left out: {reason}")
    return lines


def headline(cell: Mapping[str, Any]) -> str:
    """One line for a measured cell."""
    parts = [f"{title} {text}" for title, name, unit in COLUMNS if (text := _value(cell, name, unit)) != NO_VALUE]
    return "  ".join(parts)


def summary_text(run_dir: Path, *, width: int, colour: bool) -> str:
    """A stored run: its verdict, the table of all cells, what became of the others, and where the page is.

    Raises:
        RunError: there is no readable run.
    """
    loaded = load_run(run_dir)
    run = loaded.data
    target = io.StringIO()
    console = console_on(target, max(width, MIN_WIDTH), colour)
    console.print(_title(run))
    said = verdict(run, cells_of(run))
    console.print(Text(said.headline, style=LEVEL_STYLES[said.level]), soft_wrap=True)
    for note in said.notes:
        console.print(Text(f"  {note}"), soft_wrap=True)
    console.print(_table(run))
    console.print("p50 over the requests of all measured rounds; tokens/s over their wall time.", style="dim")
    for cell_id, cell in run["cells"].items():
        if cell["status"] != "measured":
            console.print(Text(f"{cell['status'].replace('_', ' ')}: {cell_id}: {cell['reason']}"), soft_wrap=True)
        for finding in (*cell.get("findings", ()), *trust.reasons_of(cell)):
            console.print(Text(f"{cell_id}: {finding}"), soft_wrap=True)
    console.print(Text(_page(loaded.directory)), soft_wrap=True)
    return target.getvalue()


def _page(directory: Path) -> str:
    page = directory / "report.html"
    if page.is_file():
        return f"page: {page}"
    return f"no page yet: enginebench report {shlex.quote(str(directory))} writes it"


def console_on(target: IO[str], width: int, colour: bool) -> Console:
    """A console that writes to ``target`` in ``width`` columns, in colour or without."""
    return Console(file=target, width=width, force_terminal=colour, no_color=not colour, highlight=False)


def _title(run: Mapping[str, Any]) -> Text:
    build = run["build"]
    text = Text(f"build {build['name']}, {build['architecture']} {build['dtype']}")
    if build["kind"] == "reference":
        text.append("  reference engine: these numbers say nothing about TensorRT-LLM", style="yellow")
    return text


def _table(run: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", overflow="fold")  # a long id is broken, never cut
    for title, _, unit in COLUMNS:
        table.add_column(f"{title}\n{unit}", justify="right", no_wrap=True)
    table.add_column("slip\nmax ms", justify="right", no_wrap=True)
    table.add_column("peak\nmemory", justify="right", no_wrap=True)
    table.add_column("client\nerror", justify="right", no_wrap=True)
    table.add_column("tokens/s\nby round", no_wrap=True)
    for cell_id in run["plan"]["cells"]:
        cell = run["cells"].get(cell_id)
        if cell is None:
            table.add_row(Text(cell_id), "not reached")
        elif cell["status"] != "measured":
            table.add_row(Text(cell_id), cell["status"].replace("_", " "))
        else:
            values = [_value(cell, name, unit, with_unit=False) for _, name, unit in COLUMNS]
            rest = (_slip(cell), _memory(cell.get("memory", {})), trust.error_words(cell) or NO_VALUE, _by_round(cell))
            table.add_row(Text(cell_id), *values, *rest)
    return table


def _value(cell: Mapping[str, Any], name: str, unit: str, *, with_unit: bool = True) -> str:
    summary = cell["metrics"].get(name, {}).get("summary", {})
    value = summary.get("p50", summary.get("value"))
    if value is None:
        return NO_VALUE
    text = f"{value * 1e3 if unit == 'ms' else value:,.1f}"
    return f"{text} {unit}" if with_unit else text


def _by_round(cell: Mapping[str, Any]) -> str:
    """The rounds against each other, from zero: what looks flat is flat."""
    return sparkline(cell["metrics"].get("output_tokens_per_s", {}).get("per_round", ()), low=0.0, width=20)


def _slip(cell: Mapping[str, Any]) -> str:
    """How late the client sent at worst: a latency counts from when the load wanted the request out."""
    worst_s = cell["metrics"].get("slip", {}).get("summary", {}).get("max")
    return NO_VALUE if worst_s is None else f"{worst_s * 1e3:,.2f}"


def _memory(memory: Mapping[str, Any]) -> str:
    if memory.get("gpu_peak_bytes") is not None:
        return f"{memory['gpu_peak_bytes'] / 2**30:.2f} GiB GPU"
    host = [used for role, used in memory.get("host_peak_bytes", {}).items() if role in ("engine", "server")]
    return f"{sum(host) / 2**20:,.0f} MiB host" if host else NO_VALUE


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
