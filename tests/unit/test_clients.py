"""What ``--shards`` may ask for."""

import pytest

from enginebench.errors import EnginebenchError
from enginebench.measure.sharding import ShardClock
from enginebench.measure.shards import Shards
from enginebench.plan.cells import Cell
from enginebench.plan.load import Batch
from enginebench.run import clients
from enginebench.run.clients import connections_each, read_shards, start_client_here

CORE = Cell("example", "core", True, 8, Batch(1))
DIRECT = Cell("example", "direct", True, 8, Batch(1))


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_processes_or_mpi(text: str) -> None:
    assert read_shards("4", [CORE]) == 4
    with pytest.raises(EnginebenchError, match=f"--shards {text} is not possible; give a number of processes, or mpi"):
        read_shards(text, [CORE])


def test_the_direct_path_has_no_client_to_divide() -> None:
    assert read_shards("1", [DIRECT, CORE]) == 1
    for text in ("2", "mpi"):
        with pytest.raises(EnginebenchError, match=f"--shards {text} divides the client of a server, and the direct"):
            read_shards(text, [DIRECT, CORE])


def test_mpi_needs_ranks() -> None:
    with pytest.raises(EnginebenchError, match=r"mpiexec -n 5 python -m mpi4py\.futures -m pytest"):
        read_shards("mpi", [CORE])


class FarCrew:
    """Three shards, of which two are on another host."""

    size = 3
    pids = (1,)
    closed = False

    def close(self) -> None:
        self.closed = True


def test_connections_are_divided_and_far_shards_cannot_be_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = FarCrew()
    shards = Shards(crew)  # type: ignore[arg-type]
    assert connections_each(shards, 10) == 4
    assert connections_each(shards, 10, servers=2) == 2
    monkeypatch.setattr(clients, "start_client", lambda *_: shards)
    with pytest.raises(EnginebenchError, match="shards on other hosts cannot reach the truth server"):
        start_client_here("mpi", None)  # type: ignore[arg-type]
    assert crew.closed


def test_a_shard_says_what_it_stamps_with() -> None:
    assert ShardClock("far", "other", -5, 2).as_json() == {
        "host": "far",
        "boot_id": "other",
        "offset_ns": -5,
        "error_ns": 2,
    }
