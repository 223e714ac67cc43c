"""A cell over time: latencies, requests in flight and tokens/s under one time axis, with the warm-up shaded.

Time counts in seconds from the start of the cell's first measured round, as in every part of a page.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from enginebench.measure.metrics import BY_NAME
from enginebench.report.aggregates import CellAggregates, TimeBins
from enginebench.report.cells import CellView
from enginebench.report.detail import Detail
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.quantiles import Floats
from enginebench.report.units import DASH, Scale, percent, scale_for
from enginebench.report.view import Column, Table, Text

SHOWN = ("ttft", "tpot", "e2e_latency")
TIME = Axis("time since the first measured round", "s", from_zero=False)
MIN_REQUESTS = 20
"""Fewer requests than this have no course over time."""
ROWS = 24
"""Of the table: bins are joined to so many."""
LEAD = (
    "A request counts where it ended. The line is the median of a stretch of time, the band reaches from there to the "
    "90th percentile of that stretch. Warm-up rounds are shaded; they are part of no result."
)


def over_time_section(detail: Detail) -> Section | None:
    """A figure for each path at the reference load."""
    chosen = [(cell, found) for cell, found in detail.reference() if found.requests >= MIN_REQUESTS]
    figures = tuple(_figure(number, cell, found) for number, (cell, found) in enumerate(chosen, 1))
    return Section("over-time", "Over time", LEAD, figures) if figures else None


def _figure(number: int, cell: CellView, found: CellAggregates) -> Figure:
    title = f"{cell.path}, {cell.scenario}, {cell.output_words} tokens out, {cell.load.words}"
    names = [name for name in SHOWN if name in found.bins.p50_s][: 2 if cell.streaming else None]
    plots = [_latency(name, found.bins, cell.path) for name in names]
    plots += [_rates(found.bins, cell.path), _in_flight(found.bins, cell.path)]
    return Figure(
        id=f"over-time-{number}",
        title=title,
        finding=_finding(names[0], cell) if names else "No request completed.",
        plots=tuple(replace(plot, rules=_shaded(found, words=plot is plots[0])) for plot in plots),
        table=_table(title, names, found.bins),
        columns=False,
    )


def _shaded(found: CellAggregates, *, words: bool) -> tuple[Rule, ...]:
    spans = enumerate(found.warmups_s)
    return tuple(Rule("x", start, "warm-up" if words and not place else "", to=end) for place, (start, end) in spans)


def _latency(name: str, bins: TimeBins, path: str) -> Plot:
    known = [value for value in bins.p50_s[name].tolist() if math.isfinite(value)]
    scale = scale_for("s", known)
    middle, high = ([value * scale.factor for value in of[name].tolist()] for of in (bins.p50_s, bins.p90_s))
    times_s = _middles(bins)
    marks = (
        Marks("p50 to p90", "band", times_s, (None,) * len(times_s), tuple(middle), tuple(high), role=path),
        Marks("p50", "line", times_s, tuple(value if math.isfinite(value) else None for value in middle), role=path),
    )
    return Plot(BY_NAME[name].title, TIME, Axis(BY_NAME[name].title, scale.symbol, better="lower"), marks)


def _rates(bins: TimeBins, path: str) -> Plot:
    """Tokens a second as they arrived or, where the path does not tell, requests a second as they ended."""
    amounts, title = (bins.completed, "Requests/s") if bins.tokens is None else (bins.tokens, "Output tokens/s")
    rate = amounts / (bins.edges_s[1] - bins.edges_s[0])
    return Plot(title, TIME, Axis(title, better="higher"), (_steps(title, bins, rate, path),))


def _in_flight(bins: TimeBins, path: str) -> Plot:
    return Plot("Requests in flight", TIME, Axis("requests in flight"), (_steps("", bins, bins.in_flight, path),))


def _steps(name: str, bins: TimeBins, values: Floats, path: str) -> Marks:
    """A step a bin, the last one to its end."""
    return Marks(name, "steps", tuple(bins.edges_s.tolist()), (*values.tolist(), float(values[-1])), role=path)


def _middles(bins: TimeBins) -> tuple[float, ...]:
    return tuple(((bins.edges_s[:-1] + bins.edges_s[1:]) / 2).tolist())


def _finding(name: str, cell: CellView) -> str:
    """The first measured round against the last: a drift, or none."""
    title, rounds = f"{BY_NAME[name].title} p50", cell.per_round(name)
    if len(rounds) < 2 or not rounds[0]:
        return (
            f"{title} {scale_for('s', rounds).text(rounds[0])} in the one round." if rounds else f"{title}: no value."
        )
    scale = scale_for("s", rounds)
    change = percent(rounds[-1] / rounds[0] - 1)
    return (
        f"{title} from {scale.number(rounds[0])} in the first round to {scale.text(rounds[-1])} in the last ({change})."
    )


def _table(caption: str, names: Sequence[str], bins: TimeBins) -> Table:
    scales = {
        name: scale_for("s", [value for value in bins.p50_s[name].tolist() if math.isfinite(value)]) for name in names
    }
    columns = [Column("From", "s"), Column("Completed"), Column("Failed"), Column("In flight")]
    for name in names:
        columns += [Column(f"{BY_NAME[name].title} {key}", scales[name].symbol) for key in ("p50", "p90")]
    return Table(
        f"{caption}; latencies are those of the middle of each stretch", tuple(columns), tuple(_rows(bins, scales))
    )


def _rows(bins: TimeBins, scales: dict[str, Scale]) -> Iterator[tuple[Text, ...]]:
    step = max(1, -(-len(bins.completed) // ROWS))
    for start in range(0, len(bins.completed), step):
        stretch = slice(start, start + step)
        middle = min(start + step // 2, len(bins.completed) - 1)
        row = [
            Text(f"{bins.edges_s[start]:,.2f}"),
            Text(f"{int(bins.completed[stretch].sum()):,}"),
            Text(f"{int(bins.failed[stretch].sum()):,}"),
            Text(f"{float(bins.in_flight[stretch].mean()):,.1f}"),
        ]
        for name, scale in scales.items():
            row += [_number(float(of[name][middle]), scale) for of in (bins.p50_s, bins.p90_s)]
        yield tuple(row)


def _number(value: float, scale: Scale) -> Text:
    return Text(scale.number(value)) if math.isfinite(value) else Text(DASH, "no request ended there")
