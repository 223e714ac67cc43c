"""A delay put into one layer of the real server shows in that layer and nowhere else, by share and not by the clock."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import Build, read_build
from enginebench.builds.tokenizer import open_tokenizer, tokenizer_spec
from enginebench.measure.records import RoundRecord
from enginebench.measure.worker_process import Worker
from enginebench.plan.load import Batch
from enginebench.plan.requests import Request, Sampling
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.run.layer_sample import layers_of, observe
from enginebench.run.server_numbers import CellNumbers
from enginebench.run.server_watch import ServerWatch
from enginebench.server.launch import TritonServer
from enginebench.server.repository import write_reference_repository
from tests.support.embedded import needs_triton

pytestmark = needs_triton

DELAY_MS = 200
TOKENS = 3
OBSERVATIONS = 3
LAYER_OF = {"preprocessing": "preprocessing", "tensorrt_llm": "slot", "postprocessing": "postprocessing"}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    options = ReferenceOptions(
        layers=1, hidden=16, heads=2, kv_heads=1, ffn=32, vocab_size=1024, max_batch_size=4, min_step_ms=2
    )
    directory = tmp_path_factory.mktemp("build")
    write_build(options, directory)
    return read_build("tiny", directory)


@pytest.fixture
def slow_server(request: pytest.FixtureRequest, build: Build, tmp_path: Path) -> Iterator[TritonServer]:
    """A server whose model ``request.param`` takes ``DELAY_MS`` more."""
    write_reference_repository(build, tmp_path / "models", bls_instances=2)
    config = tmp_path / "models" / request.param / "config.pbtxt"
    delay = f'parameters {{ key: "delay_ms" value {{ string_value: "{DELAY_MS}" }} }}\n'
    config.write_text(config.read_text(encoding="utf-8") + delay, encoding="utf-8")
    with TritonServer.start(tmp_path / "models", tmp_path / "logs") as server:
        yield server


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    started = Worker.start(None, tmp_path / "worker.log")
    yield started
    started.close()


def layers(server: TritonServer, build: Build, model: str, worker: Worker) -> Mapping[str, Any]:
    """Of two requests at once, traced and with perf metrics."""
    watch = ServerWatch(server.url, server.metrics_url, server.trace_file)
    tokenizer = open_tokenizer(build)
    requests = [
        Request(index, text, tokenizer.encode(text), TOKENS, streaming=True, sampling=Sampling())
        for index, text in enumerate(("你是谁？", "hello"))
    ]
    spec = {"urls": [server.url], "model": model, "connections": 2, "tokenizer": tokenizer_spec(build)}

    def run_round() -> tuple[RoundRecord, Mapping[str, Any]]:
        worker.prepare(requests, load=Batch(2), round_index=0, warmup=False, stall_timeout_s=30)
        worker.run()
        return worker.fetch(), worker.observed

    try:
        worker.open("triton_http", {**spec, "perf_metrics": True})
        sample = observe(watch.tracer, run_round)
        assert sample.record is not None
        assert sample.record.requests.ok.all(), sample.record.requests.error
        assert sample.why_not_traced is None
        return layers_of(sample, [sample.record], CellNumbers([watch], model))
    finally:
        watch.stop()


def shares(falls: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each part at its smallest, of their sum: a delay is in every observation, a stall of a busy machine is not."""
    times = [seconds(fall) for fall in falls]
    smallest = {name: min(abs(found[name]) for found in times) for name in times[0]}
    return {name: time_s / sum(smallest.values()) for name, time_s in smallest.items()}


def seconds(fall: Mapping[str, Any]) -> dict[str, float]:
    found = {"+".join(part["layers"]): part["s"] for part in fall["parts"]} | {"residual": fall["residual_s"]}
    assert sum(found.values()) == pytest.approx(fall["total_s"])
    return found


@pytest.mark.parametrize("slow_server", LAYER_OF, indirect=True)
def test_a_delay_shows_in_its_layer_on_every_path(
    slow_server: TritonServer, build: Build, worker: Worker, request: pytest.FixtureRequest
) -> None:
    slow = LAYER_OF[request.node.callspec.params["slow_server"]]
    for model in ("ensemble", "tensorrt_llm_bls"):
        observed = [layers(slow_server, build, model, worker) for _ in range(OBSERVATIONS)]
        for end in ("first", "whole"):
            share = shares([found[end] for found in observed])
            assert share.pop(slow) > 0.5, (model, end, share)
            assert max(share.values()) < 0.25, (model, end, share)
    core = shares([layers(slow_server, build, "tensorrt_llm", worker)["whole"] for _ in range(OBSERVATIONS)])
    assert not {"preprocessing", "postprocessing"} & core.keys()
    assert (core["slot"] > 0.5) == (slow == "slot")
