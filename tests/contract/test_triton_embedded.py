"""The Triton client meets the contract on the models of a real server, and no path changes a token."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from enginebench.builds.build import Build, read_build
from enginebench.builds.tokenizer import open_tokenizer, tokenizer_spec
from enginebench.plan.requests import Sampling
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from enginebench.server.launch import TritonServer
from enginebench.server.repository import write_reference_repository
from tests.contract.suite import MakeRequest, RuntimeContract, answers, requests_with
from tests.support.embedded import needs_triton

pytestmark = needs_triton

SEEDED = Sampling(temperature=1.0, top_k=20, seed=5)
MODELS = ("ensemble", "tensorrt_llm_bls", "tensorrt_llm")
SMALL = ReferenceOptions(
    layers=2, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=1024, max_batch_size=4, min_step_ms=3
)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    directory = tmp_path_factory.mktemp("builds") / "small"
    write_build(SMALL, directory)
    return read_build("small", directory)


@pytest.fixture(scope="module")
def server(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("repository")
    write_reference_repository(build, repository, bls_instances=4)
    with TritonServer.start(repository, tmp_path_factory.mktemp("logs")) as running:
        yield running


def connect(server: TritonServer, build: Build, model: str) -> Session:
    options: Mapping[str, Any] = {"urls": [server.url], "model": model, "connections": 4}
    return open_session("triton_http", {**options, "tokenizer": tokenizer_spec(build)})


@pytest.fixture(params=MODELS)
def session(request: pytest.FixtureRequest, server: TritonServer, build: Build) -> Iterator[Session]:
    opened = connect(server, build, request.param)
    yield opened
    opened.close()


@pytest.fixture
def make_request(build: Build) -> MakeRequest:
    return requests_with(open_tokenizer(build).encode)


class TestTritonEmbedded(RuntimeContract):
    """Every test of the suite."""


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=1.0, top_k=20, seed=5)], ids=["greedy", "seeded"]
)
@pytest.mark.parametrize("streaming", [True, False], ids=["stream", "nostream"])
def test_direct_and_every_model_give_the_same_tokens(
    server: TritonServer, build: Build, make_request: MakeRequest, streaming: bool, sampling: Sampling
) -> None:
    requests = [
        make_request(index, "写一篇" * (index + 1), output_tokens=24, streaming=streaming, sampling=sampling)
        for index in range(4)
    ]
    direct = open_session("reference", {"directory": str(build.directory)})
    truth = answers(direct, requests)
    direct.close()
    assert all(len(ids) == 24 for ids in truth.values())
    for model in MODELS:
        session = connect(server, build, model)
        assert answers(session, requests) == truth, model
        session.close()
