"""All upstream template sets, filled by us and loaded by the real Triton; the core is the reference engine.

One server holds all of them under prefixed names; three are driven from end to end.
"""

import http.client
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import Tokenizer, tokenizer_from_spec
from enginebench.server.control import TritonControl
from enginebench.server.filled import fill_repository
from enginebench.server.filling import Demand
from enginebench.server.launch import TritonServer
from enginebench.server.plain_http import fetch_json
from enginebench.server.preflight import preflight
from enginebench.server.probe import canary_inputs, stream_events
from enginebench.server.templates import MODELS
from tests.support.embedded import needs_triton
from tests.support.templates import (
    STAND_INS,
    UPSTREAM,
    VERSIONS,
    ExplicitTriton,
    checkout,
    engine_build,
    for_the_wheel,
    prefixed,
)

pytestmark = [
    needs_triton,
    pytest.mark.skipif(not VERSIONS, reason=f"upstream's configurations are not at {UPSTREAM}"),
]

DRIVEN = ("v0.5.0", "v0.7.2", "v1.x-late")
"""Unsigned integers and words that must be given; log probabilities in every response; the names of today."""

UNTOLD = ("prompt_tokens", "prefix_cache")
"""What the stand-in for the LLM API's model says nothing of."""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    return engine_build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def tokenizer(build: Build) -> Tokenizer:
    assert build.tokenizer is not None
    return tokenizer_from_spec(json.loads((build.tokenizer / "spec.json").read_text()))


@pytest.fixture(scope="module")
def server(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """One Triton with a set of every version: that of 0.12 as it is, the others under names of their own."""
    root = tmp_path_factory.mktemp("templates")
    (root / "all").mkdir()
    for version in VERSIONS:
        templates = checkout(version, root / "checkouts" / version)
        repository = root / version
        fill_repository(build, Demand(bls_concurrency=1), templates).write(repository)
        for_the_wheel(repository)
        prefixed(repository, "" if version == "v0.12.0" else f"{version}_")
    installation = ExplicitTriton.make("ensemble", "tensorrt_llm_bls")
    with TritonServer.start(root / "all", root / "logs", installation=installation) as server:
        yield server


def post(url: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=180)
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse().read()
    connection.close()
    return dict(json.loads(answer or "{}"))


def load(server: TritonServer, model: str) -> dict[str, Any]:
    return post(server.url, f"/v2/repository/models/{model}/load", {})


def answer(server: TritonServer, model: str, tokenizer: Tokenizer, **more: Any) -> tuple[int, ...]:
    """The ids that ``model`` streams for the canary."""
    events = stream_events(server.url, model, {**canary_inputs(server.url, model, 6), **more})
    return tuple(token_id for event in events for token_id in tokenizer.encode(event["text_output"]))


def test_the_templates_are_not_touched(build: Build, tmp_path: Path) -> None:
    templates = checkout("v0.19.0", tmp_path / "checkout")
    before = {path: path.read_bytes() for path in templates.rglob("*") if path.is_file()}
    fill_repository(build, Demand(bls_concurrency=1), templates).write(tmp_path / "repository")
    assert {path: path.read_bytes() for path in templates.rglob("*") if path.is_file()} == before


def config_of(server: TritonServer, model: str) -> Mapping[str, Any]:
    """The configuration in force."""
    return fetch_json(f"{server.url}/v2/models/{model}/config")


def test_the_canary_went_through_a_filled_set(server: TritonServer, tokenizer: Tokenizer) -> None:
    server.check_alive()
    through = [answer(server, model, tokenizer) for model in ("ensemble", "tensorrt_llm_bls")]
    assert len(through[0]) == 6
    assert through[0] == through[1]


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "v0.12.0"])
def test_the_real_server_loads_what_was_filled(server: TritonServer, tokenizer: Tokenizer, version: str) -> None:
    models = [f"{version}_{name}" for name in MODELS["inflight_batcher_llm"]]
    models = [model for model in models if (UPSTREAM / version / model.removeprefix(f"{version}_")).is_dir()]
    assert [load(server, model) for model in models[-2:]] == [{}, {}]  # BLS, if any, and the ensemble with the others
    with TritonControl(server.url) as control:
        assert set(models) <= set(control.models())
    config = config_of(server, f"{version}_tensorrt_llm")
    assert config["max_batch_size"] == (128 if version == "v0.5.0" else 8)
    assert config["model_transaction_policy"] == {"decoupled": True}
    parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert Path(parameters["gpt_model_path"], "config.json").is_file()
    assert config_of(server, f"{version}_postprocessing")["instance_group"][0]["count"] == 1
    if version in DRIVEN:
        assert answer(server, f"{version}_ensemble", tokenizer) == answer(server, "ensemble", tokenizer)
    for model in models:
        post(server.url, f"/v2/repository/models/{model}/unload", {})


def test_the_llm_apis_model_streams_though_triton_completes_no_configuration(
    build: Build, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    templates = checkout("v1.x-main", tmp_path / "checkout", "llmapi")
    shutil.copy(STAND_INS / "llmapi.py", templates / "all_models/llmapi/tensorrt_llm/1/model.py")
    checkpoint = replace(build, kind="pytorch", layout="checkpoint")
    fill_repository(checkpoint, Demand(bls_concurrency=1), templates).write(tmp_path / "models")
    with TritonServer.start(tmp_path / "models", tmp_path / "logs") as server:  # its canary streams, or this raises
        events = list(stream_events(server.url, "tensorrt_llm", canary_inputs(server.url, "tensorrt_llm", 5)))
        checks = preflight(server.url, "tensorrt_llm", tokenizer, longest_prompt=None)
    assert [event["text_output"] for event in events] == ["a" * count for count in range(1, 6)]
    statuses = {check.name: check.status for check in checks}
    assert statuses == dict.fromkeys(("streaming", "order", "output_length"), "verified") | dict.fromkeys(
        UNTOLD, "unverified"
    )
