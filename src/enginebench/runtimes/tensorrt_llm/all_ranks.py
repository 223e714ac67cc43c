"""Static batches on several ranks: every rank must run every batch, so rank 0 tells the others what comes next.

Over MPI, which TensorRT-LLM brings along (mpi4py) and which started the ranks. A rank that dies alone leaves the others
waiting for it: the harness then ends them all.
"""

from typing import Any

from enginebench.errors import SessionError


class AllRanks:
    """The ranks that were started together; asked on one thread."""

    def __init__(self) -> None:
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise SessionError(f"Several ranks need mpi4py, which this interpreter has not ({error}).") from error
        self._world = MPI.COMM_WORLD
        self.rank = int(self._world.Get_rank())

    def share(self, batch: Any) -> Any:
        """What rank 0 gives, on every rank; waits until all ask."""
        return self._world.bcast(batch, root=0)
