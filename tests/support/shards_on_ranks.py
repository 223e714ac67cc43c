"""Drives shards on ranks and tells what held.

To be run as ``mpiexec -n 3 python -m mpi4py.futures -m tests.support.shards_on_ranks LOG``.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.measure.calibration import times_of_truth
from enginebench.measure.ranks import EXCHANGES, RankCrew, compare_clocks
from enginebench.measure.records import RoundRecord
from enginebench.measure.shards import Place, Shards
from enginebench.measure.truth import TruthServer
from enginebench.measure.truth_server import Script
from enginebench.plan.load import Concurrency, Load, Rate
from enginebench.plan.requests import Request, Sampling


def drive(shards: Shards, load: Load, count: int, gap_ns: int = 0) -> RoundRecord:
    asked = [Request(i, "", (i,), 5, True, Sampling(), i * gap_ns) for i in range(count)]
    shards.prepare(asked, load=load, round_index=0, warmup=False, stall_timeout_s=10)
    assert shards.run(print)["given_up"] == 0  # and nothing is printed: progress does not travel
    return shards.fetch()


def compared(place: Place, _: None) -> tuple[int, int]:
    from mpi4py.futures import get_comm_workers

    comm: Any = get_comm_workers()
    clock = compare_clocks(comm, comm.Get_size() - 1, place.clock)
    return clock.offset_ns, clock.error_ns


def clocks(crew: RankCrew) -> None:
    """On one host the truth is known: an offset of 0, within the error."""
    from tests.support.shards_on_ranks import compared as by_its_name  # this module is called __main__

    found = crew.map(by_its_name, [None] * crew.size)
    assert sum(each == (0, 0) for each in found) == 1, found
    assert all(abs(offset_ns) <= error_ns + 1 for offset_ns, error_ns in found), (found, EXCHANGES)


def truth(shards: Shards) -> None:
    """Nothing is lost, and one schedule is kept."""
    with TruthServer.start() as server:
        server.follow(Script(first_s=0.005, gap_s=0.002))
        facts = shards.open("triton_http", {"urls": [server.url], "model": server.model, "connections": 4})
        assert len({shard["pid"] for shard in facts["shards"]}) == 2, facts
        record = drive(shards, Rate(200.0, "constant", requests=20), 20, gap_ns=5_000_000)
        times_of_truth(record, server.truth())
    assert set(record.requests.intended_ns[1:] - record.requests.intended_ns[:-1]) == {5_000_000}


def scripted(shards: Shards) -> None:
    """A closed loop, twice."""
    shards.open("scripted", {"first_s": 0.004, "gap_s": 0.001})
    for _ in range(2):
        record = drive(shards, Concurrency(5), 15)
        assert record.requests.outcome == ("ok",) * 15
        assert len(record.chunks) == 75


def refused(shards: Shards) -> None:
    """What a runtime says comes back from the ranks."""
    with pytest.raises(SessionError, match="no runtime 'vllm'"):
        shards.open("vllm", {})


def main() -> None:
    """Say each thing that held."""
    crew = RankCrew(Path(sys.argv[1]))
    shards = Shards(crew)
    assert len(crew.pids) == crew.size == 2
    shards.check_alive()
    for name, check in (("truth", truth), ("scripted", scripted), ("error", refused)):
        if name == "truth":
            clocks(crew)
            print("clocks")
        check(shards)
        print(name)
    shards.close()
    shards.close()
    again = Shards(RankCrew(Path(sys.argv[1])))
    scripted(again)
    print("again")
    again.close()
    print("closed")


if __name__ == "__main__":
    main()
