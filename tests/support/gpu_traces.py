"""Made-up traces of GPUs in the sampler's own format, for tests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.measure.gpu_trace import COLUMNS, SCHEMA, GpuReading

MIB, GIB = 2**20, 2**30

IDLE = GpuReading(600 * MIB, 500 * MIB, 0, 0, 345, 2619, 70.0, 30, 1)
BUSY = GpuReading(40 * GIB, 500 * MIB, 99, 60, 1980, 2619, 420.0, 48, 0)

CARD: Mapping[str, Any] = {
    "index": 0,
    "name": "NVIDIA H100 80GB HBM3",
    "uuid": "GPU-5f1c0e7a-9b3d-48c2-6e0a-7d915b84f3c2",
    "memory_bytes": 81559 * MIB,
    "driver": "580.159.04",
    "power_limit_w": 700.0,
    "power_default_w": 700.0,
    "max_sm_clock_mhz": 1980,
    "max_memory_clock_mhz": 2619,
    "memory_bus_bits": 5120,
    "compute_capability": "9.0",
    "persistence": True,
    "mig_of": None,
    "ecc": True,
    "ecc_uncorrected": 0,
    "rows_to_remap": False,
    "energy_counter": True,
}


def write_trace(path: Path, lines: Sequence[Any], *cards: Mapping[str, Any]) -> Path:
    """A trace of ``lines``: readings of each GPU, the name of a mark, or a state."""
    hello = {"schema": SCHEMA, "columns": COLUMNS, "gpus": cards or (CARD,), "reason": None}
    said = [hello, *(_line(place * 50_000_000, each) for place, each in enumerate(lines))]
    path.write_text("".join(json.dumps(line) + "\n" for line in said), encoding="utf-8")
    return path


def state(processes: Mapping[int, int | None] | None = None, events: Sequence[tuple[int, str, int]] = ()) -> Any:
    """A state of one GPU."""
    return {"processes": [None if processes is None else list(processes.items())], "events": list(events)}


def reading(used_bytes: int | None, **changes: Any) -> GpuReading:
    """A busy GPU that uses so much memory."""
    return replace(BUSY, used_bytes=used_bytes, **changes)


def _line(stamp_ns: int, each: Any) -> Any:
    if isinstance(each, str):
        counters = dict.fromkeys(("energy_j", "ecc_uncorrected", "cpu_busy_s", "cpu_total_s", "swapped_bytes"))
        return {"edge": 0, "mark": each, "stamp_ns": stamp_ns, **counters}
    if isinstance(each, dict):
        return {"stamp_ns": stamp_ns, **each}
    readings = each if isinstance(each, tuple) else (each,)
    return [stamp_ns, {}, [one.row() for one in readings]]
