"""What an H100 said of a reference build of 28 layers (``docs/gpu.md``), played back where there is no GPU."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginebench.builds.build import read_build
from enginebench.measure.gpu_trace import COLUMNS, TraceReader
from enginebench.measure.ledger import gpu_ledger, kv_pool
from enginebench.measure.limits import peak_bandwidth, peak_flops
from enginebench.reference.build import ReferenceOptions, write_build

TRACE = Path(__file__).parents[1] / "data" / "nvml-h100.jsonl"
PHASES = ("before_load", "after_load", "after_unload")
GIB = 2**30
LARGE = ReferenceOptions(
    layers=28, hidden=4096, heads=32, kv_heads=2, ffn=13_696, vocab_size=65_024, max_batch_size=16, max_input_len=2048,
    max_seq_len=4096, max_num_tokens=4096, min_step_ms=0, dtype="float16", device="cuda",
)  # fmt: skip
FACTS = {"weight_bytes": 12_486_909_952, "kv_pool_bytes": 1_879_506_944, "kv_pool_tokens": 65_536}  # of that session


def lines() -> list[Any]:
    return [json.loads(line) for line in TRACE.read_text(encoding="utf-8").splitlines()]


def used_after(reader: TraceReader, mark: str) -> int:
    reader.edge(mark, 0)
    rows = reader.read(0)
    assert rows is not None
    return int(rows[0][COLUMNS.index("used_bytes")])


def test_the_ledger_of_the_recorded_load_adds_up(tmp_path: Path) -> None:
    write_build(LARGE, tmp_path / "large")
    build, reader = read_build("large", tmp_path / "large"), TraceReader(TRACE)
    before, after, unloaded = (used_after(reader, mark) for mark in PHASES)
    phases = {"before_load": before, "after_load": after, "peak": after, "after_unload": unloaded}
    found = gpu_ledger(build, phases, kv_pool(build, FACTS, {}), FACTS, others=0)
    by_name = {entry.what: entry.bytes for entry in found.entries}
    assert sum(entry.bytes or 0 for entry in found.entries if entry.owner == "gpu") == after
    assert 0.5 * GIB < (by_name["context, buffers and the rest"] or 0) < 1.5 * GIB
    assert by_name["left after unloading"] == 0
    assert found.warnings == ()


def test_counter_and_power_agree_on_the_energy_of_each_recorded_round() -> None:
    """Two sources of NVML: the counter read at a round's edges, and the power of the samples between them."""
    marks = [(place, line) for place, line in enumerate(lines()) if isinstance(line, dict) and "mark" in line]
    rounds = [(start, end) for start, end in pairwise(marks) if start[1]["mark"] == "round"]
    assert len(rounds) == 4
    for (begin, first), (end, last) in rounds:
        rows = [line[2][0] for line in lines()[begin:end] if isinstance(line, list)]
        seconds = (last["stamp_ns"] - first["stamp_ns"]) / 1e9
        counted_w = (last["energy_j"][0] - first["energy_j"][0]) / seconds
        assert float(np.mean([row[COLUMNS.index("power_w")] for row in rows])) == pytest.approx(counted_w, rel=0.15)


def test_the_card_tells_what_its_limits_are_made_of(tmp_path: Path) -> None:
    write_build(LARGE, tmp_path / "large")
    cards = TraceReader(TRACE).gpus
    assert cards is not None
    assert peak_bandwidth(cards).value == pytest.approx(3.352e12, rel=1e-3)
    assert peak_flops(cards, read_build("large", tmp_path / "large")).value == pytest.approx(989.4e12)
