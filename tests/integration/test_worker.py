"""Workers as real child processes: what they give back, how they die, and that nothing of them is left."""

import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from enginebench.builds.build import read_build
from enginebench.builds.tokenizer import open_tokenizer
from enginebench.errors import SessionError, WorkerError
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.measure.worker_process import Worker
from enginebench.plan.load import Batch, Load
from enginebench.plan.requests import Request, Sampling
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.runtimes.scripted import token_id
from tests.support.processes import PATIENCE_S

FAST = {"first_s": 0.004, "gap_s": 0.001}
SLOW = {"first_s": 30.0, "gap_s": 1.0}


def requests(count: int = 4, output_tokens: int = 5, prompt: str = "你好") -> list[Request]:
    ids = tuple(258 + number for number in range(len(prompt)))
    return [Request(index, prompt, ids, output_tokens, True, Sampling()) for index in range(count)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start_one(python: str | None = None, env: dict[str, str] | None = None) -> Worker:
        workers.append(Worker.start(python, tmp_path / "logs" / f"worker-{len(workers)}.log", env))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.close()


PAIRS = Batch(2)


def drive(worker: Worker, asked: list[Request], load: Load = PAIRS, **settings: Any) -> RoundRecord:
    settings = {"round_index": 0, "warmup": False, "stall_timeout_s": 10.0} | settings
    worker.prepare(asked, load=load, **settings)
    worker.run()
    return worker.fetch()


def test_rounds_share_a_session_and_come_back_whole(start: Callable[..., Worker]) -> None:
    worker = start()
    assert worker.open("scripted", FAST)["gap_s"] == 0.001
    assert worker.facts["runtime"] == "scripted"
    first = drive(worker, requests(), warmup=True, round_index=-1)
    second = drive(worker, requests(3), block=2)
    assert (first.warmup, first.round_index, len(first.requests)) == (True, -1, 4)
    assert (second.block, second.load["size"], second.stamp_kind) == (2, 2, "engine")
    assert second.requests.outcome == ("ok", "ok", "ok")
    assert second.chunks.token_ids.tolist()[0] == token_id(requests()[0], 0)
    assert cell_metrics([first, second])["service_ttft"].summary["p50"] == pytest.approx(0.004)


def test_the_summary_and_progress_come_from_the_run_itself(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", FAST | {"gap_s": 0.2})
    told: list[tuple[int, int]] = []
    worker.prepare(requests(), load=Batch(4), round_index=0, warmup=False, stall_timeout_s=10)
    summary = worker.run(lambda tokens, ended: told.append((tokens, ended)))
    assert (summary["arrivals"], summary["given_up"]) == (20, 0)
    assert summary["makespan_s"] == pytest.approx(worker.fetch().window_s)
    assert told
    assert told == sorted(told)


def test_a_worker_on_the_reference_engine(start: Callable[..., Worker], tmp_path: Path) -> None:
    options = ReferenceOptions(
        layers=1, hidden=32, heads=4, kv_heads=2, ffn=64, vocab_size=1024, max_batch_size=4, min_step_ms=1
    )
    write_build(options, tmp_path / "build")
    ids = open_tokenizer(read_build("small", tmp_path / "build")).encode("写一篇玄幻小说")
    asked = [Request(index, "写一篇玄幻小说", ids, 6, True, Sampling()) for index in range(8)]
    worker = start()
    assert worker.open("reference", {"directory": str(tmp_path / "build")})["blas_threads"] == "1"
    found = drive(worker, asked, Batch(4))
    assert found.requests.outcome == ("ok",) * 8
    assert len({tuple(answer) for answer in np.split(_by_request(found), 8)}) == 1  # greedy: the same for all


def _by_request(record: RoundRecord) -> "np.ndarray[Any, Any]":
    order = np.argsort(record.chunks.request, kind="stable")
    return np.concatenate([record.chunks.ids()[place] for place in order])


def test_noise_on_standard_output_goes_to_the_log(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    worker.open("scripted", FAST | {"noise": "[TensorRT-LLM] loading ...\n"})
    assert drive(worker, requests()).requests.outcome == ("ok",) * 4
    assert (tmp_path / "logs" / "worker-0.log").read_text() == "[TensorRT-LLM] loading ...\n" * 2


def test_a_refusal_is_a_session_error_and_the_worker_goes_on(start: Callable[..., Worker]) -> None:
    worker = start()
    with pytest.raises(WorkerError, match="no open session"):
        worker.fetch()
    with pytest.raises(SessionError, match="no runtime 'vllm'"):
        worker.open("vllm", {})
    with pytest.raises(SessionError, match="hiccup"):
        worker.open("scripted", {"faults": {"0": "hiccup"}})
    worker.open("scripted", FAST)
    with pytest.raises(WorkerError, match="before a round was prepared"):
        worker.run()
    with pytest.raises(WorkerError, match="before a round was run"):
        worker.fetch()
    assert drive(worker, requests()).requests.outcome == ("ok",) * 4


def test_a_session_that_breaks_can_be_opened_again(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", FAST | {"faults": {"1": "break"}})
    with pytest.raises(SessionError, match="says that the session breaks"):
        drive(worker, requests())
    worker.open("scripted", FAST)
    assert drive(worker, requests()).requests.outcome == ("ok",) * 4


def test_a_stall_is_an_outcome(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", FAST | {"faults": {"1": "stall"}})
    assert drive(worker, requests(), stall_timeout_s=0.2).requests.outcome == ("ok", "stall", "ok", "ok")


def test_a_worker_that_dies_gives_its_last_words(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    worker.open("scripted", FAST | {"faults": {"1": "die"}})
    with pytest.raises(WorkerError) as caught:
        drive(worker, requests())
    log = tmp_path / "logs" / "worker-0.log"
    assert str(caught.value) == (
        f"The worker ended with status 3 (log {log}); it said last: the script says that the process dies."
    )
    with pytest.raises(WorkerError, match="status 3"):
        worker.check_alive()
    with pytest.raises(WorkerError, match="status 3"):
        worker.open("scripted", FAST)


def test_a_worker_that_is_killed_in_a_round_is_a_worker_error(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", SLOW)
    worker.check_alive()
    worker.prepare(requests(), load=Batch(2), round_index=0, warmup=False, stall_timeout_s=60)
    with pytest.raises(WorkerError, match=r"was killed by SIGKILL .*it said nothing"):
        worker.run(lambda *_: os.kill(worker.pid, signal.SIGKILL))


def test_ctrl_c_is_for_the_harness_to_decide(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", FAST)
    os.kill(worker.pid, signal.SIGINT)
    assert drive(worker, requests()).requests.outcome == ("ok",) * 4


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"/no/python cannot be started \(No such file"):
        Worker.start("/no/python", tmp_path / "log")


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_interpreter_without_numpy_says_so(tmp_path: Path) -> None:
    bare = script(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    with pytest.raises(WorkerError, match="No module named 'numpy'"):
        Worker.start(bare, tmp_path / "log")


def test_numpy_and_the_standard_library_are_all_that_a_worker_needs(
    start: Callable[..., Worker], tmp_path: Path
) -> None:
    """Under an interpreter that has neither enginebench nor anything else of the harness."""
    packages = tmp_path / "packages"
    packages.mkdir()
    numpy = Path(np.__file__).parent
    for part in (numpy, numpy.with_name("numpy.libs")):
        if part.exists():
            (packages / part.name).symlink_to(part)
    bare = script(tmp_path / "python", f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} -S "$@"\n')
    worker = start(bare)
    worker.open("scripted", FAST)
    assert drive(worker, requests()).requests.outcome == ("ok",) * 4


def test_a_worker_of_the_harness_loads_nothing_heavy(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start(script(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -X importtime "$@"\n'))
    worker.open("scripted", FAST)
    log = (tmp_path / "logs" / "worker-0.log").read_text()
    assert "numpy" in log
    for heavy in ("pydantic", "pyarrow", "pytest", "rich", "plotly", "tritonclient", "psutil", "yaml", "scipy"):
        assert f" {heavy}\n" not in log, heavy


def test_blas_has_one_thread(start: Callable[..., Worker]) -> None:
    environment = psutil.Process(start(env={"LANG": "C.UTF-8"}).pid).environ()
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    assert [environment[name] for name in names] == ["1", "1", "1"]
    assert environment["LANG"] == "C.UTF-8"


def test_closing_ends_the_process_and_its_group(start: Callable[..., Worker]) -> None:
    worker = start()
    worker.open("scripted", FAST)
    process = psutil.Process(worker.pid)
    assert os.getpgid(worker.pid) == worker.pid
    worker.close()
    assert not process.is_running()
    worker.close()
    worker.kill()
    with pytest.raises(WorkerError, match="The worker ended with status 0"):
        worker.open("scripted", FAST)


HARNESS = """
    import threading, time
    from pathlib import Path
    from enginebench.measure.worker_process import Worker
    from enginebench.plan.load import Batch
    from enginebench.plan.requests import Request, Sampling

    def drive():
        worker = Worker.start(None, Path(r"{log}"))
        worker.open("scripted", {options})
        asked = [Request(0, "x", (1,), 5, True, Sampling())]
        worker.prepare(asked, load=Batch(1), round_index=0, warmup=False, stall_timeout_s=90)
        worker.run(lambda tokens, ended: print(worker.pid, flush=True))

    {call}
"""


@pytest.mark.parametrize("call", ["drive()", "thread = threading.Thread(target=drive); thread.start(); thread.join()"])
def test_nothing_is_left_when_the_harness_is_killed_in_a_round(tmp_path: Path, call: str) -> None:
    program = textwrap.dedent(HARNESS).format(log=tmp_path / "log", options=SLOW, call=call)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        worker = psutil.Process(int(harness.stdout.readline()))
        assert worker.is_running()
        harness.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([worker], timeout=PATIENCE_S)
    assert not alive


def test_the_module_can_be_run_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "enginebench.worker"], input=b"", capture_output=True, timeout=300, check=False
    )
    assert b'"op": "hello"' in done.stdout
