"""Which GPUs a build may use: CUDA_VISIBLE_DEVICES as CUDA reads it, by UUID and through MIG."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.measure.nvml import NvmlReader, host_gpus, visible

UUIDS = ("GPU-8932f937-d72c", "GPU-5a1b2c3d-0000", "GPU-5a99ffff-0000")
PARTS = {UUIDS[1]: ("MIG-aaaa-1", "MIG-bbbb-2")}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, UUIDS),
        ("", ()),
        ("2,1", (UUIDS[2], UUIDS[1])),
        (" 1 , 0 ", (UUIDS[1], UUIDS[0])),
        ("0,2,-1,1", (UUIDS[0], UUIDS[2])),
        ("0,7,1", (UUIDS[0],)),
        ("GPU-8932f937", (UUIDS[0],)),
        ("GPU-5a", ()),  # of two
        ("GPU-5a1b,0", (UUIDS[1], UUIDS[0])),
        ("0,0", (UUIDS[0],)),
        ("NoDevFiles", ()),
    ],
)
def test_names_mean_what_they_mean_to_cuda(names: str | None, expected: tuple[str, ...]) -> None:
    assert visible(UUIDS, names) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, (UUIDS[0], "MIG-aaaa-1", UUIDS[2])),
        ("1", ("MIG-aaaa-1",)),
        ("MIG-bbbb-2", ("MIG-bbbb-2",)),
        ("MIG-cccc", ()),
    ],
)
def test_a_divided_gpu_stands_for_its_first_part(names: str | None, expected: tuple[str, ...]) -> None:
    assert visible(UUIDS, names, PARTS) == expected


@given(st.none() | st.text("0123456789,-GPUMIGab"))
def test_whatever_is_said_only_what_there_is_is_shown_and_once(names: str | None) -> None:
    found = visible(UUIDS, names, PARTS)
    assert len(set(found)) == len(found)
    assert set(found) <= {*UUIDS, *PARTS[UUIDS[1]]}


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_without_a_gpu_everything_is_none_with_a_reason() -> None:
    reader = NvmlReader()
    assert reader.gpus is None
    assert reader.reason
    assert "no GPU" in reader.reason
    assert reader.read(0) is None
    assert reader.edge("round", 0) == {"energy_j": None, "ecc_uncorrected": None}
    assert host_gpus() == (None, reader.reason)


@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="this machine has no GPU")
def test_a_card_tells_what_a_sample_needs() -> None:
    reader = NvmlReader()
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        assert reader.gpus
    for row in reader.read(0) or []:
        assert row[0] > 0
