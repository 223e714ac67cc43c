"""The embedded Triton server, for real: readiness, the same tokens on every layer, and nothing left behind."""

import contextlib
import http.client
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from enginebench.builds.build import Build, read_build
from enginebench.builds.tokenizer import Tokenizer, open_tokenizer
from enginebench.errors import ServerError
from enginebench.plan.requests import Sampling
from enginebench.reference.batcher import Batcher, TokenEvent
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.reference.engine import load_engine
from enginebench.server.control import attach
from enginebench.server.launch import PORTS, TritonServer, free_port
from enginebench.server.plain_http import fetch_json
from enginebench.server.probe import stream_events
from enginebench.server.repository import MODELS, write_reference_repository
from enginebench.server.statistics import read_statistics
from enginebench.server.supervisor import ENVIRONMENT, remove_leftovers
from tests.support.embedded import needs_triton
from tests.support.processes import PATIENCE_S, left_of

pytestmark = needs_triton

CONCURRENCY = 8
LONGEST = 16_000  # tokens of output that outlive any test
PROMPTS = ("你是谁？", "写一篇1000字的玄幻小说", "Hello, 世界 🌍", "a")
TEXT_MODELS = ("ensemble", "tensorrt_llm_bls")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    options = ReferenceOptions(
        layers=1,
        hidden=16,
        heads=2,
        kv_heads=1,
        ffn=32,
        vocab_size=20_000,
        max_batch_size=CONCURRENCY,
        max_input_len=64,
        max_seq_len=LONGEST + 64,
        max_num_tokens=32,
        min_step_ms=2,
    )
    directory = tmp_path_factory.mktemp("engine") / "tiny 引擎"
    write_build(options, directory)
    return read_build("tiny", directory)


@pytest.fixture(scope="module")
def tokenizer(build: Build) -> Tokenizer:
    return open_tokenizer(build)


