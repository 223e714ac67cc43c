"""Starting, watching and ending a server of several ranks: with a real mpiexec, and a stand-in for tritonserver."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from enginebench.errors import ServerError
from enginebench.server.image import ImageTriton
from enginebench.server.launch import TritonServer
from tests.support import fake_tritonserver
from tests.support.fake_tritonserver import RECORDS, arguments_of, option
from tests.support.processes import left_of

MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec: pip install 'enginebench[dev]' brings one")


class Bench:
    """A stand-in that was installed, and a repository for it."""

    def __init__(self, directory: Path) -> None:
        self.program = fake_tritonserver.write(directory / "opt", "tensorrtllm")
        self.records = directory / "records"
        self.records.mkdir()
        self.repository = directory / "models"
        (self.repository / "ensemble").mkdir(parents=True)
        self.logs = directory / "logs"

    def behave(self, **behaviour: Any) -> None:
        (self.records / "behaviour.json").write_text(json.dumps(behaviour))

    def start(self, ranks: int = 1, ready_timeout_s: float = 120.0) -> TritonServer:
        program = ImageTriton(
            self.program, MPIEXEC if ranks > 1 else None, ranks, environment={RECORDS: str(self.records)}
        )
        server = TritonServer.start(self.repository, self.logs, ready_timeout_s=ready_timeout_s, installation=program)
        while len(self.pids()) < ranks:  # rank 0 is ready: the others may still be on their way
            time.sleep(0.05)
        return server

    def pids(self) -> list[int]:
        return [json.loads(file.read_text())["pid"] for file in self.records.glob("argv-*.json")]

    def left(self) -> list[int]:
        """Servers that are still there after a while."""
        return [process.pid for process in left_of(found(self.pids()))]


def found(pids: Sequence[int]) -> list[psutil.Process]:
    """Those of them that are there."""
    processes = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(pid))
    return processes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for pid in bench.left():
        os.kill(pid, signal.SIGKILL)


def test_one_rank_is_served_and_ended(bench: Bench) -> None:
    with bench.start() as server:
        (arguments,) = arguments_of(bench.records)
        assert server.url == f"http://127.0.0.1:{option(arguments, 'http-port')}"
        assert server.metrics_url == f"http://127.0.0.1:{option(arguments, 'metrics-port')}/metrics"
        server.check_alive()
        assert psutil.Process(server.pid).name() == "tritonserver"
    assert bench.left() == []


@needs_mpi
def test_ranks_are_started_together_watched_and_ended(bench: Bench) -> None:
    with bench.start(ranks=3) as server:
        ranks = arguments_of(bench.records)
        assert ["--load-model=tensorrt_llm" in arguments for arguments in ranks] == [False, True, True]
        assert len({option(arguments, "id") for arguments in ranks}) == 1
        logs = [(bench.logs / f"tritonserver-rank{rank}.log").read_text() for rank in range(3)]
        assert logs == [f"rank {rank} is up\n" for rank in range(3)]
        server.check_alive()
        assert set(bench.pids()) < set(server.pids())
    assert bench.left() == []
    assert server.pids() == ()


@needs_mpi
def test_a_rank_that_dies_is_noticed(bench: Bench) -> None:
    with bench.start(ranks=2) as server:
        last = max(bench.pids())
        os.kill(last, signal.SIGKILL)
        assert left_of(found([last])) == []
        with pytest.raises(ServerError, match="died"):
            server.check_alive()
    assert bench.left() == []


@needs_mpi
def test_a_killed_mpiexec_leaves_no_rank(bench: Bench) -> None:
    with bench.start(ranks=2) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert bench.left() == []
        with pytest.raises(ServerError, match="Triton died while it was needed"):
            server.check_alive()


HARNESS = """
import sys, time
from pathlib import Path
from tests.integration.test_server_image import Bench

bench = Bench(Path(sys.argv[1]))
server = bench.start(ranks=2)
print("ready", flush=True)
time.sleep(600)
"""


@needs_mpi
def test_a_killed_harness_leaves_no_rank(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HARNESS), str(tmp_path / "bench")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=fake_tritonserver.ROOT) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == "ready\n"
        harness.kill()
    bench = Bench.__new__(Bench)
    bench.records = tmp_path / "bench" / "records"
    assert len(bench.pids()) == 2
    assert bench.left() == []


@needs_mpi
def test_ranks_that_end_say_why_from_their_own_logs(bench: Bench) -> None:
    bench.behave(
        log="[TensorRT-LLM][ERROR] Assertion failed: mpiSize == tp * pp (/app/cpp/runtime/worldConfig.cpp:80)", exit=1
    )
    with pytest.raises(ServerError, match=r"did not start \(exit code \d+\): .*tp × pp(?s:.*)rank1\.log(?s:.*)mpiSize"):
        bench.start(ranks=2)


def test_a_server_that_ends_says_why(bench: Bench) -> None:
    bench.behave(
        log="Internal: ValueError: Tokenizer class ChatGLMTokenizer does not exist or is not currently imported.",
        exit=1,
    )
    with pytest.raises(ServerError, match=r"did not start \(exit code 1\): the tokenizer is of class ChatGLMTokenizer"):
        bench.start()
    assert bench.left() == []


@pytest.mark.parametrize("starts", [1, 3])
def test_a_server_that_aborts_because_the_machine_stood_still_is_started_again(bench: Bench, starts: int) -> None:
    last = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'"
    bench.behave(log=last, exit=134, starts=starts)
    if starts == 1:
        with bench.start():
            assert len(bench.pids()) == 2
    else:
        with pytest.raises(ServerError, match="did not start"):
            bench.start()
    assert len(bench.pids()) == 2 if starts == 1 else 3
    assert bench.left() == []


def test_a_server_that_is_late_is_ended_and_says_why(bench: Bench) -> None:
    bench.behave(log="[TensorRT-LLM][WARNING] CUDA runtime error: out of memory", silent=True)
    for timeout_s in (1.0, 10.0, 60.0):  # a busy machine needs longer for what it says to be in the log
        with pytest.raises(ServerError, match=rf"not ready within {timeout_s:g} s") as late:
            bench.start(ready_timeout_s=timeout_s)
        assert bench.left() == []
        if "memory ran out" in str(late.value):
            return
    pytest.fail(f"it does not say why: {late.value}")


def test_another_server_on_the_port_is_not_taken_for_ours(bench: Bench) -> None:
    with bench.start() as other:
        program = ImageTriton(bench.program, environment={RECORDS: str(bench.records)})
        with pytest.raises(ServerError, match="in use by another program"):
            TritonServer.start(
                bench.repository, bench.logs, http_port=int(other.url.rpartition(":")[2]), installation=program
            )
