"""The reference runtime meets the contract, on the CPU and, where torch sees one, on a GPU."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enginebench.builds.build import read_build
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.errors import SessionError
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import MakeRequest, RuntimeContract, requests_with

SMALL = ReferenceOptions(
    layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=1024, max_batch_size=4, min_step_ms=1
)


def _no_gpu() -> bool:
    if importlib.util.find_spec("torch") is None:
        return True
    import torch

    return not torch.cuda.is_available()


@pytest.fixture(
    scope="module",
    params=["cpu", pytest.param("cuda", marks=pytest.mark.skipif(_no_gpu(), reason="no GPU, or no torch"))],
)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("builds") / "small"
    write_build(replace(SMALL, device=request.param), path)
    return path


@pytest.fixture
def session(directory: Path) -> Iterator[Session]:
    opened = open_session("reference", {"directory": str(directory)})
    yield opened
    opened.close()


@pytest.fixture
def make_request(directory: Path) -> MakeRequest:
    return requests_with(open_tokenizer(read_build("small", directory)).encode)


class TestReference(RuntimeContract):
    """Every test of the suite."""


def test_an_unknown_runtime_is_named_with_the_known_ones() -> None:
    with pytest.raises(SessionError, match=r"'vllm'.*: use one of .*reference, .*triton_http"):
        open_session("vllm", {})


def test_the_directory_is_asked_for() -> None:
    with pytest.raises(SessionError, match="'directory'"):
        open_session("reference", {})


def test_a_directory_without_a_build_is_named(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match=r"config\.json"):
        open_session("reference", {"directory": str(tmp_path)})
