"""The canary against servers that do one thing wrong each, over real sockets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from enginebench.builds.build import read_build
from enginebench.measure.shards import Client
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.run.watched import WatchedServers
from enginebench.runtimes.answers import JSON
from enginebench.server.preflight import OUTPUT_TOKENS, preflight
from tests.support.scripted_server import Asked, ScriptedServer, Step, whole
from tests.support.scripted_triton import INPUTS, TOKENIZER, ScriptedTriton


@dataclass
class Canaries(ScriptedTriton):
    """A server that tells perf metrics and, where ``preprocessing`` says so, has that model, too."""

    reused: int = 0
    more: dict[str, Any] = field(default_factory=dict)  # instead of what it would say
    without: tuple[str, ...] = ()
    backwards: bool = False
    preprocessing: int | None = None

    def __post_init__(self) -> None:
        self.inputs = {name: {**inputs, "return_perf_metrics": "BOOL"} for name, inputs in INPUTS.items()}

    def __call__(self, asked: Asked) -> Iterator[Step]:
        if asked.path == "/v2/models/preprocessing/config" and self.preprocessing is not None:
            yield whole(200, JSON, b'{"input": [{"name": "QUERY"}, {"name": "STOP_WORDS_DICT"}]}')
        elif asked.path == "/v2/models/preprocessing/generate":
            assert asked.json.keys() == {"QUERY", "STOP_WORDS_DICT", "REQUEST_OUTPUT_LEN"}
            yield whole(200, JSON, f'{{"REQUEST_INPUT_LEN": [{self.preprocessing}]}}'.encode())
        else:
            yield from super().__call__(asked)

    def _object(self, model: str, ids: tuple[int, ...], prompt_ids: tuple[int, ...]) -> dict[str, Any]:
        found = super()._object(model, ids, prompt_ids) | {"kv_cache_reused_blocks": self.reused} | self.more
        return {name: value for name, value in found.items() if name not in self.without}

    def _generate(self, model: str, endpoint: str, body: dict[str, Any]) -> Iterator[Step]:
        steps = list(super()._generate(model, endpoint, body))
        if self.backwards and endpoint == "generate_stream":
            events = [step for step in steps if isinstance(step, bytes) and b"data:" in step]
            order = iter(reversed(events))
            steps = [next(order) if step in events else step for step in steps]
        yield from steps


def checks(script: ScriptedTriton, model: str = "ensemble", **settings: Any) -> dict[str, tuple[str, str]]:
    with ScriptedServer(script) as server:
        found = preflight(server.url, model, TOKENIZER, longest_prompt=100, **settings)
    return {check.name: (check.status, check.detail) for check in found}


def statuses(script: ScriptedTriton, model: str = "ensemble", **settings: Any) -> dict[str, str]:
    return {name: status for name, (status, _) in checks(script, model, **settings).items()}


ALL = ("streaming", "order", "output_length", "prompt_tokens", "prefix_cache")


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm", "tensorrt_llm_bls"])
def test_a_server_that_does_everything_right_is_verified(model: str) -> None:
    assert statuses(Canaries(), model) == dict.fromkeys(ALL, "verified")


@pytest.mark.parametrize(
    ("script", "wrong", "detail"),
    [
        (Canaries(backwards=True), "order", "in another order: set postprocessing to 1 instance"),
        (Canaries(more={"num_input_tokens": 3}), "prompt_tokens", "has 3 tokens, says the server"),
        (Canaries(reused=2), "prefix_cache", "reused 2 blocks the second time"),
    ],
)
def test_what_is_wrong_fails_its_check_alone(script: Canaries, wrong: str, detail: str) -> None:
    found = checks(script)
    assert {name for name, (status, _) in found.items() if status != "verified"} == {wrong}
    assert found[wrong][0] == "failed"
    assert detail in found[wrong][1]


def test_a_short_answer_fails() -> None:
    class Short(Canaries):
        def _generate(self, model: str, endpoint: str, body: dict[str, Any]) -> Iterator[Step]:
            yield from super()._generate(model, endpoint, {**body, "max_tokens": 3})

    found = checks(Short())
    assert found["output_length"] == ("failed", f"3 tokens came, {OUTPUT_TOKENS} were asked for.")


def test_what_a_version_does_not_show_is_unverified() -> None:
    silent = Canaries(without=("num_input_tokens", "kv_cache_reused_blocks"))
    found = statuses(silent)
    assert (found["prompt_tokens"], found["prefix_cache"]) == ("unverified", "unverified")


@pytest.mark.parametrize(("told", "status"), [(None, "verified"), (5, "failed")])
def test_preprocessing_is_asked_alone_where_the_answer_does_not_tell(told: int | None, status: str) -> None:
    script = Canaries(without=("num_input_tokens",), preprocessing=told or 0)
    if told is None:
        script.preprocessing = _length_of(script)
    check = checks(script)["prompt_tokens"]
    assert check[0] == status
    assert "preprocessing, asked alone," in check[1]


def _length_of(script: Canaries) -> int:
    """How long the canary's prompt is: the same for every canary."""
    with ScriptedServer(script) as server:
        preflight(server.url, "tensorrt_llm", TOKENIZER, longest_prompt=100)
        asked = next(asked for asked in server.asked if asked.path.endswith("generate_stream"))
    return int(asked.json["input_lengths"])


def test_a_model_that_is_not_decoupled_cannot_be_seen_to_stream() -> None:
    found = statuses(Canaries(decoupled=False))
    assert (found["streaming"], found["order"], found["output_length"]) == ("unverified", "not applicable", "verified")


def test_reuse_that_was_asked_for_is_no_failure() -> None:
    assert statuses(Canaries(reused=2), kv_cache_reuse=True)["prefix_cache"] == "not applicable"


def test_a_canary_that_breaks_is_one_failed_check() -> None:
    (check,) = checks(Canaries(), "ensembel").values()
    assert check[0] == "failed"
    assert "unknown model" in check[1]


@dataclass
class Busy(Canaries):
    """A server that goes on counting requests that nobody waits for while its counters are read so many times."""

    reads: int = 0
    first_asked: int | None = None  # how often they had been read when the first request came

    def __call__(self, asked: Asked) -> Iterator[Step]:
        if asked.path == "/v2/models/stats":
            self.reads += 1
            spent = {"success": {"count": min(self.reads, BUSY_READS), "ns": 1}}
            yield whole(
                200, JSON, json.dumps({"model_stats": [{"name": "ensemble", "inference_stats": spent}]}).encode()
            )
            return
        if asked.method == "POST" and self.first_asked is None:
            self.first_asked = self.reads
        yield from super().__call__(asked)


BUSY_READS = 6


def test_the_canary_waits_until_the_server_is_idle(tmp_path: Path) -> None:
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=32), tmp_path / "engine")
    with ScriptedServer(busy := Busy()) as server:
        options = {"urls": [server.url], "model": "ensemble"}
        worker = cast("Client", None)  # asked for nothing here
        WatchedServers.open(
            read_build("tiny", tmp_path / "engine"), worker, options, None, kv_cache_reuse=False
        ).close()
    assert busy.first_asked is not None
    assert busy.first_asked > BUSY_READS
