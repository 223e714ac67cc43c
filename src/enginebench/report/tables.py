"""The tables of cells: the matrix, the percentiles, the rounds and the findings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import median

from enginebench.measure.metrics import BY_NAME, METRICS
from enginebench.report import trust
from enginebench.report.cells import STATUS_WORDS, CellView, Json, path_rank
from enginebench.report.compare import (
    ATTAINMENT,
    HEADLINES,
    SLIP,
    STEADY_RATE,
    Shown,
    metric_scale,
    outpaced,
    rounds_sentence,
    spread,
)
from enginebench.report.summary import MEMORY_TITLES, memory_kind
from enginebench.report.units import DASH, MINUS, Scale, count, percent, scale_for
from enginebench.report.view import (
    Column,
    Finding,
    LeftOut,
    Matrix,
    MatrixGroup,
    MatrixRow,
    Rounds,
    RoundsRow,
    Table,
    Text,
)

MAX_PERCENTILE_ROWS = 400
"""More rows than this make the table of percentiles too heavy for a page; the numbers stay in the run's record."""

STATISTICS = ("p50", "p90", "p95", "p99", "min", "max", "mean")
Anchors = Mapping[str, str]


def anchors_of(cells: Sequence[CellView]) -> Anchors:
    """Ids inside the page that hold whatever a cell is called."""
    return {cell.id: f"cell-{number}" for number, cell in enumerate(cells, 1)}


def matrix(run: Json, cells: Sequence[CellView], anchors: Anchors) -> Matrix:
    """Every cell with its headline numbers, grouped by scenario."""
    metrics = _matrix_metrics(cells)
    scales = {shown.metric: metric_scale(shown, cells) for shown in metrics}
    kind = memory_kind(cells)
    memory = scale_for("bytes", [cell.peak_bytes(kind) for cell in cells])
    columns = [Column(shown.title, scales[shown.metric].symbol) for shown in metrics]
    columns.append(Column(MEMORY_TITLES[kind], memory.symbol))
    columns.append(Column(trust.COLUMN))
    planned = [cell for cell in cells if cell.status != "left_out"]
    groups = []
    for scenario, members in groupby(planned, key=lambda cell: cell.scenario):
        group = list(members)
        rows = _matrix_rows(group, metrics, scales, (kind, memory), anchors)
        groups.append(MatrixGroup(scenario, *_scenario_facts(run, scenario, group), rows))
    shown = [row for group in groups for row in group.rows]
    return Matrix(
        columns=tuple(columns),
        groups=tuple(groups),
        left_out=_left_out(cells, anchors),
        paths=tuple(sorted({row.path for row in shown}, key=path_rank)),
        statuses=tuple(dict.fromkeys((row.status, row.status_words) for row in shown)),
    )


def percentiles(cells: Sequence[CellView]) -> Table | None:
    """Every distribution of every measured cell; None when there is none, or too many for a page."""
    found = [(cell, metric.name) for cell in cells if cell.measured for metric in METRICS if _has(cell, metric.name)]
    if not found or len(found) > MAX_PERCENTILE_ROWS:
        return None
    columns = [Column(title, numeric=False) for title in ("Cell", "Metric", "Unit")]
    columns += [Column(key) for key in (*STATISTICS, "requests", "failed")]
    return Table("Every distribution of every cell", tuple(columns), tuple(_percentile_row(*one) for one in found))


def requests(cells: Sequence[CellView]) -> Table | None:
    """How many requests and tokens each measured cell is made of; None without any, or with too many for a page."""
    measured = [cell for cell in cells if cell.measured]
    if not measured or len(measured) > MAX_PERCENTILE_ROWS:
        return None
    titles = ("Rounds", "Warm-up rounds", "Requests a round", "Requests", "Failed", "Prompt tokens", "Answer tokens")
    columns = (Column("Cell", numeric=False), *(Column(title) for title in titles), Column("Stamps", numeric=False))
    return Table("Requests and tokens of every cell", columns, tuple(_requests_row(cell) for cell in measured))


