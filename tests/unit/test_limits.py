"""Bandwidth and operations against numbers worked out by hand, and what is refused or left unknown."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.model import Build, Limits, Shape
from enginebench.builds.sizes import decode_flops, parameter_bytes, prefill_flops, step_weight_bytes
from enginebench.measure.limits import cell_limits, decode_work, decoding, peak_bandwidth, peak_flops, sheet_of
from enginebench.plan.load import Batch, Concurrency, load_to_json
from tests.support.gpu_traces import CARD
from tests.support.rounds import Row, round_of

# One layer: attention 8 x 4 x (2 x 2 + 2 x 1) = 192 and feed-forward 3 x 8 x 16 = 384 parameters; a table 100 x 8.
TINY = Shape(layers=1, heads=2, kv_heads=1, head_size=4, hidden=8, intermediate=16, vocabulary=100)
SIX_BILLION = Shape(28, 32, 2, 128, 4096, 13_696, 65_024)


def build(shape: Shape = TINY, **changes: Any) -> Build:
    facts: dict[str, Any] = {
        "name": "b", "directory": Path("/b"), "kind": "tensorrt_llm", "version": "0.12.0", "architecture": "A",
        "dtype": "float16", "limits": Limits(8, 1024, 2048), "fingerprint": "sha256:0", "engine_bytes": 1,
        "shape": shape, "kv_bytes_per_token": 16,
    }  # fmt: skip
    return Build(**facts | changes)


def test_work_of_a_tiny_shape() -> None:
    assert parameter_bytes(TINY, "float16", None) == 2 * (192 + 384 + 2 * 800)
    assert step_weight_bytes(TINY, "float16", None) == 2 * (192 + 384 + 800)
    assert step_weight_bytes(TINY, "float16", "W8A16") == 192 + 384 + 2 * 800
    assert decode_flops(TINY, 10) == 2 * (192 + 384 + 800) + 4 * 1 * 2 * 4 * 10
    assert prefill_flops(TINY, 3) == 2 * (192 + 384) * 3 + 2 * 800 + 4 * 2 * 4 * (1 + 2 + 3)


def test_six_billion_parameters_are_that_many() -> None:
    assert parameter_bytes(SIX_BILLION, "float16", None) == pytest.approx(2 * 6.24e9, rel=0.01)
    assert decode_flops(SIX_BILLION, 0) == pytest.approx(2 * (6.24e9 - 65_024 * 4096), rel=0.01)


@pytest.mark.parametrize("changes", [{"experts": 8}, {"kv_latent": 576}, {"layers": None}, {"vocabulary": None}])
def test_what_a_step_does_not_read_whole_is_not_guessed(changes: dict[str, Any]) -> None:
    shape = replace(TINY, **changes)
    assert step_weight_bytes(shape, "float16", None) is None
    assert decode_flops(shape, 10) is None
    assert prefill_flops(shape, 10) is None
    found = cell_limits(build(shape), [CARD], [round_of(Row([(10, 1), (20, 1)]))], reuse=False)
    assert (found.mbu, found.mfu) == (None, None)
    assert set(found.reasons) == {"mbu", "mfu"}


@pytest.mark.parametrize(
    ("name", "bits", "clock_mhz", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 5120, 2619, 3352),
        ("NVIDIA A100-SXM4-40GB", 5120, 1215, 1555),
        ("NVIDIA A10", 384, 6251, 600),
        ("NVIDIA L40S", 384, 9001, 864),
        ("Tesla T4", 256, 5001, 320),
    ],
)
def test_nvml_and_the_data_sheet_agree(name: str, bits: int, clock_mhz: int, gb_per_s: float) -> None:
    told = peak_bandwidth([{"name": name, "memory_bus_bits": bits, "max_memory_clock_mhz": clock_mhz}])
    written = peak_bandwidth([{"name": name, "memory_bus_bits": None}])
    assert told.value == pytest.approx(gb_per_s * 1e9, rel=0.005)
    assert written.value == pytest.approx(told.value, rel=0.01)
    assert "NVML" in told.source
    assert "data sheet" in written.source


def test_names_are_matched_word_by_word() -> None:
    found = {
        name: sheet_of(name)
        for name in ("NVIDIA A100 80GB PCIe", "NVIDIA L4", "NVIDIA H100 PCIe", "NVIDIA GH200 480GB")
    }
    assert {name: sheet and sheet.name for name, sheet in found.items()} == {
        "NVIDIA A100 80GB PCIe": "A100", "NVIDIA L4": "L4", "NVIDIA H100 PCIe": "H100 PCIe",
        "NVIDIA GH200 480GB": "GH200",
    }  # fmt: skip
    assert sheet_of("Graphics Device") is None


def test_limits_that_are_not_known_say_why() -> None:
    assert peak_bandwidth([]).value is None
    assert "MIG" in peak_bandwidth([{**CARD, "mig_of": "GPU-a"}]).source
    assert "MIG" in peak_flops([{**CARD, "mig_of": "GPU-a"}], build()).source
    assert "no data sheet of Graphics Device" in peak_flops([{"name": "Graphics Device"}], build()).source
    assert "float64" in peak_flops([CARD], build(dtype="float64")).source
    assert peak_flops([CARD, CARD], build(quantisation="FP8")).value == pytest.approx(2 * 1978.9e12)
    assert peak_flops([CARD], build(quantisation="W4A16_AWQ")).value == pytest.approx(989.4e12)


# Two requests of ten prompt tokens: first token at 100 and 120 ms, then one every 10 ms until five have come.
ROUND = round_of(
    Row([(100 + 10 * step, 1) for step in range(5)], prompt=10),
    Row([(120 + 10 * step, 1) for step in range(5)], prompt=10),
)


def test_decode_is_the_bytes_of_a_step_over_its_time() -> None:
    work, why = decode_work(build(), [ROUND])
    assert why == ""
    assert work is not None
    assert work.seconds == pytest.approx(0.010)
    assert work.requests == pytest.approx(80 / 60)  # 40 ms each, within 60 ms
    assert work.tokens == 10 + 5 / 2
    assert work.bytes == pytest.approx(2 * (192 + 384 + 800) + 80 / 60 * 12.5 * 16)
    assert work.intensity == pytest.approx(work.flops / work.bytes)


def test_the_stages_of_a_pipeline_read_one_after_the_other() -> None:
    """Two cards hold half of the weights each: a token waits for both, and its micro-batch is half of the requests."""
    alone, many = (round_of(*[Row([(100 + 10 * step, 1) for step in range(5)], prompt=10)] * n) for n in (1, 4))
    for record, passing in ((alone, 1), (many, 2)):
        found = cell_limits(build(pp=2), [CARD, CARD], [record], reuse=False)
        assert found.bandwidth.value == pytest.approx(3.352e12, rel=1e-3)
        assert found.bandwidth.source.endswith(", one of 2 stages at a time")
        assert found.decode is not None
        assert found.decode.bytes == pytest.approx(2 * (192 + 384 + 800) + passing * 12.5 * 16)
    split = cell_limits(build(tp=2), [CARD, CARD], [alone], reuse=False)
    assert split.bandwidth.value == pytest.approx(2 * 3.352e12, rel=1e-3)


def test_prefill_is_the_batch_until_its_last_first_token() -> None:
    found = cell_limits(build(), [CARD], [ROUND], reuse=False)
    assert found.prefill is not None
    assert found.prefill.seconds == pytest.approx(0.120)
    assert found.prefill.flops == 2 * (prefill_flops(TINY, 10) or 0)
    assert found.mfu == pytest.approx(found.prefill.flops / 0.120 / 989.4e12)
    assert found.mbu == pytest.approx(2970.0 / 0.010 / 3.352e12, rel=0.02)
    assert found.impossible() == []


def test_more_than_the_card_can_do_is_an_error_of_the_numbers() -> None:
    slow = {**CARD, "max_memory_clock_mhz": 1e-6}
    (sentence,) = cell_limits(build(), [slow], [ROUND], reuse=False).impossible()
    assert "more than it has" in sentence
    assert "MBU" in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reuse": True}, "KV cache"),
        ({"load": Concurrency(2)}, "streamed batches"),
        ({"max_batch_size": 1}, "more than the build's 1"),
    ],
)
def test_prefill_is_known_only_where_it_runs_alone(changes: dict[str, Any], words: str) -> None:
    record = replace(ROUND, load=load_to_json(changes.get("load", Batch(2))))
    limits = Limits(changes.get("max_batch_size", 8), 1024, 2048)
    found = cell_limits(build(limits=limits), [CARD], [record], reuse=changes.get("reuse", False))
    assert found.mfu is None
    assert words in found.reasons["mfu"]
    assert found.mbu is not None


def test_without_streaming_there_is_neither() -> None:
    found = cell_limits(build(), [CARD], [replace(ROUND, streaming=False)], reuse=False)
    assert (found.mbu, found.mfu) == (None, None)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=12))
def test_requests_that_decode_at_once_are_counted_right(spans: list[tuple[int, int]]) -> None:
    record = round_of(*(Row([(first, 1), (first + length, 1)]) for first, length in spans))
    busy = np.zeros(1_001, dtype=int)
    for first, length in spans:
        busy[first : first + length] += 1
    assert decoding(record) == pytest.approx(busy.sum() / np.count_nonzero(busy))


def test_a_request_of_one_chunk_decodes_nothing() -> None:
    assert decoding(round_of(Row([(10, 5)]))) is None
