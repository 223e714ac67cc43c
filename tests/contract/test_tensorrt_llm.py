"""Every adapter of TensorRT-LLM meets the contract on the versions that it claims, held to their signatures.

A stand-in that has exactly what each version has takes the place of the library, which cannot be installed here.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import MakeRequest, RuntimeContract, requests_with
from tests.support.trtllm.install import installed

ROOT = Path(__file__).parents[2]
LLM_API = ("0.15.0", "0.16.0", "0.17.0.dev2024121700", "0.19.0", "1.0.0rc4", "1.2.0rc2", "1.3.0rc20")
PYTORCH = ("1.0.0rc4", "1.2.0rc2", "1.3.0rc20")
EXECUTOR = ("0.9.0", "0.11.0", "0.13.0", *LLM_API)
MODEL_RUNNER = ("0.7.1", "0.8.0", "0.9.0", "0.11.0", "0.13.0", "0.15.0", "0.16.0")
CLAIMED = [
    *(("llm_api", version, "tensorrt_llm") for version in LLM_API),
    *(("llm_api", version, "pytorch") for version in PYTORCH),
    *(("executor", version, "tensorrt_llm") for version in EXECUTOR),
    *(("model_runner", version, "tensorrt_llm") for version in MODEL_RUNNER),
]


@pytest.fixture(params=CLAIMED, ids=["-".join(each) for each in CLAIMED])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    adapter, version, kind = request.param
    options = {"directory": str(tmp_path), "kind": kind, "adapter": adapter, "max_seq_len": 4096}
    with installed(version, ROOT):
        opened = open_session("tensorrt_llm", options)
        yield opened
        opened.close()


@pytest.fixture
def make_request() -> MakeRequest:
    return requests_with(lambda prompt: tuple(ord(character) for character in prompt))


class TestTensorRtLlm(RuntimeContract):
    """Every test of the suite."""