def _requests_row(cell: CellView) -> tuple[Text, ...]:
    keys = ("rounds", "warmup_rounds", "requests_per_round", "requests", "failed_requests")
    numbers = (cell.record.get(key) for key in keys)
    counts = (Text(DASH, "not recorded") if number is None else Text(f"{number:,}") for number in numbers)
    low, high = cell.record.get("prompt_tokens") or (None, None)
    prompt = DASH if low is None else f"{low:,}" if low == high else f"{low:,}–{high:,}"
    stamps = cell.record.get("stamp_kind") or "unknown"
    return (Text(cell.id), *counts, Text(prompt, "not recorded"), Text(cell.output_words), Text(stamps))


def rounds(cells: Sequence[CellView], anchors: Anchors) -> Rounds:
    """How long each round of each cell took, as numbers and as dots on one common axis."""
    chosen = [cell for cell in cells if cell.makespans_s]
    reach = _reach([value for cell in chosen for value in _deviations(cell)])
    scale = scale_for("s", [value for cell in chosen for value in cell.makespans_s])
    scale = replace(scale, decimals=min(3, scale.decimals + 1))  # rounds of a cell differ by little
    rows = tuple(_rounds_row(cell, anchors[cell.id], scale, reach) for cell in chosen)
    return Rounds(rounds_sentence(chosen), scale.symbol, f"{reach * 100:g}%", rows)


def findings(cells: Sequence[CellView], anchors: Anchors) -> tuple[Finding, ...]:
    """Why cells failed, then what was noticed of others: each sentence once, with the cells that it is about."""
    found: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        if cell.status == "failed":
            found.setdefault(f"Failed: {cell.reason}", []).append((anchors[cell.id], cell.id))
    for cell in cells:
        for text in (*cell.findings, *(trust.reasons_of(cell.record) if cell.measured else ())):
            found.setdefault(text, []).append((anchors[cell.id], cell.id))
    for text, cell in outpaced(cells):
        found.setdefault(text, []).append((anchors[cell.id], cell.id))
    return tuple(Finding(text, tuple(about)) for text, about in found.items())


def metric_table(cells: Sequence[CellView]) -> Table:
    """What each metric is, for those that the run has, or all when it has none."""
    present = [metric for metric in METRICS if any(_has(cell, metric.name, any_kind=True) for cell in cells)]
    columns = (Column("Metric", numeric=False), Column("Formula", numeric=False), Column("Better", numeric=False))
    rows = [(Text(metric.title), Text(metric.formula), Text(metric.better)) for metric in present or METRICS]
    return Table("Definitions of the metrics", columns, tuple(rows))


def _left_out(cells: Sequence[CellView], anchors: Anchors) -> tuple[LeftOut, ...]:
    found: dict[str, list[tuple[str, str]]] = {}
    for cell in cells:
        if cell.status == "left_out":
            found.setdefault(cell.reason or "", []).append((anchors[cell.id], cell.id))
    return tuple(LeftOut(reason, tuple(about)) for reason, about in found.items())


def _matrix_metrics(cells: Sequence[CellView]) -> tuple[Shown, ...]:
    """The headlines, how late the client was, and what only some loads have."""
    some = (shown for shown in (STEADY_RATE, ATTAINMENT) if any(shown.of(cell) is not None for cell in cells))
    return (*HEADLINES, *some, SLIP)


def _matrix_rows(
    cells: Sequence[CellView],
    metrics: Sequence[Shown],
    scales: Mapping[str, Scale],
    memory: tuple[str, Scale],
    anchors: Anchors,
) -> tuple[MatrixRow, ...]:
    fastest = max((cell.value("output_tokens_per_s") or 0.0 for cell in cells), default=0.0)
    rows: list[MatrixRow] = []
    for cell in cells:
        values = tuple(_value(cell, shown, scales[shown.metric], fastest) for shown in metrics)
        values += (_memory_value(cell, *memory), trust.error_text(cell.record))
        shape = ("stream" if cell.streaming else "whole", cell.output_words, cell.load.words)
        rows.append(
            MatrixRow(
                anchor=anchors[cell.id],
                cell_id=cell.id,
                path=cell.path,
                shape=shape,
                new_shape=not rows or rows[-1].shape != shape,
                status=trust.status_of(cell.record, cell.status),
                status_words=trust.status_words(cell.record, STATUS_WORDS[cell.status]),
                remark=trust.cause_of(cell.record),
                values=values if cell.measured else (),
                reason=cell.reason,
            )
        )
    return tuple(rows)


