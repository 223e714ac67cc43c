"""The engine on a GPU: its builds, its refusals and which steps it records; where there is one, its tokens, too."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.build import read_build
from enginebench.errors import BuildError, SessionError
from enginebench.reference.build import write_build
from enginebench.reference.cuda import CudaEngine, doubling, draw_weights
from enginebench.reference.engine import Engine, load_engine
from enginebench.reference.options import ReferenceOptions, options_from_config
from enginebench.reference.stage import Span
from enginebench.reference.torch_ops import TorchOps
from enginebench.runtimes.open import open_session

LARGE = ReferenceOptions(  # of the size of ChatGLM3-6B
    layers=28, hidden=4096, heads=32, kv_heads=2, ffn=13_696, vocab_size=65_024, dtype="float16", device="cuda"
)


def _gpus() -> int:
    if importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return int(torch.cuda.device_count())


GPUS = _gpus()


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


def test_a_pipeline_has_an_engine_file_and_a_gpu_for_each_stage(tmp_path: Path) -> None:
    write_build(replace(LARGE, pp_size=3), tmp_path / "build")
    build = read_build("pipeline", tmp_path / "build")
    assert (build.world_size, build.pp, len(build.rank_bytes)) == (3, 3, 3)
    assert options_from_config(build.config).stages == (range(10), range(10, 19), range(19, 28))
    (tmp_path / "build" / "rank2.engine").unlink()
    with pytest.raises(BuildError, match="holds something other"):
        write_build(replace(LARGE, pp_size=3), tmp_path / "build")


@pytest.mark.skipif(not GPUS, reason="no GPU, or no torch")
def test_too_few_gpus_are_said(tmp_path: Path) -> None:
    write_build(replace(LARGE, pp_size=GPUS + 1), tmp_path / "build")
    with pytest.raises(BuildError, match=f"needs {GPUS + 1} GPUs, one a stage .*, and torch sees {GPUS}"):
        load_engine(tmp_path / "build")


@pytest.mark.skipif(not GPUS, reason="no GPU, or no torch")
def test_what_a_context_takes_is_told_of_each_device() -> None:
    engine = CudaEngine(replace(LARGE, layers=2, hidden=64, heads=4, ffn=64, max_seq_len=2000))
    (used,) = engine.facts()["used_with_context_bytes"]
    assert used > 100 * 2**20


def test_another_device_is_another_build(tmp_path: Path) -> None:
    small = replace(LARGE, layers=1, hidden=64, heads=4, ffn=64, vocab_size=1024, dtype="float32")
    write_build(small, tmp_path / "small")
    with pytest.raises(BuildError, match="holds something other"):
        write_build(replace(small, device="cpu"), tmp_path / "small")


def test_without_torch_or_a_gpu_it_is_said_what_is_missing(directory: Path) -> None:
    if GPUS:
        pytest.skip("there is a GPU here")
    missing = "torch sees no GPU" if importlib.util.find_spec("torch") else "needs torch"
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


@pytest.mark.parametrize("stages", [1, 2])
def test_replayed_steps_give_the_tokens_that_numpy_gives(stages: int) -> None:
    """In float64, over four sequences that join and leave, and across the lengths at which another step is replayed."""
    if stages > GPUS:
        pytest.skip(f"torch sees {GPUS} GPUs")
    options = replace(
        LARGE, layers=3, hidden=256, heads=4, ffn=512, dtype="float64", max_batch_size=4, max_input_len=300,
        max_seq_len=600,
    )  # fmt: skip
    engine = CudaEngine(replace(options, pp_size=stages))
    drawn = draw_weights(options, [TorchOps("float64", "cuda")])  # in one stage: the weights are those of any number
    oracle = Engine(replace(options, device="cpu"), {name: tensor.cpu().numpy() for name, tensor in drawn.items()})
    spans = [Span(slot, 0, tuple(range(300, 300 + length))) for slot, length in enumerate((5, 1, 240, 64))]
    for step in range(80):
        expected, found = oracle.forward(spans), engine.forward(spans)
        assert list(found.best) == list(expected.best)
        np.testing.assert_allclose(found.row(-1), expected.row(-1), rtol=1e-9, atol=1e-9)
        said = {
            span.slot: (span.start + len(span.token_ids), best) for span, best in zip(spans, expected.best, strict=True)
        }
        spans = [Span(slot, start, (best,)) for slot, (start, best) in said.items() if slot != step // 20]
        if step % 20 == 19:  # one leaves, another one takes its slot
            spans.append(Span(step // 20, 0, tuple(range(400, 410 + step))))
