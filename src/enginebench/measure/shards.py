"""The client over several processes: what one ``Worker`` does, done by N of them together.

``Shards`` divides the requests of a round, lets every shard start at the same moment, and puts one record together.
Where the shards are is a crew's business: ``LocalCrew`` has worker processes on this host, each driven by a thread;
``ranks.RankCrew`` has one on every MPI rank. A crew is no more than a ``map`` as ``concurrent.futures`` has it, in
which each item is another shard's. How a load is divided is ``sharding``'s.
"""

import os
import platform
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from enginebench.clock import now_ns
from enginebench.errors import WorkerError
from enginebench.measure.driver import OnProgress
from enginebench.measure.records import RoundRecord
from enginebench.measure.sharding import ShardClock, ShardRecord, merge, split
from enginebench.measure.worker_process import Worker
from enginebench.plan.load import Load
from enginebench.plan.requests import Request

LEAD_NS = 250_000_000
"""From the moment when all shards are ready to their common start: what it takes to tell them, and to get going."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Place(Protocol):
    """Where one shard is."""

    @property
    def worker(self) -> Worker:
        """Its process."""

    @property
    def clock(self) -> ShardClock:
        """What it stamps with."""

    def start_at_ns(self, lead_ns: int) -> int:
        """Agree with all other shards on a start ``lead_ns`` from now; return it in the shard's own clock."""


