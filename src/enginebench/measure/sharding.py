"""One round divided over several processes, and put together again. Pure: no process, no clock is touched here.

Each request goes to exactly one shard and keeps its index, its seed and its place in the schedule, so that all shards
together send what one process would have sent:

* rate: in the order of the schedule, request *k* goes to shard *k* mod N. Offsets are those of the whole schedule, so
  that the union is that schedule to the nanosecond, whatever it was drawn from.
* concurrency: the places are divided (10 over 4: 3, 3, 2, 2), place *p* to shard *p* mod N, and request *k* to where
  place *k* mod level is. A place that is free takes the next request of its own shard, not of all: near the end one
  shard may have none left while another still has some.
* batch: a batch waits for the end of all of the one before, which no shard can know alone. A round that is one single
  batch is divided; more batches stay together, on the first shard.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import WorkerError
from enginebench.measure.records import ChunkTable, Ints, RequestTable, RoundRecord, columns, int_array
from enginebench.plan.load import Batch, Concurrency, Load, load_to_json
from enginebench.plan.requests import Request


class Part(NamedTuple):
    """What one shard is to do in a round; it may have no requests."""

    load: Load
    requests: list[Request]


@dataclass(frozen=True, slots=True)
class ShardClock:
    """The clock that a shard stamps with: its host's CLOCK_MONOTONIC."""

    host: str
    boot_id: str  # of the kernel that runs there: shards with the same one share the clock
    offset_ns: int = 0  # of the clock that records are put together in − this one
    error_ns: int = 0  # the offset is right to this much; 0: it is the same clock

    def as_json(self) -> dict[str, Any]:
        """As it stands in the facts of a session."""
        return asdict(self)


class ShardRecord(NamedTuple):
    """What one shard gave back, in its own clock."""

    record: RoundRecord
    clock: ShardClock


def split(load: Load, requests: Sequence[Request], shards: int) -> list[Part]:
    """Divide a round over ``shards``. The requests of a part stand in the order in which they are to leave."""
    places = _places(load, requests, shards)
    parts = [Part(_share(load, len(requests), places, shard, shards), []) for shard in range(shards)]
    for position, request in enumerate(sorted(requests, key=lambda request: (request.offset_ns, request.index))):
        parts[position % places % shards].requests.append(request)
    return parts


def merge(load: Load, parts: Sequence[ShardRecord]) -> RoundRecord:
    """One record of the parts of a round: requests by index, chunks by stamp, in the clock of offset 0.

    Each shard's chunks stay in the order in which it saw them. What is computed within a request (TTFT, TPOT, ITL, E2E,
    slip) has all its stamps from one shard, so that errors of offsets between hosts only touch windows over requests.

    Raises:
        WorkerError: the parts are not of one round, or a request is in two of them.
    """
    records = [_shifted(*part) for part in parts]
    kinds = {(each.round_index, each.warmup, each.block, each.stamp_kind) for each in records}
    if len(kinds) != 1:
        raise WorkerError("The shards gave back different rounds: restart the run.")
    busy = [record for record in records if len(record.requests)]
    return replace(
        records[0],
        streaming=all(record.streaming for record in records),
        load=load_to_json(load),
        started_ns=min((record.started_ns for record in busy), default=0),
        ended_ns=max((record.ended_ns for record in busy), default=0),
        clock_stepped=any(record.clock_stepped for record in records),
        requests=_requests([record.requests for record in records]),
        chunks=_chunks([record.chunks for record in records]),
    )


def _places(load: Load, requests: Sequence[Request], shards: int) -> int:
    """Requests go to this many places in turn; place *p* is on shard *p* mod N."""
    if isinstance(load, Concurrency):
        return load.level
    if isinstance(load, Batch) and len(requests) > load.size:
        return 1
    return shards


def _share(load: Load, requests: int, places: int, shard: int, shards: int) -> Load:
    """The load of a shard. An open loop's stays whole: its requests say when they leave."""
    if isinstance(load, Concurrency):  # with the requests of the round, from which indices of repeated ones follow
        return replace(load, level=len(range(shard, places, shards)), requests=load.requests or requests)
    if isinstance(load, Batch) and places > 1:
        return Batch(max(1, len(range(shard, requests, shards))))
    return load


def _shifted(record: RoundRecord, clock: ShardClock) -> RoundRecord:
    if not clock.offset_ns:
        return record
    return replace(
        record,
        started_ns=record.started_ns + clock.offset_ns,
        ended_ns=record.ended_ns + clock.offset_ns,
        requests=_shifted_table(record.requests, clock.offset_ns),
        chunks=_shifted_table(record.chunks, clock.offset_ns),
    )


def _shifted_table(table: Any, offset_ns: int) -> Any:
    stamps = {name: values for name, values in columns(table).items() if name.endswith("_ns")}
    return replace(table, **{name: np.where(each > 0, each + offset_ns, each) for name, each in stamps.items()})


def _requests(tables: Sequence[RequestTable]) -> RequestTable:
    index = np.concatenate([table.index for table in tables])
    order = np.argsort(index, kind="stable")
    if np.any(np.diff(index[order]) == 0):
        raise WorkerError("Two shards drove the same request: restart the run.")
    return RequestTable(
        **{name: _ordered([columns(each)[name] for each in tables], order) for name in columns(tables[0])}
    )


def _chunks(tables: Sequence[ChunkTable]) -> ChunkTable:
    order = np.argsort(np.concatenate([np.maximum.accumulate(table.stamp_ns) for table in tables]), kind="stable")
    names = [name for name in columns(tables[0]) if name != "token_ids"]
    ordered = {name: _ordered([columns(each)[name] for each in tables], order) for name in names}
    return ChunkTable(**ordered, token_ids=_token_ids(tables, order))


def _token_ids(tables: Sequence[ChunkTable], order: NDArray[np.int64]) -> Ints:
    """The ids of each chunk in the new order; none when one of the tables has none for its tokens."""
    counts = np.concatenate([np.maximum(table.tokens, 0) for table in tables]).astype(np.int64)
    ids = np.concatenate([table.token_ids for table in tables])
    if len(ids) != counts.sum():
        return int_array([])
    starts = (np.cumsum(counts) - counts)[order]
    counts = counts[order]
    within = np.arange(len(ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    ordered: Ints = ids[np.repeat(starts, counts) + within]
    return ordered


def _ordered(parts: Sequence[Any], order: NDArray[np.int64]) -> Any:
    if isinstance(parts[0], tuple):
        values = [value for part in parts for value in part]
        return tuple(values[row] for row in order)
    return np.concatenate(parts)[order]
