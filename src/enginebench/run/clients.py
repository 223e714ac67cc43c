"""The client of the server paths: one process, or as many as ``--shards`` says. The direct path has its engine's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench.errors import EnginebenchError
from enginebench.measure.shards import Client, Shards
from enginebench.measure.worker_process import Worker
from enginebench.plan.cells import Cell

ShardCount: TypeAlias = int | Literal["mpi"]

MPI: Literal["mpi"] = "mpi"


def read_shards(text: str, cells: Sequence[Cell]) -> ShardCount:
    """What ``--shards`` asks for. Raises EnginebenchError for what is no count, and for ``cells`` without a client."""
    if text != MPI and not (text.isdecimal() and int(text)):
        raise EnginebenchError(
            f"--shards {text} is not possible; give a number of processes, or mpi for one on each rank."
        )
    count = MPI if text == MPI else int(text)
    if count != 1 and any(cell.path == "direct" for cell in cells):
        raise EnginebenchError(
            f"--shards {text} divides the client of a server, and the direct path has one process, which owns the "
            "engine: choose server paths, e.g. --path core, or leave --shards out."
        )
    if count == MPI:
        from enginebench.measure.ranks import require_ranks

        require_ranks()
    return count


def start_client(shards: ShardCount, log_path: Path) -> Client:
    """Start what drives a server path. Raises WorkerError."""
    if shards == MPI:
        from enginebench.measure.ranks import RankCrew

        return Shards(RankCrew(log_path))
    return Worker.start(None, log_path) if shards == 1 else Shards.start(shards, log_path)


def start_client_here(shards: ShardCount, log_path: Path) -> Client:
    """``start_client``, for a server that only this host reaches. Raises EnginebenchError for shards elsewhere."""
    client = start_client(shards, log_path)
    if isinstance(client, Shards) and len(client.pids) < client.size:
        client.close()
        raise EnginebenchError("shards on other hosts cannot reach the truth server, which is on this one")
    return client


def connections_each(client: Client, connections: int, servers: int = 1) -> int:
    """What each process has ready to each server, of the connections of all; whatever else is needed opens later."""
    processes = client.size if isinstance(client, Shards) else 1
    return -(-connections // (processes * servers))
