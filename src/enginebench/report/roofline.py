"""How far from the speed of light: every cell's decode and prefill under the roof of bandwidth and operations.

The roofline model is that of Williams, Waterman and Patterson 2009 (doi:10.1145/1498765.1498785). Work, time and roof
were put together when the cell was measured; here they are drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from enginebench.report.cells import CellView, Json, cells_of, path_rank
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.gpu import gpu_of
from enginebench.report.units import DASH, Scale, count
from enginebench.report.view import Column, Table, Text

TERA = 1e12
WORDS = {"decode": "decode", "prefill": "prefill"}
LEAD = (
    "Each point is what a cell did per byte that it had to move: work from the build's shape, time from the cell. "
    "Under the slope a cell waits for memory, under the flat part for arithmetic; what lies above a point is lost. "
    "MBU: share of the bandwidth that decode used. MFU: share of the operations that prefill did."
)


@dataclass(frozen=True, slots=True)
class _Point:
    cell: CellView
    phase: str
    intensity: float  # operations a byte
    rate: float  # operations/s


def roofline_section(run: Json, _directory: Path | None) -> Section | None:
    """The roofline and its numbers; None without a GPU, or when no cell's work is known."""
    cells = [cell for cell in cells_of(run) if cell.measured and (cell.record.get("gpu") or {}).get("limits")]
    if not cells:
        return None
    table, points = _table(cells), list(_points(cells))
    if not points:
        return Section("roofline", "Against the card's limits", LEAD, tables=(table,), notes=tuple(_notes(cells)))
    figure = Figure("roofline-points", "Roofline", _finding(cells), (_plot(points, _limits(cells[0])),), table)
    return Section("roofline", "Against the card's limits", LEAD, (figure,), notes=tuple(_notes(cells)))


def _limits(cell: CellView) -> Mapping[str, Any]:
    found: Mapping[str, Any] = gpu_of(cell)["limits"]
    return found


def _points(cells: Sequence[CellView]) -> Iterator[_Point]:
    for cell in cells:
        for phase in WORDS:
            if work := _limits(cell).get(phase):
                yield _Point(cell, phase, work["flops"] / work["bytes"], work["flops"] / work["seconds"])


def _plot(points: Sequence[_Point], limits: Mapping[str, Any]) -> Plot:
    x = Axis("operations a byte", log=True, from_zero=False)
    y = Axis("operations", "TFLOP/s", log=True, from_zero=False, better="higher")
    return Plot("Roofline", x, y, (*_roof(points, limits), *_dots(points)))


def _roof(points: Sequence[_Point], limits: Mapping[str, Any]) -> Iterator[Marks]:
    """The slope of the bandwidth up to where the operations end it, and from there on the flat part."""
    bandwidth, flops = limits.get("peak_bytes_per_s"), limits.get("peak_flops_per_s")
    if not bandwidth:
        return
    low = min(point.intensity for point in points) / 2
    high = max(point.intensity for point in points) * 2
    ridge = flops / bandwidth if flops else None
    ends = [low, max(low, ridge) if ridge else high, *([max(high, 2 * ridge)] if ridge else [])]
    heights = [min(end * bandwidth, flops or float("inf")) / TERA for end in ends]
    texts = tuple(
        f"{height:.4g} TFLOP/s at {end:.3g} operations a byte" for end, height in zip(ends, heights, strict=True)
    )
    yield Marks("the card's limit", "line", tuple(ends), tuple(heights), texts=texts, role="muted")


def _dots(points: Sequence[_Point]) -> Iterator[Marks]:
    ordered = sorted(points, key=lambda point: (point.phase, path_rank(point.cell.path), point.cell.path))
    for (phase, path), members in groupby(ordered, key=lambda point: (point.phase, point.cell.path)):
        group = list(members)
        yield Marks(
            name=f"{WORDS[phase]}, {path}",
            kind="dots",
            x=tuple(point.intensity for point in group),
            y=tuple(point.rate / TERA for point in group),
            texts=tuple(_words(point) for point in group),
        )


def _words(point: _Point) -> str:
    share = gpu_of(point.cell).get("mbu" if point.phase == "decode" else "mfu")
    of_what = "bandwidth" if point.phase == "decode" else "operations"
    return f"{point.cell.id}, {point.phase}" + (f": {share:.1%} of the {of_what}" if share is not None else "")


def _finding(cells: Sequence[CellView]) -> str:
    parts = []
    for key, words in (("mbu", "Decode uses up to {:.1%} of the card's bandwidth"),
                       ("mfu", "Prefill does up to {:.1%} of its operations")):  # fmt: skip
        known = [(value, cell) for cell in cells if (value := gpu_of(cell).get(key)) is not None]
        if known:
            value, cell = max(known, key=lambda one: one[0])
            parts.append(f"{words.format(value)} ({cell.id}).")
    return " ".join(parts) or "The card's limits are not known: points stand without a roof."


def _table(cells: Sequence[CellView]) -> Table:
    columns = (
        Column("Cell", numeric=False),
        Column("MBU", "%"),
        Column("Step", "ms"),
        Column("Read in a step", "GB"),
        Column("Requests in a step"),
        Column("Context", "tokens"),
        Column("MFU", "%"),
        Column("Prefill", "ms"),
        Column("Prefill", "TFLOP"),
    )
    return Table("Work and limits by cell", columns, tuple(_row(cell) for cell in cells))


def _row(cell: CellView) -> tuple[Text, ...]:
    gpu, limits = gpu_of(cell), _limits(cell)
    decode, prefill = limits.get("decode"), limits.get("prefill")
    why = limits.get("reasons") or {}
    return (
        Text(cell.id, path=cell.path),
        _share(gpu.get("mbu"), why.get("mbu")),
        *_numbers(
            decode, why.get("mbu"), (("seconds", 1e3, 2), ("bytes", 1e-9, 2), ("requests", 1, 1), ("tokens", 1, 0))
        ),
        _share(gpu.get("mfu"), why.get("mfu")),
        *_numbers(prefill, why.get("mfu"), (("seconds", 1e3, 2), ("flops", 1e-12, 2))),
    )


def _share(value: float | None, why: str | None) -> Text:
    return Text(DASH, why) if value is None else Text(f"{value * 100:.2f}" if value < 0.01 else f"{value * 100:.1f}")


def _numbers(work: Mapping[str, float] | None, why: str | None, wanted: Sequence[tuple[str, float, int]]) -> list[Text]:
    if work is None:
        return [Text(DASH, why) for _ in wanted]
    return [Text(Scale("", factor, decimals).number(work[key])) for key, factor, decimals in wanted]


def _notes(cells: Sequence[CellView]) -> Iterator[str]:
    limits = _limits(cells[0])
    gpus = count(limits["gpus"], "GPU")
    for key, what, unit in (("peak_bytes", "Bandwidth", "GB/s"), ("peak_flops", "Operations", "TFLOP/s")):
        value = limits.get(f"{key}_per_s")
        scaled = None if value is None else value / (1e9 if unit == "GB/s" else TERA)
        said = "not known" if scaled is None else f"{scaled:,.0f} {unit}"
        yield f"{what} of {gpus}: {said} ({limits.get(f'{key}_source')})."
    yield (
        "A decode step is counted as reading all weights but the embedding table once, and the KV cache of the "
        "requests that were decoded together at their mean length; activations are left out."
    )
