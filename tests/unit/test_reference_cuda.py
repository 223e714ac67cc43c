"""What of the engine on a GPU can be seen without one: its builds, its refusals, and which steps it records."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.build import read_build
from enginebench.errors import BuildError, SessionError
from enginebench.reference.build import write_build
from enginebench.reference.cuda import doubling
from enginebench.reference.engine import load_engine
from enginebench.reference.options import ReferenceOptions
from enginebench.runtimes.open import open_session

LARGE = ReferenceOptions(  # of the size of ChatGLM3-6B
    layers=28, hidden=4096, heads=32, kv_heads=2, ffn=13_696, vocab_size=65_024, dtype="float16", device="cuda"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_build(LARGE, tmp_path / "large")
    return tmp_path / "large"


def test_a_build_for_a_gpu_takes_no_room_and_tells_its_size(directory: Path) -> None:
    build = read_build("large", directory)
    assert (build.kind, build.dtype) == ("reference", "float16")
    assert build.engine_bytes < 1024
    assert build.parameter_bytes == pytest.approx(12.49e9, rel=1e-3)
    assert build.kv_bytes_per_token == 28_672


def test_another_device_is_another_build(directory: Path) -> None:
    with pytest.raises(BuildError, match="holds something other"):
        write_build(replace(LARGE, device="cpu", dtype="float32"), directory)


def test_without_torch_or_a_gpu_it_is_said_what_is_missing(directory: Path) -> None:
    try:
        import torch
    except ImportError:
        missing = "needs torch"
    else:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        missing = "torch sees no GPU"
    with pytest.raises(BuildError, match=missing):
        load_engine(directory)
    with pytest.raises(SessionError, match=missing):
        open_session("reference", {"directory": str(directory)})


@given(first=st.integers(1, 300), last=st.integers(1, 5000))
def test_some_recorded_size_covers_every_wanted_one_at_less_than_twice_it(first: int, last: int) -> None:
    sizes = doubling(first, last)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == last
    for wanted in range(1, last + 1):
        covering = next(size for size in sizes if size >= wanted)
        assert covering < 2 * wanted or covering == sizes[0]
