"""What the GPUs did: memory, power, clocks and utilisation over the whole run, and energy and state cell by cell.

Reads samples and what was judged of them; judges nothing. Without a GPU there is no such part.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.report.cells import CellView, Json, cells_of
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.units import DASH, GIB, Scale, count, scale_for
from enginebench.report.view import Column, Table, Text
from enginebench.store_tables import read_columns

MAX_POINTS = 600
"""Of a line; more samples are put together, of memory their most, of the rest their mean."""

MAX_LABELS, MAX_SPANS = 8, 40
MERGED_NS = 2 * 10**9
COARSE = 0.05  # an error of the energy that is worth a word
LEAD = (
    "What NVML told about 20 times a second, in a process of its own. Utilisation is the share of time in which any "
    "kernel ran: it says that the GPU was used, not how well. Energy is that of the whole card, idle parts included."
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Line:
    """One quantity over time."""

    column: str
    title: str
    unit: str
    factor: float = 1.0
    most: bool = False  # of samples that are put together: the most, else the mean
    from_zero: bool = True


LINES = (
    _Line("used_bytes", "Memory in use", "GiB", 1 / GIB, most=True),
    _Line("power_w", "Power", "W"),
    _Line("sm_clock_mhz", "SM clock", "MHz"),
    _Line("sm_percent", "Utilisation", "%"),
    _Line("temperature_c", "Temperature", "°C", from_zero=False),
)


def gpu_section(run: Json, directory: Path | None) -> Section | None:
    """The GPUs over time, and a table of the cells; None for a run without a GPU."""
    cells = [cell for cell in cells_of(run) if cell.measured and cell.record.get("gpu")]
    if not cells:
        return None
    samples = read_columns(directory / "telemetry" / "gpu.parquet") if directory else {}
    table = _table(cells)
    figures = (_over_time(cells, samples, table),) if samples else ()
    return Section("gpu", "GPU", LEAD, figures, () if figures else (table,), tuple(_notes(cells)))


def gpu_of(cell: CellView) -> Mapping[str, Any]:
    """The ``gpu`` of a measured cell."""
    found: Mapping[str, Any] = cell.record["gpu"]
    return found


def _over_time(cells: Sequence[CellView], samples: Mapping[str, Any], table: Table) -> Figure:
    start_ns = int(samples["stamp_ns"][0])
    plots = [
        Plot(
            line.title,
            Axis("time", "s"),
            Axis(line.title, line.unit, from_zero=line.from_zero),
            marks,
            tuple(_rules(cells, start_ns, labelled=line is LINES[0])),
        )
        for line in LINES
        if (marks := tuple(_marks(line, samples, start_ns)))
    ]
    return Figure("gpu-over-time", "The GPU over time", _finding(cells), tuple(plots), table, columns=False)


def _marks(line: _Line, samples: Mapping[str, Any], start_ns: int) -> Iterator[Marks]:
    places = np.unique(samples["gpu"])
    for place in places:
        rows = samples["gpu"] == place
        values = np.asarray(samples[line.column], dtype=np.float64)[rows] * line.factor
        if np.isnan(values).all():
            continue
        seconds, values = _thinned((samples["stamp_ns"][rows] - start_ns) / 1e9, values, most=line.most)
        shown = tuple(None if np.isnan(value) else round(float(value), 3) for value in values)
        name = line.title if len(places) == 1 else f"GPU {place}"
        yield Marks(name, "line", tuple(round(float(one), 3) for one in seconds), shown)


def _thinned(seconds: Floats, values: Floats, *, most: bool) -> tuple[Floats, Floats]:
    """At most ``MAX_POINTS`` of them; a group without a value stays a gap."""
    if len(values) <= MAX_POINTS:
        return seconds, values
    groups = np.array_split(np.arange(len(values)), MAX_POINTS)
    reduce = np.max if most else np.mean
    known = [values[group][~np.isnan(values[group])] for group in groups]
    return (
        np.array([seconds[group[0]] for group in groups]),
        np.array([float(reduce(one)) if len(one) else np.nan for one in known]),
    )


def _rules(cells: Sequence[CellView], start_ns: int, *, labelled: bool) -> Iterator[Rule]:
    """The measured rounds; of many, those of a cell that follow each other are one."""
    rounds = [(cell, gpu_of(cell).get("round_spans_ns") or []) for cell in cells]
    gap_ns = 0 if sum(len(spans) for _, spans in rounds) <= MAX_SPANS else MERGED_NS
    for cell, spans in rounds:
        for number, (first, last) in enumerate(_merged(spans, gap_ns)):
            named = labelled and number == 0 and len(rounds) <= MAX_LABELS
            label = f"{cell.path} {cell.load.label}" if named else ""
            yield Rule("x", (first - start_ns) / 1e9, label, to=(last - start_ns) / 1e9)


def _merged(spans: Sequence[Sequence[int]], gap_ns: int) -> Iterator[tuple[int, int]]:
    """Spans in order, those less than ``gap_ns`` apart as one."""
    held: tuple[int, int] | None = None
    for first, last in sorted((start, end) for start, end in spans):
        if held and first - held[1] < gap_ns:
            held = (held[0], last)
            continue
        if held:
            yield held
        held = (first, last)
    if held:
        yield held


def _finding(cells: Sequence[CellView]) -> str:
    power = [(gpu_of(cell)["average_power_w"], cell) for cell in cells if gpu_of(cell).get("average_power_w")]
    joules = [(value, cell) for cell in cells if (value := gpu_of(cell).get("energy_per_output_token_j"))]
    if not power or not joules:
        return "The card told no energy: no joules can be given."
    watts, hottest = max(power, key=lambda one: one[0])
    least, cheapest = min(joules, key=lambda one: one[0])
    scale = scale_for("J", [least])
    return (
        f"Power is {watts:.0f} W on average at most ({hottest.id}); a token takes {scale.number(least)} J at least "
        f"({cheapest.id})."
    )


def _table(cells: Sequence[CellView]) -> Table:
    columns = (
        Column("Cell", numeric=False),
        Column("Energy per token", "J"),
        Column("Per request", "J"),
        Column("Tokens per joule"),
        Column("Power", "W"),
        Column("Peak memory", "GiB"),
        Column("SM clock, median", "MHz"),
        Column("SM clock, least", "MHz"),
        Column("Temperature, most", "°C"),
        Column("Clocks held down", numeric=False),
    )
    scales = [scale_for("", [gpu_of(cell).get(key) for cell in cells]) for key in _ENERGY]
    return Table("GPU by cell", columns, tuple(row for cell in cells for row in _rows(cell, scales)))


_ENERGY = ("energy_per_output_token_j", "energy_per_request_j", "tokens_per_j")


def _rows(cell: CellView, scales: Sequence[Scale]) -> Iterator[tuple[Text, ...]]:
    """All GPUs of a cell together and, where there are several, each."""
    gpu = gpu_of(cell)
    source, each = gpu.get("energy_source"), gpu.get("by_gpu") or ()
    energy = (_number(gpu.get(key), scale, source) for key, scale in zip(_ENERGY, scales, strict=True))
    yield (Text(cell.id, path=cell.path), *energy, *_seen(gpu))
    for place, one in enumerate(each if len(each) > 1 else ()):
        together = [Text(DASH, "all GPUs together make a token")] * len(_ENERGY)
        yield (Text(f"{cell.id}, GPU {place}", path=cell.path), *together, *_seen(one))


def _seen(gpu: Mapping[str, Any]) -> tuple[Text, ...]:
    """Of all GPUs of a cell, or of one."""
    clock, heat = gpu.get("sm_clock_mhz") or {}, gpu.get("temperature_c") or {}
    memory = gpu.get("peak_bytes")
    return (
        _whole(gpu.get("average_power_w")),
        Text(DASH, "the GPU does not tell") if memory is None else Text(f"{memory / GIB:.2f}"),
        _whole(clock.get("p50")),
        _whole(clock.get("min")),
        _whole(heat.get("max")),
        Text(_held(gpu.get("throttle") or {})),
    )


def _number(value: float | None, scale: Scale, source: str | None) -> Text:
    if value is None:
        return Text(DASH, "the GPU does not tell its energy, or the path the length of answers")
    return Text(scale.number(value), None if source == "counter" else f"from {source}, not from the energy counter")


def _whole(value: float | None) -> Text:
    return Text(DASH, "the GPU does not tell") if value is None else Text(f"{value:,.0f}")


def _held(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{reason} {share:.0%}" for reason, share in shares.items()) or "never"


def _notes(cells: Sequence[CellView]) -> Iterator[str]:
    yield from dict.fromkeys(note for cell in cells for note in gpu_of(cell).get("notes") or ())
    coarse = [cell for cell in cells if (gpu_of(cell).get("energy_error") or 0) > COARSE]
    if coarse:
        worst = max(gpu_of(cell)["energy_error"] for cell in coarse)
        yield (
            f"Energy of {count(len(coarse), 'cell')} is known to {worst:.0%} only: "
            "the card counts it in steps of 0.1 s, and rounds are short against that."
        )
    sampled = [cell for cell in cells if gpu_of(cell).get("energy_source") not in (None, "counter")]
    if sampled:
        yield (
            f"Energy of {count(len(sampled), 'cell')} is the integral of sampled power: the card's counter did not "
            "answer. It misses what happens between samples."
        )
