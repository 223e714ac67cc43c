"""What the terminal shows of one cell: every metric, its rounds, its distribution, its course, its slowest requests."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME, METRICS
from enginebench.report import trust
from enginebench.report.aggregates import CellAggregates, Quantiles, RequestRow, cell_aggregates
from enginebench.report.cells import CellView, cells_of
from enginebench.report.sparkline import sparkline
from enginebench.report.tables import STATISTICS
from enginebench.report.terminal import MIN_WIDTH, console_on
from enginebench.report.units import DASH, count, scale_for
from enginebench.store import load_run

_SHOWN_REQUESTS = 5
_WIDTH = 48
_RAW_GAP = "chunk_gap"


def cell_text(run_dir: Path, wanted: str, *, width: int, colour: bool) -> str:
    """Everything about the cell with the id ``wanted``, or with the only id that holds it.

    Raises:
        RunError: there is no readable run, no such cell, or several.
    """
    run = load_run(run_dir)
    cell = _cell(cells_of(run.data), wanted, run_dir)
    target = io.StringIO()
    console = console_on(target, max(width, MIN_WIDTH), colour)
    console.print(Text(cell.id, style="bold"), soft_wrap=True)
    for sentence in _sentences(cell):
        console.print(Text(sentence), soft_wrap=True)
    if cell.measured:
        console.print(_metrics(cell))
    if sums := cell_aggregates(run, cell.id):
        _print_sums(console, sums)
    return target.getvalue()


def _cell(cells: Sequence[CellView], wanted: str, run_dir: Path) -> CellView:
    exact = [cell for cell in cells if cell.id == wanted]
    found = exact or [cell for cell in cells if wanted in cell.id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RunError(f"{run_dir} has no cell {wanted!r}; its cells are {', '.join(cell.id for cell in cells)}.")
    raise RunError(f"{wanted!r} means {len(found)} cells: {', '.join(cell.id for cell in found)}; type more of the id.")


def _sentences(cell: CellView) -> list[str]:
    answer = f"{cell.output_words} output tokens, {'streamed' if cell.streaming else 'in one piece'}"
    words = [cell.scenario, cell.path, cell.load.words, answer]
    status = trust.status_words(cell.record, cell.status.replace("_", " "))
    reason = f": {cell.reason}" if cell.reason else ""
    return [", ".join(words), f"{status}{reason}", *cell.findings, *trust.reasons_of(cell.record)]


def _metrics(cell: CellView) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for title in (*STATISTICS, "requests", "failed"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("by round", no_wrap=True)
    for metric in METRICS:
        if metric.name in cell.record.get("metrics", {}):
            table.add_row(*_metric_row(cell, metric.name))
    return table


def _metric_row(cell: CellView, name: str) -> list[str]:
    """A rate stands in the column of the median: the one number that it has."""
    keys = STATISTICS if BY_NAME[name].kind == "distribution" else ("value",)
    numbers = [cell.statistic(name, key) for key in keys]
    rounds = cell.per_round(name)
    scale = scale_for(BY_NAME[name].unit, [*numbers, *rounds])
    texts = [DASH if value is None else scale.number(value) for value in numbers]
    texts += [""] * (len(STATISTICS) - len(texts))
    counts = [cell.statistic(name, key) for key in ("count", "failed")]
    texts += ["" if value is None else f"{value:,.0f}" for value in counts]
    spread = f"  {scale.number(min(rounds))}–{scale.number(max(rounds))}" if rounds else ""
    return [
        BY_NAME[name].title,
        scale.symbol or BY_NAME[name].unit,
        *texts,
        sparkline(rounds, low=0.0, width=20) + spread,
    ]


def _print_sums(console: Console, sums: CellAggregates) -> None:
    console.print(Text("\nHow values lie, from the least to the 99th of a hundred:", style="bold"))
    for name, curve in sums.quantiles.items():
        if name != _RAW_GAP or "itl" not in sums.quantiles:
            console.print(Text(_density_line(name, curve)), soft_wrap=True)
    bins = sums.bins
    start_s, end_s = bins.edges_s[0], bins.edges_s[-1]
    console.print(Text(f"\nOver time, from {start_s:,.1f} s to {end_s:,.1f} s, warm-up included:", style="bold"))
    if bins.tokens is not None:
        console.print(f"{'tokens':>22}  {sparkline(bins.tokens, low=0.0, width=_WIDTH)}")
    console.print(f"{'requests in flight':>22}  {sparkline(bins.in_flight, low=0.0, width=_WIDTH)}")
    for name, values_s in bins.p50_s.items():
        console.print(f"{_title(name) + ' p50':>22}  {sparkline(values_s, low=0.0, width=_WIDTH)}")
    slowest = sorted((row for row in sums.rows if row.slow), key=lambda row: -(row.last_s or 0.0))[:_SHOWN_REQUESTS]
    if slowest:
        console.print(Text("\nThe slowest requests:", style="bold"))
        console.print(_requests(slowest))


def _density_line(name: str, curve: Quantiles) -> str:
    least, most = float(curve.values_s[0]), curve.at(0.99)
    if not np.isfinite(most):
        return f"{_title(name):>22}  {count(curve.failed, 'failed request')} of {curve.requests:,}: p99 has no bound"
    edges_s = np.linspace(least, most, _WIDTH + 1)
    reached = np.append(0.0, curve.shares)[np.searchsorted(curve.values_s, edges_s, side="right")]
    scale = scale_for("s", [least, most])
    shares = np.diff(np.append(0.0, reached[1:]))
    ends = scale.text(least) if most <= least else f"{scale.number(least)}–{scale.text(most)}"
    return f"{_title(name):>22}  {sparkline(shares, low=0.0)}  {ends}"


def _requests(rows: Sequence[RequestRow]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("round", "request", "prompt", "tokens", "sent after s", "E2E ms", "TTFT ms", "stalls", "longest ms"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        longest = max((end - start for start, end in row.stalls_s), default=None)
        table.add_row(
            str(row.round_index),
            str(row.request),
            f"{row.prompt_tokens:,}",
            DASH if row.tokens < 0 else f"{row.tokens:,}",
            f"{row.intended_s:,.3f}",
            *(_milliseconds(value) for value in (row.last_s, row.first_s)),
            str(len(row.stalls_s)),
            _milliseconds(longest),
        )
    return table


def _milliseconds(value_s: float | None) -> str:
    return DASH if value_s is None else f"{value_s * 1e3:,.1f}"


def _title(name: str) -> str:
    return "Gap between arrivals" if name == _RAW_GAP else BY_NAME[name].title