class Crew(Protocol):
    """The places of all shards."""

    @property
    def hears_progress(self) -> bool:
        """Whether a place can be handed a function of this process, to tell its progress to."""

    @property
    def size(self) -> int:
        """How many shards there are."""

    @property
    def pids(self) -> Sequence[int]:
        """The processes of shards on this host, as far as they are known."""

    def map(self, function: Callable[[Place, Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Call ``function`` at every place at the same time, each with another item; answers in the items' order.

        Which place takes which item may change from call to call. Raises what a call raised.
        """

    def check_alive(self) -> None:
        """Raise WorkerError when a process on this host has ended. Also from within a call, which is not waited for."""

    def close(self) -> None:
        """End every process. May be called twice."""


class Shards:
    """A client of several processes, with the interface of a ``Worker``. Any method may raise WorkerError."""

    def __init__(self, crew: Crew):
        self._crew = crew
        self._load: Load | None = None
        self.parts: Sequence[ShardRecord] = ()  # of the round that was fetched last: what each shard recorded
        self.facts: Mapping[str, Any] = {}
        self.observed: Mapping[str, Any] = {}  # nothing: an engine in process is never divided

    @classmethod
    def start(cls, count: int, log_path: Path) -> "Shards":
        """Start ``count`` workers on this host; ``log_path`` gets the number of the shard in its name."""
        return cls(LocalCrew(count, log_path))

    @property
    def size(self) -> int:
        """How many shards there are."""
        return self._crew.size

    @property
    def pids(self) -> Sequence[int]:
        """The process ids of the shards on this host."""
        return self._crew.pids

    def check_alive(self) -> None:
        """Raise WorkerError when a process has ended. May be called while a round is under way."""
        self._crew.check_alive()

    def open(self, runtime: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Open a session in every shard; return the facts of one, and the place and clock of each."""
        opened = self._crew.map(_open, [(runtime, options)] * self._crew.size)
        self.facts = {**opened[0][0], "shards": [said for _, said in opened]}
        return self.facts

    def prepare(
        self,
        requests: Sequence[Request],
        *,
        load: Load,
        round_index: int,
        warmup: bool,
        stall_timeout_s: float,
        block: int = 0,
    ) -> None:
        """Divide the requests of the next round, and hand every shard its part."""
        self._load, self.parts = load, ()
        settings = {"round_index": round_index, "warmup": warmup, "stall_timeout_s": stall_timeout_s, "block": block}
        parts = split(load, requests, self._crew.size)
        self._crew.map(_prepare, [{"requests": part.requests, "load": part.load, **settings} for part in parts])

    def run(self, on_progress: OnProgress | None = None) -> Mapping[str, Any]:
        """Drive the prepared round in all shards to its end; return ``makespan_s`` of the longest, and sums.

        ``on_progress`` takes sums, too; nothing is heard of MPI ranks before the end.
        """
        told: list[OnProgress | None] = [None] * self._crew.size
        if on_progress is not None and self._crew.hears_progress:
            tally = Tally(on_progress, self._crew.size)
            told = [tally.of(shard) for shard in range(self._crew.size)]
        done = self._crew.map(_run, told)
        return {
            "makespan_s": max(each["makespan_s"] for each in done),
            "arrivals": sum(each["arrivals"] for each in done),
            "given_up": sum(each["given_up"] for each in done),
        }

    def fetch(self) -> RoundRecord:
        """The record of the round that was run last, put together; once."""
        if self._load is None:
            raise WorkerError("The shards were asked for a record before a round was prepared.")
        self.parts = self._each(_fetch)
        return merge(self._load, self.parts)

    def close(self) -> None:
        """Close every session and end every process. May be called twice."""
        self._crew.close()

    def _each(self, function: Callable[[Place, None], Answer]) -> list[Answer]:
        return self._crew.map(function, [None] * self._crew.size)


Client: TypeAlias = Worker | Shards


def pids_of(client: Client) -> Sequence[int]:
    """The processes of a client on this host."""
    return client.pids if isinstance(client, Shards) else (client.pid,)


# --- What is done at a place: by its own name, because it may have to be sent there --------------------------------


def _open(place: Place, what: tuple[str, Mapping[str, Any]]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    return place.worker.open(*what), {"pid": place.worker.pid, **place.clock.as_json()}


def _prepare(place: Place, what: Mapping[str, Any]) -> None:
    place.worker.prepare(**what)


def _run(place: Place, on_progress: OnProgress | None) -> Mapping[str, Any]:
    return place.worker.run(on_progress, place.start_at_ns(LEAD_NS))


def _fetch(place: Place, _: None) -> ShardRecord:
    return ShardRecord(place.worker.fetch(), place.clock)


class Tally:
    """Adds up the progress of several shards, which tell it from threads of their own."""

    def __init__(self, on_progress: OnProgress, shards: int):
        self._on_progress = on_progress
        self._known = [(0, 0)] * shards
        self._lock = threading.Lock()

    def of(self, shard: int) -> OnProgress:
        """What one shard tells its progress to."""

        def told(tokens: int, ended: int) -> None:
            with self._lock:
                self._known[shard] = (tokens, ended)
                self._on_progress(sum(each for each, _ in self._known), sum(each for _, each in self._known))

        return told


# --- On this host ----------------------------------------------------------------------------------------------------


def clock_of_this_host() -> ShardClock:
    """CLOCK_MONOTONIC, as every process on this host has it."""
    return ShardClock(platform.node(), _BOOT_ID.read_text().strip())


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A worker of this process."""

    worker: Worker
    clock: ShardClock
    start: "CommonStart"

    def start_at_ns(self, lead_ns: int) -> int:
        """``lead_ns`` after the last of the threads got here."""
        return self.start.at_ns(lead_ns)


class CommonStart:
    """Lets the threads that drive shards agree on a moment."""

    def __init__(self, count: int):
        self._barrier = threading.Barrier(count, self._all_here)
        self._here_ns = 0

    def _all_here(self) -> None:
        self._here_ns = now_ns()

    def at_ns(self, lead_ns: int) -> int:
        """Wait for the others; return a moment ``lead_ns`` after they were all there."""
        self._barrier.wait()
        return self._here_ns + lead_ns


class LocalCrew:
    """Worker processes on this host. A call that fails ends all of them: a round without one of its parts is none."""

    hears_progress = True

    def __init__(self, count: int, log_path: Path):
        start, clock = CommonStart(count), clock_of_this_host()
        self._places: list[LocalPlace] = []
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="shard")
        self._calls: Iterable[Future[Any]] = ()
        try:
            for shard in range(count):  # by this thread: its end is theirs, too
                log = log_path.with_name(f"{log_path.stem}-shard{shard}{log_path.suffix}")
                self._places.append(LocalPlace(Worker.start(None, log), clock, start))
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many shards there are."""
        return len(self._places)

    @property
    def pids(self) -> Sequence[int]:
        """The process id of each shard."""
        return [place.worker.pid for place in self._places]

    def map(self, function: Callable[[Place, Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Call ``function`` for every worker in a thread of its own, with the item of the same place in the order."""
        calls = [self._pool.submit(function, *each) for each in zip(self._places, items, strict=True)]
        self._calls = calls
        try:
            wait(calls, return_when=FIRST_EXCEPTION)
            failed = next((error for call in calls if call.done() and (error := call.exception())), None)
            if failed is not None:
                raise failed
        except BaseException:
            self._kill()
            raise
        return [call.result() for call in calls]

    def check_alive(self) -> None:
        """Raise WorkerError when a process has ended."""
        for place in self._places:
            place.worker.check_alive()

    def close(self) -> None:
        """Close every session and end every process."""
        for place in self._places:
            place.worker.close()
        self._pool.shutdown()

    def _kill(self) -> None:
        """End the processes, then wait for the threads that were reading from them."""
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        wait(self._calls)
