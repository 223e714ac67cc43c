"""The OpenAI client meets the contract, against a server that speaks completions and chats."""

from collections.abc import Iterator

import pytest

from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import MakeRequest, RuntimeContract, requests_with
from tests.support.scripted_openai import MODEL, ScriptedOpenAi
from tests.support.scripted_server import ScriptedServer
from tests.support.scripted_triton import TOKENIZER, TOKENIZER_SPEC


@pytest.fixture(params=["completions", "chat"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with ScriptedServer(ScriptedOpenAi()) as server:
        options = {"urls": [server.url], "model": MODEL, "endpoint": request.param, "tokenizer": TOKENIZER_SPEC}
        opened = open_session("openai_http", options | {"connections": 4})
        yield opened
        opened.close()


@pytest.fixture
def make_request() -> MakeRequest:
    return requests_with(TOKENIZER.encode)


class TestOpenAiHttp(RuntimeContract):
    """Every test of the suite."""
