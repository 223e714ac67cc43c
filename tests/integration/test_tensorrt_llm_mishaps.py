"""What a GPU and a native library do to a worker: no memory, a segmentation fault, a load that never ends."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginebench.errors import BuildError, LoadError, WorkerError
from enginebench.measure import worker_process
from enginebench.measure.telemetry import Telemetry
from enginebench.measure.worker_process import Worker
from enginebench.plan.load import Batch
from enginebench.plan.requests import Request, Sampling
from enginebench.run.attached import Attached
from enginebench.run.builds import parse_build
from enginebench.run.sessions import Sessions
from tests.support.bench_project import BenchProject
from tests.support.engine_dirs import current_config, parallel, write_current
from tests.support.gpu_traces import CARD, reading, write_trace
from tests.support.interpreters import make_interpreter
from tests.support.trtllm.compute import MISHAPS

VERSIONS = {"llm_api": "1.2.0rc2", "executor": "0.13.0", "model_runner": "0.8.0"}

SCENARIO = """
description: Two short answers.
prompts: [a letter, and another]
output_tokens: [8]
batch_sizes: [2]
rounds: 1
"""


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return make_interpreter(tmp_path / "venv", VERSIONS[request.param])


@pytest.fixture
def worker(python: str, tmp_path: Path) -> Iterator[Worker]:
    started = Worker.start(python, tmp_path / "worker.log")
    yield started
    started.close()


def engine(tmp_path: Path, mishap: str) -> dict[str, str]:
    directory = tmp_path / "engine"
    directory.mkdir()
    (directory / MISHAPS).write_text(mishap)
    return {"directory": str(directory)}


def run_round(worker: Worker) -> tuple[str, ...]:
    requests = [Request(index, "", (1, 2, index), 6, True, Sampling()) for index in range(2)]
    worker.prepare(requests, load=Batch(2), round_index=0, warmup=False, stall_timeout_s=20)
    worker.run()
    return worker.fetch().requests.error


def test_no_memory_for_the_engine(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        worker.open("tensorrt_llm", engine(tmp_path, "load oom"))
    said = str(caught.value)
    assert "could not load" in said
    assert "out of memory" in said
    assert "it said last: " in said
    assert said.endswith("[TensorRT-LLM][ERROR] KV cache allocation failed.")  # and not our own traceback
    assert "\n" not in said


def test_a_segmentation_fault_while_loading(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"was killed by SIGSEGV .*it said last: .*stand-in: load"):
        worker.open("tensorrt_llm", engine(tmp_path, "load segfault"))


def test_a_load_that_never_ends(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = engine(tmp_path, "load hang")
    for timeout_s in (4.0, 20.0, 60.0):  # a busy machine needs longer until the load has begun
        monkeypatch.setattr(worker_process, "OPEN_TIMEOUT_S", timeout_s)
        worker = Worker.start(python, tmp_path / "worker.log")
        with pytest.raises(WorkerError, match=rf"said nothing for {timeout_s:g} s and was ended") as ended:
            worker.open("tensorrt_llm", options)
        with pytest.raises(WorkerError):
            worker.check_alive()
        if re.search("it said last: .*stand-in: load", str(ended.value)):
            return
    pytest.fail(f"it does not say what it did last: {ended.value}")


def test_no_memory_in_a_round(worker: Worker, tmp_path: Path) -> None:
    worker.open("tensorrt_llm", engine(tmp_path, "round oom"))
    errors = run_round(worker)
    assert len(errors) == 2
    assert all("out of memory" in error and "prompt 3 + output 6 tokens" in error for error in errors)


def test_a_segmentation_fault_in_a_round(worker: Worker, tmp_path: Path) -> None:
    worker.open("tensorrt_llm", engine(tmp_path, "round segfault"))
    with pytest.raises(WorkerError, match=r"was killed by SIGSEGV .*it said last: .*stand-in: round"):
        run_round(worker)


@pytest.mark.parametrize(
    ("mishap", "said"),
    [
        ("load oom", "KV cache allocation failed"),
        ("round oom", "out of memory"),
        ("round segfault", "was killed by SIGSEGV"),
    ],
)
def test_the_cell_fails_and_says_why(tmp_path: Path, mishap: str, said: str) -> None:
    project = BenchProject.make(tmp_path / "project")
    project.write_scenario("tiny", SCENARIO)
    directory = write_current(tmp_path / "fp16", current_config("1.2.0rc2"))
    (directory / MISHAPS).write_text(mishap)
    python = make_interpreter(tmp_path / "venv", "1.2.0rc2")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copytree(Path(__file__).parents[1] / "support/standins/transformers", packages / "transformers")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "standin.json").write_text("{}")
    build = f"fp16={directory},python={python},tokenizer={tokenizer}"
    done = project.bench("--build", build, "--scenario", "tiny", "--path", "direct")
    assert done.returncode == 1, done.stdout + done.stderr
    (cell,) = project.run().data["cells"].values()
    assert cell["status"] == "failed"
    assert said in cell["reason"]
    assert "Traceback" not in done.stdout


def test_too_few_gpus_are_refused_before_a_worker_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    directory = write_current(tmp_path / "fp16", parallel(current_config("1.2.0rc2"), tp=4), ranks=4)
    cards = [{**CARD, "uuid": f"GPU-{index}"} for index in range(2)]
    trace = write_trace(tmp_path / "trace", [(reading(0), reading(0))], *cards)
    with Telemetry(gpu_trace=trace) as telemetry:
        sessions = Sessions(parse_build(f"fp16={directory}"), tmp_path, telemetry, 1, Attached())
        with pytest.raises(BuildError, match=r"needs 4 GPUs .* and 2 can be seen here"):
            sessions.use("direct")
        sessions.close()
    assert not (tmp_path / "logs").exists()
