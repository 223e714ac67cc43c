"""What two H200 said of a reference build in two stages (``docs/gpu.md``), played back where there is no GPU."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginebench.builds.build import read_build
from enginebench.builds.model import Build
from enginebench.measure.gpu_trace import COLUMNS, GpuReading, TraceReader, read_reading
from enginebench.measure.ledger import gpu_ledger, kv_pool
from enginebench.measure.limits import peak_bandwidth, peak_flops
from enginebench.reference.build import ReferenceOptions, write_build

TRACE = Path(__file__).parents[1] / "data" / "nvml-h200-2gpus.jsonl"
MIB, GIB = 2**20, 2**30
CONTEXT_BYTES = 552_402_944
FACTS = {
    "weight_bytes": 12_486_909_952, "kv_pool_bytes": 1_879_506_944, "kv_pool_tokens": 65_536,
    "used_with_context_bytes": [CONTEXT_BYTES] * 2,
}  # fmt: skip
"""Of that session."""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    options = ReferenceOptions(
        layers=28, hidden=4096, heads=32, kv_heads=2, ffn=13_696, vocab_size=65_024, max_batch_size=16,
        max_input_len=2048, max_seq_len=4096, max_num_tokens=4096, min_step_ms=0, dtype="float16", device="cuda",
        pp_size=2,
    )  # fmt: skip
    write_build(options, tmp_path / "two")
    return read_build("two", tmp_path / "two")


def lines() -> list[Any]:
    return [json.loads(line) for line in TRACE.read_text(encoding="utf-8").splitlines()]


def used_after(reader: TraceReader, mark: str) -> list[int]:
    reader.edge(mark, 0)
    return [row[COLUMNS.index("used_bytes")] for row in reader.read(0) or ()]


def test_the_ledger_adds_up_over_both_cards_and_tells_their_contexts(build: Build) -> None:
    reader = TraceReader(TRACE)
    before, after, unloaded = (used_after(reader, mark) for mark in ("before_load", "after_load", "after_unload"))
    phases = {"before_load": sum(before), "after_load": sum(after), "peak": sum(after), "after_unload": sum(unloaded)}
    found = gpu_ledger(build, phases, kv_pool(build, FACTS, {}), FACTS, others=0, by_gpu=after)
    by_name = {entry.what: entry.bytes or 0 for entry in found.entries}
    assert sum(entry.bytes or 0 for entry in found.entries if entry.owner == "gpu") == sum(after)
    assert by_name["CUDA context"] == 2 * CONTEXT_BYTES
    assert by_name["buffers and the rest"] < GIB
    shares = [by_name[f"in use on GPU {place}"] for place in (0, 1)]
    assert shares == after
    assert abs(shares[0] - shares[1]) < 64 * MIB  # as many layers each; embedding and head are of one size
    assert by_name["left after unloading"] == 0
    assert found.warnings == ()


def test_a_context_alone_was_seen_by_nvml_as_the_runtime_told_it() -> None:
    """While the engine loads, each card stands for some samples at what CUDA said is in use with a context."""
    samples = [list(map(read_reading, line[2])) for line in lines() if isinstance(line, list)]
    for place in (0, 1):
        assert [sample[place].used_bytes for sample in samples].count(CONTEXT_BYTES) > 3


def test_both_cards_work_in_turns_and_each_counts_its_own_energy() -> None:
    marks = [(place, line) for place, line in enumerate(lines()) if isinstance(line, dict) and "mark" in line]
    rounds = [(start, end) for start, end in pairwise(marks) if start[1]["mark"] == "round"]
    assert len(rounds) == 2
    for (begin, first), (end, last) in rounds:
        seconds = (last["stamp_ns"] - first["stamp_ns"]) / 1e9
        samples = [list(map(read_reading, line[2])) for line in lines()[begin:end] if isinstance(line, list)]
        for place in (0, 1):
            own: list[GpuReading] = [sample[place] for sample in samples]
            counted_w = (last["energy_j"][place] - first["energy_j"][place]) / seconds
            assert np.mean([each.power_w or 0 for each in own]) == pytest.approx(counted_w, rel=0.15)
            assert 30 < np.median([each.sm_percent or 0 for each in own]) < 70


def test_a_pipeline_is_held_against_the_bandwidth_of_one_card_and_the_operations_of_both(build: Build) -> None:
    cards = TraceReader(TRACE).gpus
    assert cards is not None
    assert len(cards) == build.world_size == 2
    assert peak_bandwidth(cards, build.pp).value == pytest.approx(4.814e12, rel=1e-3)
    assert peak_flops(cards, build).value == pytest.approx(2 * 989.4e12)
