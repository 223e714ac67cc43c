"""A run on disk with its tables: two paths under two loads and limits (SLOs), drawn from a simple model.

Deterministic. Its numbers in run.json are those that the metrics give for its tables.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.plan.cells import Cell
from enginebench.plan.load import Concurrency, load_to_json
from enginebench.store_tables import write_rounds
from tests.support.rounds import START_NS, Row, round_of
from tests.support.sample_run import Run, measured, run_of, write_run

LEVELS = (2, 8)
PATHS = ("direct", "ensemble")
REQUESTS = 70  # a round; two rounds bear a p95 and no p99
SLO_MS = {"ttft_ms": 75.0, "tpot_ms": 36.0}
STALL_MS = 300.0
CELLS = [Cell("chat", path, True, 12, Concurrency(level)) for path in PATHS for level in LEVELS]
"""``ensemble`` at eight in flight misses its limits; everything else keeps them, but for the request that stalls."""


def detailed_run() -> Run:
    """The record of the run, without its tables."""
    run = run_of(CELLS)
    run["plan"]["scenarios"]["chat"] = {"prompts": [{"text": "你是谁？"}], "slo": SLO_MS}
    for cell in CELLS:
        rounds = [record for record in rounds_of(cell) if not record.warmup]
        limits_s = {key.removesuffix("_ms"): value / 1e3 for key, value in SLO_MS.items()}
        metrics = cell_metrics(rounds, limits_s)
        run["cells"][cell.id] = measured(cell, random.Random(7), len(rounds)) | {
            "metrics": {name: result.as_json() for name, result in metrics.items()},
            "makespan_s": [record.window_s for record in rounds],
            "requests": sum(len(record.requests) for record in rounds),
            "requests_per_round": REQUESTS,
        }
    return run


def write_detailed_run(directory: Path) -> Path:
    """Write the run with its tables; return ``directory``."""
    write_run(detailed_run(), directory)
    for cell in CELLS:
        write_rounds(directory / "cells" / cell.id, rounds_of(cell))
    return directory


def rounds_of(cell: Cell) -> list[RoundRecord]:
    """A warm-up round and two measured ones, ten milliseconds apart."""
    rng = random.Random(cell.id)
    records: list[RoundRecord] = []
    start_ns = START_NS
    for number in (-1, 0, 1):
        head: dict[str, Any] = {"round_index": number, "warmup": number < 0, "load": load_to_json(cell.load)}
        records.append(round_of(*_rows(cell, rng, stalls=number == 1), start_ns=start_ns, **head))
        start_ns = records[-1].ended_ns + 10_000_000
    return records


def _rows(cell: Cell, rng: random.Random, *, stalls: bool) -> Iterator[Row]:
    slow = 1.5 if cell.path == "ensemble" else 1.0
    wait_ms = 20 * slow + (60 if cell.path == "ensemble" and cell.load.level > 2 else 0)
    for number in range(REQUESTS):
        released = number * 30.0 / cell.load.level
        time = released + wait_ms * rng.lognormvariate(0, 0.2)
        chunks = []
        for place in range(12):
            chunks.append((time, 1))
            time += 10 * slow * rng.lognormvariate(0, 0.1) + (STALL_MS if stalls and number == 40 and place == 5 else 0)
        yield Row(chunks=chunks, intended=released, sent=released + 0.05)
