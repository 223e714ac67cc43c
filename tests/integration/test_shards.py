"""Several real client processes as one: against a server with known truth, and when one of them dies."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from enginebench.errors import SessionError, WorkerError
from enginebench.measure.calibration import times_of_truth
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.ranks import RankCrew
from enginebench.measure.records import RoundRecord
from enginebench.measure.shards import LEAD_NS, CommonStart, Shards, Tally
from enginebench.measure.truth import TruthServer
from enginebench.measure.truth_server import Script
from enginebench.plan.load import Batch, Concurrency, Load, Rate, load_to_json
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.scripted import token_id

FAST = {"first_s": 0.004, "gap_s": 0.001}
SLOW = {"first_s": 30.0, "gap_s": 1.0}


def requests(count: int, gap_ns: int = 0, output_tokens: int = 5) -> list[Request]:
    return [Request(i, "", (i,), output_tokens, True, Sampling(), i * gap_ns) for i in range(count)]


@contextmanager
def started(directory: Path) -> Iterator[Shards]:
    shards = Shards.start(3, directory / "logs" / "worker.log")
    yield shards
    shards.close()
    shards.close()
    assert not any(psutil.pid_exists(pid) for pid in shards.pids)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    with started(tmp_path_factory.mktemp("shards")) as shards:
        yield shards


@pytest.fixture
def own_shards(tmp_path: Path) -> Iterator[Shards]:
    """For tests after which there are none left."""
    with started(tmp_path) as shards:
        yield shards


def drive(shards: Shards, asked: list[Request], load: Load, stall_timeout_s: float = 10) -> RoundRecord:
    shards.prepare(asked, load=load, round_index=0, warmup=False, stall_timeout_s=stall_timeout_s)
    shards.run()
    return shards.fetch()


def test_shards_are_one_client_to_a_server_with_known_truth(shards: Shards) -> None:
    with TruthServer.start() as server:
        server.follow(Script(first_s=0.005, gap_s=0.002))
        facts = shards.open("triton_http", {"urls": [server.url], "model": server.model, "connections": 4})
        assert [shard["pid"] for shard in facts["shards"]] == shards.pids
        assert {(shard["offset_ns"], shard["error_ns"]) for shard in facts["shards"]} == {(0, 0)}
        load = Rate(200.0, "constant", requests=40)
        record = drive(shards, requests(40, gap_ns=5_000_000), load)
        truth = server.truth()
    times = times_of_truth(record, truth)  # nothing is lost, doubled or out of order
    doubt_ns = 100_000
    order = np.argsort(record.chunks.request, kind="stable")
    assert (record.chunks.stamp_ns[order] >= times.left_ns - doubt_ns).all()
    assert (record.requests.sent_ns <= times.arrived_ns + doubt_ns).all()
    assert (np.diff(record.requests.intended_ns) == 5_000_000).all()  # one schedule, started together
    assert record.load == load_to_json(load)
    assert record.stamp_kind == "kernel"
    assert cell_metrics([record])["ttft"].summary["count"] == 40


@pytest.mark.parametrize("load", [Concurrency(5), Batch(12), Batch(4), Rate(500.0)], ids=lambda load: load.label)
def test_scripted_rounds_come_back_whole(shards: Shards, load: Load) -> None:
    shards.open("scripted", FAST)
    for _ in range(2):
        asked = requests(12, gap_ns=2_000_000 if isinstance(load, Rate) else 0)
        record = drive(shards, asked, load)
        assert record.requests.index.tolist() == list(range(12))
        assert record.requests.outcome == ("ok",) * 12
        assert (np.diff(record.chunks.stamp_ns) >= 0).all()
        ids: list[list[int]] = [[] for _ in asked]
        for request, chunk in zip(record.chunks.request, record.chunks.ids(), strict=True):
            ids[request] += chunk.tolist()
        assert ids == [[token_id(request, place) for place in range(5)] for request in asked]
        assert cell_metrics([record])["tpot"].summary["p50"] == pytest.approx(0.001)


def test_more_shards_than_requests_and_a_time_to_fill(shards: Shards) -> None:
    shards.open("scripted", FAST)
    assert drive(shards, requests(2), Concurrency(2)).requests.outcome == ("ok", "ok")
    asked = requests(4)
    record = drive(shards, asked, Concurrency(4, duration_s=1.0))
    assert len(record.requests) > len(asked)
    assert len(set(record.requests.index)) == len(record.requests)
    latest = record.requests.intended_ns.max() - record.requests.intended_ns.min()
    assert latest < 1_000_000_000


def test_progress_is_that_of_all_shards(shards: Shards) -> None:
    shards.open("scripted", FAST | {"gap_s": 0.2})
    shards.prepare(requests(6), load=Concurrency(6), round_index=0, warmup=False, stall_timeout_s=10)
    told: list[tuple[int, int]] = []

    def tell(tokens: int, ended: int) -> None:
        shards.check_alive()  # does not wait for the round
        told.append((tokens, ended))

    summary = shards.run(tell)
    assert (summary["arrivals"], summary["given_up"]) == (30, 0)
    assert told == sorted(told)
    assert max(tokens for tokens, _ in told) > 10  # more than any shard has alone


def test_progress_adds_up() -> None:
    told: list[tuple[int, int]] = []
    tally = Tally(lambda tokens, ended: told.append((tokens, ended)), 2)
    tally.of(0)(5, 1)
    tally.of(1)(7, 0)
    tally.of(0)(9, 2)
    assert told == [(5, 1), (12, 1), (16, 2)]


def test_all_shards_start_at_the_same_moment() -> None:
    start = CommonStart(4)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert len(set(pool.map(lambda _: start.at_ns(LEAD_NS), range(4)))) == 1


def test_a_stall_in_one_shard_is_an_outcome_of_the_round(shards: Shards) -> None:
    shards.open("scripted", FAST | {"faults": {"1": "stall"}})
    record = drive(shards, requests(6), Concurrency(6), stall_timeout_s=0.3)
    assert record.requests.outcome == ("ok", "stall", "ok", "ok", "ok", "ok")


def test_a_shard_that_dies_in_a_round_ends_the_others(own_shards: Shards) -> None:
    own_shards.open("scripted", SLOW)
    own_shards.check_alive()
    own_shards.prepare(requests(6), load=Concurrency(6), round_index=0, warmup=False, stall_timeout_s=60)
    timer = threading.Timer(0.5, lambda: os.kill(own_shards.pids[1], signal.SIGKILL))
    timer.start()
    with pytest.raises(WorkerError, match=r"was killed by SIGKILL .*worker-shard1.log"):
        own_shards.run()
    with pytest.raises(WorkerError):
        own_shards.check_alive()


def test_who_listens_may_end_the_round(own_shards: Shards) -> None:
    own_shards.open("scripted", SLOW)
    own_shards.prepare(requests(6), load=Concurrency(6), round_index=0, warmup=False, stall_timeout_s=60)

    def tell(*_: int) -> None:
        raise SessionError("the server died")

    with pytest.raises(SessionError, match="the server died"):
        own_shards.run(tell)


def test_a_refusal_of_the_runtime_is_told(own_shards: Shards) -> None:
    with pytest.raises(SessionError, match="no runtime 'vllm'"):
        own_shards.open("vllm", {})


def test_a_record_is_asked_for_after_a_round(own_shards: Shards) -> None:
    with pytest.raises(WorkerError, match="before a round was prepared"):
        own_shards.fetch()
    assert own_shards.size == len(own_shards.pids)


# --- MPI -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mpiexec() -> str:
    found = Path(sys.executable).with_name("mpiexec")
    if not found.exists() and not os.environ.get("CI"):
        pytest.skip("needs an MPI beside this Python: pip install 'enginebench[mpi]'")
    return str(found)


def on_ranks(mpiexec: str, ranks: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", "mpi4py.futures", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def test_shards_on_mpi_ranks(mpiexec: str, tmp_path: Path) -> None:
    """Three ranks: one for the harness, two that drive; their rounds and clocks are checked over there."""
    done = on_ranks(mpiexec, 3, "-m", "tests.support.shards_on_ranks", str(tmp_path / "worker.log"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["clocks", "truth", "scripted", "error", "again", "closed"]
    assert sorted(path.name for path in tmp_path.iterdir())[:2] == ["worker-rank1.log", "worker-rank2.log"]


def test_ranks_are_asked_for_where_there_is_none_but_the_harness(mpiexec: str, tmp_path: Path) -> None:
    program = "from pathlib import Path; from enginebench.measure.ranks import RankCrew; RankCrew(Path('log'))"
    done = on_ranks(mpiexec, 1, "-c", program)
    assert "WorkerError: There is no MPI rank for a shard beside the harness's own: start it as mpiexec" in done.stderr


def test_ranks_are_asked_for_where_there_are_none() -> None:
    with pytest.raises(WorkerError, match="was not started with them: start it as mpiexec -n 5 python -m"):
        RankCrew(Path("worker.log"))
