"""A run for other programs: CSV of cells or of requests, JSON of what the page says.

Numbers of the CSV are those of the record, in seconds and bytes and not rounded; an empty field is "no value".
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME, METRICS, Metric, request_values
from enginebench.measure.records import UNKNOWN, RoundRecord
from enginebench.report import trust
from enginebench.report.cells import CellView, cells_of
from enginebench.report.model import page_of
from enginebench.report.tables import STATISTICS
from enginebench.store import Run

VIEW_SCHEMA = "enginebench/view/1"

_CELL_FACTS = ("cell", "scenario", "path", "streaming", "output_tokens", "output_stdev", "load_kind", "load_level",
               "load_label", "status", "reason", "rounds", "requests", "failed_requests", "validity", "client_error",
               "gpu_peak_bytes", "host_peak_bytes")  # fmt: skip
_ROUND_FACTS = ("round_index", "block", "warmup", "stamp_kind")
_COUNTS = ("index", "prompt_tokens", "reported_prompt_tokens", "requested_tokens", "tokens", "first_tokens")
_STAMPS = ("intended_ns", "sent_ns", "first_ns", "last_ns")
_TEXTS = ("outcome", "error")
_VALUES = ("ttft", "tpot", "e2e_latency", "slip")
_LINES = 10_000  # written at a time


def cells_csv(run: Run) -> Iterator[str]:
    """A line per planned cell: what it is, what became of it, and every statistic of every metric.

    Raises:
        RunError: the plan names something that is not a cell.
    """
    columns = [(metric, key) for metric in METRICS for key in _keys(metric)]
    head = [*_CELL_FACTS, *(_column(metric, key) for metric, key in columns)]
    cells = cells_of(run.data)
    return _csv(head, ([*_facts(cell), *(cell.statistic(one.name, key) for one, key in columns)] for cell in cells))


def requests_csv(run: Run) -> Iterator[str]:
    """A line per request of every stored cell, warm-ups included.

    Stamps are CLOCK_MONOTONIC. A metric is empty where a request has none, and ``inf`` where it failed.

    Raises:
        RunError: there is no request, or the stored tables cannot be read.
    """
    head = ["cell", *_ROUND_FACTS, *_COUNTS, *_STAMPS, *_TEXTS, *(f"{name}_s" for name in _VALUES)]
    rows = (row for cell in run.cells for record in run.requests(cell) for row in _rows(cell, record))
    first = next(rows, None)
    if first is None:
        raise RunError(f"{run.directory} holds no request of any cell, so that there is nothing to export.")
    return _csv(head, chain([first], rows))


def view_json(run: Run) -> str:
    """All that the page of ``run`` says, as it says it: strings, rows and points.

    Raises:
        RunError: the plan names something that is not a cell.
    """
    view = {"schema": VIEW_SCHEMA} | asdict(page_of(run.data, run.directory))
    return json.dumps(_plain(view), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _keys(metric: Metric) -> tuple[str, ...]:
    return (*STATISTICS, "count", "failed") if metric.kind == "distribution" else ("value",)


def _column(metric: Metric, key: str) -> str:
    """The unit is a part of the name: ``ttft_p50_s``, ``output_tokens_per_s``, ``slo_attainment_fraction``."""
    if key in ("count", "failed"):
        return f"{metric.name}_{key}"
    stem = metric.name if key == "value" else f"{metric.name}_{key}"
    unit = "per_s" if metric.unit.endswith("/s") else re.sub(r"\W+", "_", metric.unit).lower()
    return stem if f"_{unit}" in stem else f"{stem}_{unit}"


def _facts(cell: CellView) -> list[Any]:
    record = cell.record
    return [
        cell.id,
        cell.scenario,
        cell.path,
        _yes_no(cell.streaming),
        cell.output_tokens,
        cell.output_stdev,
        cell.load.kind,
        cell.load.level,
        cell.load.label,
        cell.status,
        cell.reason,
        *(record.get(name) for name in ("rounds", "requests", "failed_requests")),
        trust.level_of(record) if cell.measured else None,
        trust.error_of(record),
        cell.peak_bytes("gpu"),
        cell.peak_bytes("host"),
    ]


def _rows(cell_id: str, record: RoundRecord) -> Iterator[Sequence[Any]]:
    requests = record.requests
    facts = (cell_id, *(_plain_fact(getattr(record, name)) for name in _ROUND_FACTS))
    counts = [_known(getattr(requests, name), UNKNOWN) for name in _COUNTS]
    stamps = [_known(getattr(requests, name), 0) for name in _STAMPS]
    texts = [getattr(requests, name) for name in _TEXTS]
    values = [_known(_values(name, record), np.nan) for name in _VALUES]
    for row in zip(*counts, *stamps, *texts, *values, strict=True):
        yield (*facts, *row)


def _values(name: str, record: RoundRecord) -> NDArray[np.float64]:
    """A metric per request; nan where the mode or the path has none."""
    values = request_values(name, record)
    needs = BY_NAME[name].needs
    if "streaming" in needs and not record.streaming:
        values[:] = np.nan
    if "chunk_tokens" in needs:
        values[record.requests.ok & (record.requests.first_tokens == UNKNOWN)] = np.nan
    return values


def _known(column: Any, unknown: float) -> list[Any]:
    """A column as numbers of Python, ``None`` where it holds what stands for no value."""
    missing = np.isnan(column) if np.isnan(unknown) else column == unknown
    values: list[Any] = column.astype(object).tolist()
    for row in np.flatnonzero(missing):
        values[row] = None
    return values


def _plain_fact(value: Any) -> Any:
    return _yes_no(value) if isinstance(value, bool) else value


def _yes_no(value: bool) -> str:
    return "true" if value else "false"


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lines as RFC 4180 has them, but for the ends, which are those of the system that reads them: ``\\n``."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    for number, row in enumerate(rows, 1):
        writer.writerow(row)
        if number % _LINES == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def _plain(value: Any) -> Any:
    """``value`` with numbers of Python, and null for what JSON has no number for."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not np.isfinite(value) else value
