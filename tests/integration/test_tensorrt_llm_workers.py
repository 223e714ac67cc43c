"""Workers under interpreters of their own: two versions side by side, ranks under mpirun, and how these die."""

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mpi4py
import psutil
import pytest

from enginebench.errors import SessionError, WorkerError
from enginebench.measure.records import RoundRecord
from enginebench.measure.worker_process import Worker
from enginebench.measure.world import World
from enginebench.plan.load import Batch, Concurrency
from enginebench.plan.requests import Request, Sampling
from tests.support.interpreters import make_interpreter
from tests.support.processes import PATIENCE_S
from tests.support.trtllm.strict import VIOLATIONS_FILE

# Starts the ranks, gives standard input to nobody, ends when one fails: what mpirun does, as far as a worker can tell.
MPIRUN = f"""#!{sys.executable}
import os, subprocess, sys
arguments = [each for each in sys.argv[1:] if each != "--allow-run-as-root"]
assert arguments[0] == "-n"
size, command = arguments[1], arguments[2:]
ranks = [
    subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ
                     | {{"OMPI_COMM_WORLD_SIZE": size, "OMPI_COMM_WORLD_RANK": str(rank)}})
    for rank in range(int(size))
]
codes = [rank.wait() for rank in ranks]
sys.exit(max(map(abs, codes)))
"""


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], str]:
    """Make a virtual environment with a version of the stand-in."""
    return lambda version: make_interpreter(tmp_path / f"venv-{version}", version)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []
    violations = tmp_path / "violations"
    monkeypatch.setenv(VIOLATIONS_FILE, str(violations))

    def start_one(python: str, world: World | None = None) -> Worker:
        workers.append(Worker.start(python, tmp_path / f"worker-{len(workers)}.log", world=world))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.close()
    assert not violations.exists(), violations.read_text()