def _value(cell: CellView, shown: Shown, scale: Scale, fastest: float) -> Text:
    value = shown.of(cell)
    if value is None:
        return Text(DASH, cell.why_none(shown.metric))
    share = value / fastest if shown.metric == "output_tokens_per_s" and fastest else None
    return Text(scale.number(value), share=share, number=value * scale.factor)


def _memory_value(cell: CellView, kind: str, scale: Scale) -> Text:
    peak = cell.peak_bytes(kind)
    return Text(DASH, cell.why_none("memory")) if peak is None else Text(scale.number(peak), number=peak * scale.factor)


def _scenario_facts(run: Json, name: str, cells: Sequence[CellView]) -> tuple[str, str]:
    spec = run["plan"]["scenarios"].get(name) or {}
    answers = "answers as long as their lines say" if spec.get("output_tokens") == "from_file" else ""
    facts = [_prompts(spec.get("prompts")), _prompt_tokens(cells), answers]
    rounds_run = {int(cell.record["rounds"]) for cell in cells if cell.measured and cell.record.get("rounds")}
    if len(rounds_run) == 1:
        facts.append(count(rounds_run.pop(), "round"))
    return str(spec.get("description") or ""), " · ".join(fact for fact in facts if fact)


def _prompts(sources: Sequence[Json] | None) -> str:
    if not sources:
        return ""
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return _prompt(sources[0]) + more


def _prompt(source: Json) -> str:
    if text := source.get("text"):
        return f"“{text[:60]}…”" if len(text) > 60 else f"“{text}”"
    if "file" in source:
        return f"prompts of {source['file']}"
    return "synthetic prompts" if "synthetic" in source else "prompts given as token ids"


def _prompt_tokens(cells: Sequence[CellView]) -> str:
    known = [tokens for cell in cells for tokens in (cell.record.get("prompt_tokens") or ())]
    if not known:
        return ""
    low, high = min(known), max(known)
    return count(low, "prompt token") if low == high else f"{low:,} – {high:,} prompt tokens"


def _has(cell: CellView, metric: str, *, any_kind: bool = False) -> bool:
    present = metric in cell.record.get("metrics", {})
    return present and (any_kind or BY_NAME[metric].kind == "distribution")


def _percentile_row(cell: CellView, metric: str) -> tuple[Text, ...]:
    numbers = {key: cell.statistic(metric, key) for key in STATISTICS}
    scale = scale_for(BY_NAME[metric].unit, numbers.values())
    head = (Text(cell.id), Text(BY_NAME[metric].title), Text(scale.symbol or BY_NAME[metric].unit))
    texts = tuple(
        Text(DASH, cell.why_none(metric, key)) if value is None else Text(scale.number(value))
        for key, value in numbers.items()
    )
    return (*head, *texts, _count(cell, metric, "count"), _count(cell, metric, "failed"))


def _count(cell: CellView, metric: str, key: str) -> Text:
    number = cell.statistic(metric, key)
    return Text(DASH, "not recorded") if number is None else Text(f"{number:,.0f}")


def _deviations(cell: CellView) -> list[float]:
    middle = median(cell.makespans_s)
    return [value / middle - 1 for value in cell.makespans_s]


def _reach(deviations: Sequence[float]) -> float:
    """The end of the common axis: the next of 1, 2, 5, 10 … percent."""
    farthest = max((abs(value) for value in deviations), default=0.0)
    steps = [digit * 10.0**power for power in range(-2, 4) for digit in (1, 2, 5)]
    return next((step for step in steps if step >= farthest and not math.isclose(step, 0)), steps[-1])


def _rounds_row(cell: CellView, anchor: str, scale: Scale, reach: float) -> RoundsRow:
    values = cell.makespans_s
    return RoundsRow(
        anchor=anchor,
        cell_id=cell.id,
        path=cell.path,
        median=scale.number(median(values)),
        spread=percent(spread(values)).replace("+", "").replace(MINUS, "") if len(values) > 1 else DASH,
        values="  ".join(scale.number(value) for value in values),
        dots=tuple(min(1.0, max(0.0, (value / reach + 1) / 2)) for value in _deviations(cell)),
    )
