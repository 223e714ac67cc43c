"""Shards on MPI ranks, over as many machines as there are: ``mpiexec -n 5 python -m mpi4py.futures -m pytest ...``.

Rank 0 is the harness, and every other rank has one worker process. ``mpi4py.futures`` carries the calls; the ranks
agree among themselves on clocks and starts. Ranks on hosts of their own stamp with clocks of their own: the offset to
the first rank on the harness's host (else to the first rank) is taken from the quickest of some exchanges of messages,
and is right to half of what that took. Needs ``mpi4py`` 4 or later and an MPI; nothing else of the project does.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.clock import measure_offset, now_ns
from enginebench.errors import WorkerError
from enginebench.measure.sharding import ShardClock
from enginebench.measure.shards import Answer, Item, Place, clock_of_this_host
from enginebench.measure.worker_process import Worker

LAUNCHER = "mpi4py.futures"
EXCHANGES = 64
"""Messages to a rank and back, of which the quickest gives the offset of its clock."""


class RankCrew:
    """One worker on every rank but the harness's."""

    hears_progress = False

    def __init__(self, log_path: Path):
        """Raises WorkerError where there are no ranks. ``log_path``: must be writable on every host."""
        require_ranks()
        from mpi4py.futures import MPIPoolExecutor

        self._log_path = log_path
        self._executor = MPIPoolExecutor(main=False)
        self.size: int = self._executor.num_workers
        self._boot_id = clock_of_this_host().boot_id
        self._pids: list[int] = []
        self._closed = False
        try:
            clocks = self.map(_where, [None] * self.size)
        except BaseException:
            self.close()
            raise
        self._pids = [pid for pid, clock in clocks if clock.boot_id == self._boot_id]

    @property
    def pids(self) -> Sequence[int]:
        """The processes of shards on the harness's host; there may be none."""
        return self._pids

    def map(self, function: Callable[[Place, Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Call ``function`` once on every rank. None starts before all can, so that none takes two of the items."""
        crew = (str(self._log_path), self._boot_id)
        return list(self._executor.map(_on_rank, [(crew, function, item) for item in items]))

    def check_alive(self) -> None:
        """Nothing: a worker that died tells it at the next call, and ranks that die end the harness."""

    def close(self) -> None:
        """Close every session and end every worker; the ranks stay for the next crew."""
        if self._closed:
            return
        self._closed = True
        try:
            self.map(_close, [None] * self.size)
        finally:
            self._executor.shutdown()


def require_ranks() -> None:
    """Raise WorkerError when this process is not the first of several that ``mpi4py.futures`` holds together."""
    how = f"start it as mpiexec -n 5 python -m {LAUNCHER} -m pytest ..., which gives 4 shards"
    if LAUNCHER not in sys.orig_argv:
        raise WorkerError(f"Shards on MPI ranks need ranks, and this process was not started with them: {how}.")
    try:
        from mpi4py import MPI
        from mpi4py.futures import get_comm_workers  # noqa: F401 - came with mpi4py 4
    except (ImportError, RuntimeError) as error:
        raise WorkerError(
            f"Shards on MPI ranks need mpi4py 4 and an MPI ({error}): install enginebench[mpi]."
        ) from error
    if MPI.COMM_WORLD.Get_size() < 2:
        raise WorkerError(f"There is no MPI rank for a shard beside the harness's own: {how}.")


# --- On a rank -------------------------------------------------------------------------------------------------------


class RankPlace:
    """The worker of this rank."""

    def __init__(self, comm: Any, log_path: Path, harness_boot_id: str):
        self._comm = comm
        own = clock_of_this_host()
        boot_ids = comm.allgather(own.boot_id)
        self._first = boot_ids.index(harness_boot_id) if harness_boot_id in boot_ids else 0
        self._one_clock = len(set(boot_ids)) == 1
        self._shared = own.boot_id == boot_ids[self._first]
        self.clock = own
        self.worker = Worker.start(None, log_path)

    def start_at_ns(self, lead_ns: int) -> int:
        """``lead_ns`` after the clocks were compared, which is done before each round."""
        if not self._one_clock:
            compared = compare_clocks(self._comm, self._first, self.clock)
            self.clock = self.clock if self._shared else compared
        start_ns: int = self._comm.bcast(now_ns() + lead_ns, root=self._first)
        return start_ns - self.clock.offset_ns


_PLACES: dict[str, RankPlace] = {}  # of this rank, by the log of their crew: sessions may follow one another


def _on_rank(call: tuple[tuple[str, str], Callable[[Place, Any], Any], Any]) -> Any:
    from mpi4py.futures import get_comm_workers

    (log_path, boot_id), function, item = call
    comm = get_comm_workers()
    comm.Barrier()
    if log_path not in _PLACES:
        path = Path(log_path)
        log = path.with_name(f"{path.stem}-rank{comm.Get_rank() + 1}{path.suffix}")
        _PLACES[log_path] = RankPlace(comm, log, boot_id)
    answer = function(_PLACES[log_path], item)
    if function is _close:
        del _PLACES[log_path]
    return answer


def _where(place: Place, _: None) -> tuple[int, ShardClock]:
    return place.worker.pid, place.clock


def _close(place: Place, _: None) -> None:
    place.worker.close()


def compare_clocks(comm: Any, first: int, own: ShardClock) -> ShardClock:
    """``own`` with its offset to the clock of rank ``first``: a call of all ranks of ``comm`` together."""
    found = None
    if comm.Get_rank() == first:
        found = [(0, 0) if rank == first else _exchange(comm, rank) for rank in range(comm.Get_size())]
    else:
        for _ in range(EXCHANGES):
            comm.recv(source=first)
            comm.send(now_ns(), dest=first)
    offset_ns, error_ns = comm.scatter(found, root=first)
    return replace(own, offset_ns=offset_ns, error_ns=error_ns)


def _exchange(comm: Any, rank: int) -> tuple[int, int]:
    """This rank's clock − that of ``rank``, and how wrong that may be."""
    their = measure_offset(realtime=lambda: int(comm.sendrecv(None, dest=rank, source=rank)), tries=EXCHANGES)
    return -their.offset_ns, their.error_ns