@pytest.fixture
def mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mpirun"
    program.write_text(MPIRUN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("ENGINEBENCH_MPIRUN", str(program))


@pytest.fixture
def mpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real MPI, from wheels; its mpiexec has no flag for root."""
    program, home = tmp_path / "mpirun", Path(sys.executable).parents[1]
    program.write_text(
        f"#!/bin/sh\n[ $1 = --allow-run-as-root ] && shift\n"
        f'LD_LIBRARY_PATH={home / "lib"} exec {home / "bin" / "mpiexec"} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("ENGINEBENCH_MPIRUN", str(program))


def link_mpi4py(python: str) -> str:
    (packages,) = Path(python).parents[1].glob("lib/python*/site-packages")
    (packages / "mpi4py").symlink_to(Path(mpi4py.__file__).parent)
    return python


def drive(worker: Worker, streaming: bool = True) -> RoundRecord:
    requests = [Request(index, "", (1, 2, index), 6, streaming, Sampling()) for index in range(4)]
    worker.prepare(requests, load=Batch(2), round_index=0, warmup=False, stall_timeout_s=20)
    worker.run()
    return worker.fetch()


def test_two_versions_work_side_by_side(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    old, new = start(interpreter("0.13.0")), start(interpreter("1.2.0rc2"))
    options = {"directory": str(tmp_path)}
    facts = [worker.open("tensorrt_llm", options) for worker in (old, new)]
    assert [(each["tensorrt_llm"], each["adapter"]) for each in facts] == [
        ("0.13.0", "executor"),
        ("1.2.0rc2", "llm_api"),
    ]
    assert all("venv-" in each["python"] for each in facts)
    for record in (drive(old), drive(new)):
        assert record.requests.outcome == ("ok",) * 4
        assert record.stamp_kind == "engine"


def test_what_the_engine_recorded_is_kept_round_by_round(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(interpreter("1.2.0rc2"))
    worker.open("tensorrt_llm", {"directory": str(tmp_path)})
    records = [drive(worker), drive(worker)]
    lines = [json.loads(line) for line in (tmp_path / "worker-0.engine.jsonl").read_text().splitlines()]
    assert [(line["started_ns"], line["ended_ns"]) for line in lines] == [(r.started_ns, r.ended_ns) for r in records]
    for line in lines:
        assert sorted(each["request"] for each in line["requests"]) == [0, 1, 2, 3]
        assert line["iterations"]


def test_static_batches_take_no_other_load(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(interpreter("0.8.0"))
    worker.open("tensorrt_llm", {"directory": str(tmp_path)})
    with pytest.raises(SessionError, match="no load of kind concurrency: choose batch"):
        worker.prepare([], load=Concurrency(2), round_index=0, warmup=False, stall_timeout_s=20)
    assert drive(worker).requests.outcome == ("ok",) * 4


def test_an_engine_of_the_other_version_is_refused_by_the_worker(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start(interpreter("0.13.0"))
    with pytest.raises(SessionError, match=r"built by TensorRT-LLM 1\.2"):
        worker.open("tensorrt_llm", {"directory": str(tmp_path), "version": "1.2.0rc2"})
    worker.open("tensorrt_llm", {"directory": str(tmp_path), "version": "0.13.0"})
    assert drive(worker).requests.outcome == ("ok",) * 4


@pytest.mark.usefixtures("mpirun")
def test_rank_0_drives_and_the_others_serve(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    options = {"directory": str(tmp_path), "tp": 2}
    worker = start(interpreter("0.13.0"), World(2, "tensorrt_llm", options))
    processes = psutil.Process(worker.pid).children(recursive=True)
    facts = worker.open("tensorrt_llm", options)
    assert facts["adapter"] == "executor"
    assert drive(worker).requests.outcome == ("ok",) * 4
    worker.close()
    _, alive = psutil.wait_procs([*processes], timeout=PATIENCE_S)
    assert not alive


@pytest.mark.parametrize("adapter", ["model_runner", "model_runner_cpp"])
def test_every_rank_runs_the_batches_that_rank_0_is_given(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path, mpi: None, adapter: str
) -> None:
    options = {"directory": str(tmp_path), "tp": 2, "adapter": adapter}
    worker = start(link_mpi4py(interpreter("0.8.0")), World(2, "tensorrt_llm", options))
    processes = psutil.Process(worker.pid).children(recursive=True)
    worker.open("tensorrt_llm", options)
    records = [drive(worker, streaming=adapter == "model_runner") for _ in range(2)]
    assert [record.requests.outcome for record in records] == [("ok",) * 4] * 2
    assert [record.requests.tokens.tolist() for record in records] == [[6] * 4] * 2
    worker.close()
    _, alive = psutil.wait_procs([*processes], timeout=PATIENCE_S)
    assert not alive


@pytest.mark.usefixtures("mpirun")
def test_a_wrong_number_of_ranks_is_refused_before_anything_is_loaded(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    options = {"directory": str(tmp_path), "tp": 4}
    worker = start(interpreter("0.13.0"), World(2, "tensorrt_llm", options))
    with pytest.raises(SessionError, match=r"needs 4 ranks .* and 2 were started"):
        worker.open("tensorrt_llm", options)


@pytest.mark.usefixtures("mpirun")
def test_ranks_that_cannot_start_are_reported_with_their_last_words(start: Callable[..., Worker]) -> None:
    bare = f"{os.devnull}/python"
    with pytest.raises(WorkerError, match=r"it said last: .*python"):
        start(bare, World(2, "tensorrt_llm", {}))


def test_without_mpirun_it_is_asked_for(
    start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGINEBENCH_MPIRUN", str(tmp_path / "nowhere"))
    with pytest.raises(WorkerError, match="install Open MPI"):
        start(sys.executable, World(2, "tensorrt_llm", {}))


@pytest.mark.usefixtures("mpirun")
def test_killing_the_worker_leaves_no_rank(
    interpreter: Callable[[str], str], start: Callable[..., Worker], tmp_path: Path
) -> None:
    options = {"directory": str(tmp_path), "tp": 2}
    worker = start(interpreter("0.13.0"), World(2, "tensorrt_llm", options))
    ranks = psutil.Process(worker.pid).children(recursive=True)
    assert ranks
    worker.kill()
    _, alive = psutil.wait_procs(ranks, timeout=PATIENCE_S)
    assert not alive
