"""How latencies are distributed: curves that end where the requests do, and percentiles that enough requests bear.

The numbers come from ``aggregates``; nothing is fitted or smoothed.
"""

from collections.abc import Iterator, Sequence

from enginebench.measure.metrics import BY_NAME, PERCENTILE_FLOORS
from enginebench.report.aggregates import CellAggregates
from enginebench.report.cells import CellView, Json
from enginebench.report.detail import Detail
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.quantiles import Quantiles
from enginebench.report.slo import limit_words, limits_of
from enginebench.report.units import DASH, Scale, count, scale_for
from enginebench.report.view import Column, Table, Text

SHOWN = ("ttft", "itl", "e2e_latency")
FEW = 10
"""Where fewer requests than this lie beyond a point, chance has drawn the curve: it is shown grey and dotted."""
LEAD = (
    "The share of requests (of tokens, for ITL) that took at most so long, at the heaviest load that the paths share. "
    f"Grey and dotted: fewer than {FEW} requests lie beyond. A percentile is marked where every path has enough "
    "requests for it."
)
MIN_REQUESTS = 20
"""With fewer than this there is no distribution to speak of."""
Group = Sequence[tuple[CellView, CellAggregates]]


def distributions_section(detail: Detail) -> Section | None:
    """A figure for each scenario, mode and length of answers that left records."""
    groups = [group for group in detail.groups() if max(found.requests for _, found in group) >= MIN_REQUESTS]
    figures = tuple(_figure(number, group, detail.run) for number, group in enumerate(groups, 1))
    return Section("distributions", "Distributions", LEAD, figures) if figures else None


def _figure(number: int, group: Group, run: Json) -> Figure:
    first = group[0][0]
    shown = [name for name in SHOWN if any(name in found.quantiles for _, found in group)]
    scales = {name: _scale(name, group) for name in shown}
    mode = "" if first.streaming else ", without streaming"
    title = f"{first.scenario}, {first.output_words} tokens out{mode}, {first.load.words}"
    limits = limits_of(run, first.scenario)
    return Figure(
        id=f"distribution-{number}",
        title=title,
        finding=_finding(shown[0] if first.streaming else "e2e_latency", scales, group),
        plots=tuple(_plot(name, scales[name], group, limits.get(name)) for name in shown),
        table=_table(title, shown, scales, group),
    )


def _plot(name: str, scale: Scale, group: Group, limit_s: float | None) -> Plot:
    curves = [(cell, found.quantiles[name]) for cell, found in group if name in found.quantiles]
    x = Axis(BY_NAME[name].title, scale.symbol, log=True, better="lower")
    marks = tuple(part for cell, curve in curves for part in curve_marks(cell.path, cell.path, curve, scale))
    fewest = min(curve.requests for _, curve in curves)
    y = Axis("share of tokens" if name == "itl" else "share of requests", "%", ticks=share_ticks(fewest))
    rules = () if limit_s is None else (Rule("x", limit_s * scale.factor, f"SLO {limit_words(limit_s)}"),)
    return Plot(BY_NAME[name].title, x, y, marks, rules)


def share_ticks(requests: int) -> tuple[tuple[float, str], ...]:
    """The percentiles that so many requests bear, and the ends, as ticks of shares in percent."""
    marked = [percent for percent in (50, 90, 99) if requests >= PERCENTILE_FLOORS[percent]]
    end = () if 99 in marked else ((100.0, "100"),)  # there is no room for both
    return ((0.0, "0"), *((float(percent), f"p{percent}") for percent in marked), *end)


def curve_marks(name: str, role: str, curve: Quantiles, scale: Scale) -> Iterator[Marks]:
    """The part that many requests bear, and the tail that few do; a failed request took for ever and has no place."""
    points = [
        (share * 100, value * scale.factor)
        for share, value in zip(curve.shares.tolist(), curve.values_s.tolist(), strict=True)
        if value not in (0.0, float("inf"))
    ]
    sure = [point for point in points if round((100 - point[0]) / 100 * curve.requests) >= FEW]
    tail = points[max(0, len(sure) - 1) :]
    if sure:
        yield _part(name, role, sure)
    if tail:
        yield _part(f"fewer than {FEW} requests beyond", "muted", tail)


def _part(name: str, role: str, points: Sequence[tuple[float, float]]) -> Marks:
    shares, values = zip(*points, strict=True)
    return Marks(name, "steps", values, shares, role=role)


def _scale(name: str, group: Group) -> Scale:
    return scale_for("s", [found.quantiles[name].at(0.5) for _, found in group if name in found.quantiles])


def _finding(name: str, scales: dict[str, Scale], group: Group) -> str:
    parts = [_sentence(cell, found.quantiles[name], scales[name]) for cell, found in group if name in found.quantiles]
    return f"{BY_NAME[name].title}: {'; '.join(parts)}." if parts else "No request completed."


def _sentence(cell: CellView, curve: Quantiles, scale: Scale) -> str:
    highest = max(percent for percent, floor in PERCENTILE_FLOORS.items() if curve.requests >= floor)
    keys = dict.fromkeys((50, highest))
    values = [f"p{key} {scale.text(value)}" for key in keys if (value := curve.at(key / 100)) != float("inf")]
    failed = f", {count(curve.failed, 'failed request')} without end" if curve.failed else ""
    return f"{cell.path} {', '.join(values)} of {count(curve.requests, 'request')}{failed}"


def _table(caption: str, shown: Sequence[str], scales: dict[str, Scale], group: Group) -> Table:
    columns = [Column(title, numeric=False) for title in ("Path", "Metric", "Unit")]
    columns += [Column(title) for title in ("min", *(f"p{key}" for key in PERCENTILE_FLOORS), "max")]
    columns += [Column("values"), Column("requests"), Column("failed")]
    known = [(cell, name, found.quantiles[name]) for name in shown for cell, found in group if name in found.quantiles]
    rows = [(*_head(cell, name, scales[name]), *_numbers(curve, scales[name])) for cell, name, curve in known]
    return Table(caption, tuple(columns), tuple(rows))


def _head(cell: CellView, name: str, scale: Scale) -> tuple[Text, ...]:
    return Text(cell.path, path=cell.path), Text(BY_NAME[name].title), Text(scale.symbol)


def _numbers(curve: Quantiles, scale: Scale) -> Iterator[Text]:
    yield _number(float(curve.values_s[0]), scale)
    for key, floor in PERCENTILE_FLOORS.items():
        enough = curve.requests >= floor
        yield _number(curve.at(key / 100), scale) if enough else Text(DASH, f"p{key} needs {floor} requests")
    yield _number(float(curve.values_s[-1]), scale)
    yield from (Text(f"{number:,}") for number in (curve.count, curve.requests, curve.failed))


def _number(value: float, scale: Scale) -> Text:
    return (
        Text(DASH, "a failed request counts as infinitely slow") if value == float("inf") else Text(scale.number(value))
    )