@pytest.fixture(scope="module")
def server(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    directory = tmp_path_factory.mktemp("triton") / "模型"
    write_reference_repository(build, directory / "models", bls_instances=CONCURRENCY)
    with TritonServer.start(directory / "models", directory / "logs") as server:
        yield server


@pytest.fixture
def small_repository(build: Build, tmp_path: Path) -> Path:
    write_reference_repository(build, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def reference(build: Build) -> Iterator["Reference"]:
    reference = Reference(build)
    yield reference
    reference.batcher.close()


class Reference:
    """The truth: the engine in this process."""

    def __init__(self, build: Build) -> None:
        self._events: queue.SimpleQueue[TokenEvent] = queue.SimpleQueue()
        self.batcher = Batcher(load_engine(build.directory), self._events.put)
        self._next_id = 0

    def tokens(self, prompt_ids: tuple[int, ...], count: int, sampling: Sampling) -> tuple[int, ...]:
        self._next_id += 1
        self.batcher.submit(self._next_id, prompt_ids, count, sampling)
        found: tuple[int, ...] = ()
        while True:
            event = self._events.get(timeout=PATIENCE_S)
            found += event.token_ids
            if event.ended:
                return found


def inputs(model: str, prompt: str, count: int, tokenizer: Tokenizer, **more: Any) -> dict[str, Any]:
    """A request in the words of ``model``; ``more`` in the ensemble's."""
    if model != "tensorrt_llm":
        return {"text_input": prompt, "max_tokens": count, **more}
    ids = tokenizer.encode(prompt)
    core = {{"stream": "streaming", "top_k": "runtime_top_k"}.get(name, name): value for name, value in more.items()}
    return {"input_ids": ids, "input_lengths": len(ids), "request_output_len": count, **core}


def ids_of(event: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[int, ...]:
    if "text_output" in event:
        return tokenizer.encode(event["text_output"])
    ids = event["output_ids"]
    return tuple(ids) if isinstance(ids, list) else (ids,)


def generate(url: str, model: str, body: Mapping[str, Any]) -> dict[str, Any]:
    with contextlib.closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE_S)) as connection:
        connection.request("POST", f"/v2/models/{model}/generate", json.dumps(body))
        return dict(json.loads(connection.getresponse().read()))


def argument(pid: int, option: str) -> str:
    arguments = psutil.Process(pid).cmdline()
    return next(one for one in arguments if one.startswith(f"{option}=")).partition("=")[2]


def left_behind(name: str) -> list[Path]:
    """Shared memory and scratch directories of the server ``name``; other servers may run beside ours."""
    return [found for place in ("/dev/shm", tempfile.gettempdir()) for found in Path(place).glob(f"{name}*")]


def gone(pids: tuple[int, ...]) -> bool:
    """Whether the processes of a server ended within a while."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    return not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]


def test_is_ready_and_serves_the_five_models(server: TritonServer) -> None:
    server.check_alive()
    with attach(server.url) as control:
        assert control.metadata()["version"].startswith("2.")
        assert set(control.models()) == set(MODELS)
    assert fetch_json(f"{server.url}/v2/models/ensemble/config")["model_transaction_policy"] == {"decoupled": True}
    assert "text_input" in {each["name"] for each in fetch_json(f"{server.url}/v2/models/ensemble")["inputs"]}


def test_counts_what_it_served(server: TritonServer, tokenizer: Tokenizer) -> None:
    def counted() -> int:
        return read_statistics(server.url)["preprocessing"].inferences

    before = counted()
    generate(server.url, "ensemble", inputs("ensemble", "a", 2, tokenizer))
    deadline_s = time.monotonic() + PATIENCE_S
    while counted() < before + 1 and time.monotonic() < deadline_s:  # it may count after it has answered
        time.sleep(0.05)
    assert counted() == before + 1


def test_every_process_belongs_to_the_server(server: TritonServer) -> None:
    names = [psutil.Process(pid).name() for pid in server.pids()]
    assert names[0] == "tritonserver"
    assert names[1:] == ["triton_python_backend_stub"] * (3 + CONCURRENCY)


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_layer_gives_the_engines_tokens(
    server: TritonServer, tokenizer: Tokenizer, reference: Reference, model: str, prompt: str
) -> None:
    truth = reference.tokens(tokenizer.encode(prompt), 12, Sampling())
    streamed = list(stream_events(server.url, model, inputs(model, prompt, 12, tokenizer, stream=True)))
    whole = generate(server.url, model, inputs(model, prompt, 12, tokenizer, exclude_input_in_output=True))
    assert [ids_of(event, tokenizer) for event in streamed] == [(token_id,) for token_id in truth]
    assert ids_of(whole, tokenizer) == truth


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
def test_sampling_arrives(server: TritonServer, tokenizer: Tokenizer, reference: Reference, model: str) -> None:
    sampling = Sampling(temperature=2.0, top_k=50, seed=7)
    truth = reference.tokens(tokenizer.encode("a"), 12, sampling)
    body = inputs(model, "a", 12, tokenizer, stream=True, temperature=2.0, top_k=50, seed=7)
    found = [ids_of(event, tokenizer)[0] for event in stream_events(server.url, model, body)]
    assert tuple(found) == truth
    assert truth != reference.tokens(tokenizer.encode("a"), 12, Sampling())


@pytest.mark.parametrize("model", TEXT_MODELS)
def test_an_answer_without_streaming_begins_with_the_prompt_unless_excluded(
    server: TritonServer, tokenizer: Tokenizer, model: str
) -> None:
    prompt = "你是谁？🌍"
    answer = generate(server.url, model, inputs(model, prompt, 5, tokenizer))["text_output"]
    excluded = generate(server.url, model, inputs(model, prompt, 5, tokenizer, exclude_input_in_output=True))
    assert answer == prompt + excluded["text_output"]


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
def test_counts_of_tokens_come_on_request(server: TritonServer, tokenizer: Tokenizer, model: str) -> None:
    asked = {"return_num_input_tokens": True, "return_num_output_tokens": True}
    body = inputs(model, "Hello, 世界", 5, tokenizer, stream=True, **asked)
    events = list(stream_events(server.url, model, body))
    assert [event["num_input_tokens"] for event in events] == [len(tokenizer.encode("Hello, 世界"))] * 5
    assert [event["num_output_tokens"] for event in events] == [1] * 5
    plain = generate(server.url, model, inputs(model, "Hello, 世界", 5, tokenizer))
    assert {"num_input_tokens", "num_output_tokens"}.isdisjoint(plain)


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
def test_requests_in_flight_do_not_mix(
    server: TritonServer, tokenizer: Tokenizer, reference: Reference, model: str
) -> None:
    prompts = [f"第{number}个问题" for number in range(CONCURRENCY)]

    def answer(prompt: str) -> tuple[int, ...]:
        body = inputs(model, prompt, 40, tokenizer, stream=True)
        return tuple(ids_of(event, tokenizer)[0] for event in stream_events(server.url, model, body))

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        answers = list(pool.map(answer, prompts))
    assert answers == [reference.tokens(tokenizer.encode(prompt), 40, Sampling()) for prompt in prompts]


@pytest.mark.parametrize("model", ["tensorrt_llm", *TEXT_MODELS])
def test_a_prompt_beyond_the_limit_is_refused_in_words(server: TritonServer, tokenizer: Tokenizer, model: str) -> None:
    body = inputs(model, "长" * 65, 5, tokenizer, stream=True)
    with pytest.raises(ServerError, match="prompt 65 tokens exceed the build's max_input_len 64"):
        list(stream_events(server.url, model, body))
    server.check_alive()


def test_an_end_id_that_the_engine_would_pass_over_is_refused(server: TritonServer, tokenizer: Tokenizer) -> None:
    answer = generate(server.url, "ensemble", inputs("ensemble", "a", 5, tokenizer, end_id=300))
    assert "end_id 300" in answer["error"]


def test_clients_that_leave_the_core_free_its_slots(server: TritonServer, tokenizer: Tokenizer) -> None:
    body = inputs("tensorrt_llm", "a", LONGEST, tokenizer, stream=True)
    for _ in range(CONCURRENCY):
        events = stream_events(server.url, "tensorrt_llm", body)
        next(events)
        events.close()  # type: ignore[attr-defined]
    assert len(list(stream_events(server.url, "tensorrt_llm", body | {"request_output_len": 3}))) == 3


def test_a_port_in_use_is_named(small_repository: Path, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} on 127.0.0.1 is in use"):
            TritonServer.start(small_repository, tmp_path, http_port=port)


def test_a_free_port_is_none_that_linux_gives_to_connections() -> None:
    assert {free_port(wanted) for wanted in (None, None, None, 0)} < set(PORTS)


def test_a_model_that_does_not_load_is_explained(
    small_repository: Path, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = secrets.token_hex(4)
    monkeypatch.setattr(secrets, "token_hex", lambda _: mark)
    config = small_repository / "tensorrt_llm" / "config.pbtxt"
    config.write_text(config.read_text().replace(str(build.directory), "/nowhere"))
    with pytest.raises(ServerError, match=r"Triton did not start \(exit code 1\).*(?s:.*)/nowhere is no directory"):
        TritonServer.start(small_repository, tmp_path)
    assert left_behind(f"enginebench-{mark}") == []


def test_attaching_to_nothing_is_explained() -> None:
    with pytest.raises(ServerError, match=r"Nothing at http://127\.0\.0\.1:9 answers"):
        attach("http://127.0.0.1:9")
    with pytest.raises(ServerError, match="no server URL"):
        attach("localhost:8000")
    with pytest.raises(ServerError, match="IPv6"):
        attach("http://[::1]:8000")


def test_a_stopped_server_leaves_nothing(small_repository: Path, tmp_path: Path) -> None:
    server = TritonServer.start(small_repository, tmp_path)
    pids = server.pids()
    assert len(pids) == 5
    name = argument(server.pid, "--id")
    assert left_behind(name)
    # None where other servers started meanwhile: nobody knows whose directory is whose.
    claimed = [place.readlink() for each in left_behind(name) if (place := each / ENVIRONMENT).is_symlink()]
    assert all(each.is_dir() for each in claimed)
    server.stop()
    server.stop()
    assert gone(pids)
    assert server.pids() == ()
    assert left_behind(name) == []
    assert not claimed or not claimed[0].exists()


def test_what_a_server_made_elsewhere_goes_with_it_when_it_is_empty(tmp_path: Path) -> None:
    for kept in (False, True):
        (scratch := tmp_path / f"scratch {kept}").mkdir()
        (made := tmp_path / f"made {kept}").mkdir()
        (scratch / ENVIRONMENT).symlink_to(made)
        if kept:
            (made / "of another").touch()
        remove_leftovers(f"no-such-server-{secrets.token_hex(4)}", scratch)
        assert (scratch.exists(), made.exists()) == (False, kept)


def test_a_killed_server_is_noticed_and_leaves_nothing(
    small_repository: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with TritonServer.start(small_repository, tmp_path) as server:
        pids, name = server.pids(), argument(server.pid, "--id")
        events = stream_events(server.url, "ensemble", inputs("ensemble", "a", LONGEST, tokenizer, stream=True))
        next(events)
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="did not answer a stream"):
            list(events)
        assert gone(pids)
        with pytest.raises(ServerError, match=r"Triton died while it was needed \(killed by signal 9\); see its log"):
            server.check_alive()
    assert left_behind(name) == []


def test_a_killed_core_is_noticed_though_triton_says_ready(small_repository: Path, tmp_path: Path) -> None:
    with TritonServer.start(small_repository, tmp_path) as server:
        core = next(pid for pid in server.pids() if "tensorrt_llm_0_0" in psutil.Process(pid).cmdline())
        os.kill(core, signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            assert left_of([psutil.Process(core)]) == []  # reaped by Triton, or a zombie
        with attach(server.url) as control:
            assert control.ready()
        with pytest.raises(ServerError, match=rf"model 'tensorrt_llm' \(pid {core}\) died"):
            server.check_alive()


HARNESS = """
import sys, time
from pathlib import Path
from enginebench.server.launch import TritonServer

server = TritonServer.start(Path(sys.argv[1]), Path(sys.argv[2]))
print(*server.pids(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_killed_harness_leaves_nothing(
    small_repository: Path, tmp_path: Path, tokenizer: Tokenizer, busy: bool
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HARNESS), str(small_repository), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        pids = tuple(map(int, harness.stdout.readline().split()))
        assert len(pids) == 5
        supervisor, name = psutil.Process(pids[0]).parent(), argument(pids[0], "--id")
        url = f"http://127.0.0.1:{argument(pids[0], '--http-port')}"
        events = stream_events(url, "ensemble", inputs("ensemble", "a", LONGEST, tokenizer, stream=True))
        if busy:
            next(events)
        harness.kill()
    assert supervisor is not None
    supervisor.wait(PATIENCE_S)
    assert gone(pids)
    assert left_behind(name) == []
    events.close()  # type: ignore[attr-defined]
