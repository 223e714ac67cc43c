"""The Triton client meets the contract, against a server that speaks Triton's generate endpoints."""

from collections.abc import Iterator

import pytest

from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import MakeRequest, RuntimeContract, requests_with
from tests.support.scripted_server import ScriptedServer
from tests.support.scripted_triton import TOKENIZER, TOKENIZER_SPEC, ScriptedTriton


@pytest.fixture(params=["ensemble", "tensorrt_llm_bls", "tensorrt_llm", "llmapi"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with ScriptedServer(ScriptedTriton()) as server:
        options = {"urls": [server.url], "model": request.param, "tokenizer": TOKENIZER_SPEC, "connections": 4}
        opened = open_session("triton_http", options)
        yield opened
        opened.close()


@pytest.fixture
def make_request() -> MakeRequest:
    return requests_with(TOKENIZER.encode)


class TestTritonHttp(RuntimeContract):
    """Every test of the suite."""
