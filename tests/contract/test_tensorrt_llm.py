"""Every adapter of TensorRT-LLM meets the contract on the versions that it claims, held to their signatures.

A stand-in that has exactly what each version has takes the place of the library, which cannot be installed here.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enginebench.runtimes.base import JsonValue, Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import NOT_ENDING_TOKENS, PATIENCE_S, MakeRequest, RuntimeContract, collect, requests_with
from tests.support.trtllm.install import installed

ROOT = Path(__file__).parents[2]
LLM_API = ("0.15.0", "0.16.0", "0.17.0.dev2024121700", "0.19.0", "1.0.0rc4", "1.2.0rc2", "1.3.0rc20")
PYTORCH = ("1.0.0rc4", "1.2.0rc2", "1.3.0rc20")
EXECUTOR = ("0.9.0", "0.11.0", "0.13.0", *LLM_API)
MODEL_RUNNER = ("0.7.1", "0.8.0", "0.9.0", "0.11.0", "0.13.0", "0.15.0", "0.16.0")
IN_ONE_PIECE = [
    ("model_runner", "0.6.1", "tensorrt_llm"),
    ("model_runner_cpp", "0.7.1", "tensorrt_llm"),
    ("model_runner_cpp", "0.8.0", "tensorrt_llm"),
]
CLAIMED = [
    *(("llm_api", version, "tensorrt_llm") for version in LLM_API),
    *(("llm_api", version, "pytorch") for version in PYTORCH),
    *(("executor", version, "tensorrt_llm") for version in EXECUTOR),
    *(("model_runner", version, "tensorrt_llm") for version in MODEL_RUNNER),
]


@pytest.fixture(params=CLAIMED, ids=["-".join(each) for each in CLAIMED])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    yield from opened(tmp_path, *request.param)


def opened(directory: Path, adapter: str, version: str, kind: str) -> Iterator[Session]:
    options: dict[str, JsonValue] = {"directory": str(directory), "kind": kind, "adapter": adapter, "max_seq_len": 4096}
    with installed(version, ROOT):
        session = open_session("tensorrt_llm", options)
        yield session
        session.close()


@pytest.fixture
def make_request() -> MakeRequest:
    return requests_with(lambda prompt: tuple(ord(character) for character in prompt))


class TestTensorRtLlm(RuntimeContract):
    """Every test of the suite."""


class TestWithoutStreaming(RuntimeContract):
    """Every test of the suite, with requests that are not streamed; what only streams can show is shown otherwise."""

    @pytest.fixture(params=IN_ONE_PIECE, ids=["-".join(each) for each in IN_ONE_PIECE])
    def session(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
        yield from opened(tmp_path, *request.param)

    @pytest.fixture
    def make_request(self, make_request: MakeRequest) -> MakeRequest:
        return lambda *args, **changes: replace(make_request(*args, **changes), streaming=False)

    def test_a_streamed_answer_arrives_in_several_chunks(self, session: Session, make_request: MakeRequest) -> None:
        """It is refused, and the next request is not."""
        session.submit([replace(make_request(0), streaming=True), make_request(1)])
        errors = {each.request_index: each.error for each in collect(session, 2)}
        assert "no streaming" in str(errors[0])
        assert errors[1] is None

    def test_nothing_arrives_for_a_cancelled_request(self, session: Session, make_request: MakeRequest) -> None:
        """A batch comes as one, so the request is cancelled before."""
        session.submit([make_request(0, output_tokens=NOT_ENDING_TOKENS), make_request(1, output_tokens=20)])
        session.cancel(0)
        assert {arrival.request_index for arrival in collect(session, 1)} == {1}
        session.drain(PATIENCE_S)
        assert list(session.poll(0.0)) == []
