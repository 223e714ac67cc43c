"""A run of any size on disk, made in seconds: one cell under a rate, its arrivals drawn from a simple model.

Written a round at a time, so that making it takes little memory. Deterministic.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from enginebench.measure.records import ChunkTable, RequestTable, RoundRecord, int_array, stamp_array
from enginebench.plan.cells import Cell
from enginebench.plan.load import Rate, load_to_json
from enginebench.store_tables import write_parts, write_rounds
from tests.support.sample_run import measured, run_of, write_run

CELL = Cell("novel-zh", "direct", True, 100, Rate(per_s=500.0))
_START_NS = 5_000_000_000
_LATER_NS = 10_000_000
_SCHEMA = pa.schema(
    [
        ("round", pa.int32()),
        ("request", pa.int32()),
        ("stamp_ns", pa.int64()),
        ("read_ns", pa.int64()),
        ("tokens", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
    ]
)


def write_big_run(directory: Path, requests: int, tokens: int = 100, rounds: int = 20) -> Path:
    """Write a run of ``requests`` answers of ``tokens`` arrivals each; return ``directory``."""
    run = run_of([CELL])
    run["cells"][CELL.id] = measured(CELL, random.Random(7), rounds) | {"requests": requests}
    write_run(run, directory)
    cell = directory / "cells" / CELL.id
    shape = (requests // rounds, tokens)
    write_rounds(cell, [_record(place, tokens, *_stamps(place, *shape, ends_alone=True)) for place in range(rounds)])
    parts = (_chunks(place, _stamps(place, *shape)[1]) for place in range(rounds))
    write_parts(parts, _SCHEMA, cell / "chunks.parquet")
    return directory


def _stamps(
    place: int, requests: int, tokens: int, *, ends_alone: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """When each request of a round left, and its arrivals, shape (requests, tokens), or the first and the last."""
    rng = np.random.default_rng(place)
    window_ns = requests / CELL.load.level * 1e9
    released = np.sort(rng.integers(0, int(window_ns), requests)) + _START_NS + place * int(window_ns * 1.2 + 1e9)
    first = released + rng.lognormal(17.7, 0.4, requests).astype(np.int64)  # about 50 ms
    gaps = (rng.standard_gamma(8.0, (requests, tokens - 1), dtype=np.float32) * (_LATER_NS / 8)).astype(np.int64)
    if ends_alone:
        return released, np.stack([first, first + gaps.sum(axis=1)], axis=1)
    return released, np.cumsum(np.concatenate([first[:, None], gaps], axis=1), axis=1)


def _record(place: int, tokens: int, released: NDArray[np.int64], ends: NDArray[np.int64]) -> RoundRecord:
    count = len(released)
    nothing = stamp_array([])
    same = int_array(np.full(count, tokens))  # type: ignore[arg-type]
    return RoundRecord(
        round_index=place,
        warmup=False,
        block=0,
        streaming=True,
        load=load_to_json(CELL.load),
        stamp_kind="engine",
        started_ns=int(released[0]),
        ended_ns=int(ends.max()),
        clock_stepped=False,
        requests=RequestTable(
            index=int_array(range(count)),
            prompt_tokens=same,
            reported_prompt_tokens=same,
            requested_tokens=same,
            intended_ns=released,
            sent_ns=released + 20_000,
            first_ns=ends[:, 0],
            last_ns=ends[:, 1],
            tokens=same,
            first_tokens=int_array(np.ones(count)),  # type: ignore[arg-type]
            outcome=("ok",) * count,
            error=("",) * count,
        ),
        chunks=ChunkTable(int_array([]), nothing, nothing, int_array([]), int_array([])),
    )


def _chunks(place: int, stamps: NDArray[np.int64]) -> Any:
    flat = stamps.ravel()
    order = np.argsort(flat)
    ones = np.ones(len(flat), dtype=np.int32)
    request = (order // stamps.shape[1]).astype(np.int32)
    ids = pa.ListArray.from_arrays(np.zeros(len(flat) + 1, dtype=np.int32), pa.array([], type=pa.int32()))
    columns = [ones * place, request, flat[order], flat[order] + 30_000, ones, ids]
    return pa.table([pa.array(column) for column in columns], schema=_SCHEMA)
