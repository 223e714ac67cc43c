"""Records: what one round left, as arrays. A row per request and a row per arrival, in CLOCK_MONOTONIC nanoseconds.

Holds what happened and nothing computed from it: metrics are in ``metrics``, files in ``store``. Needs numpy alone,
because workers import it under the build's own interpreter. "Unknown" is -1 for a count and 0 for a stamp.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import WorkerError

Ints: TypeAlias = NDArray[np.int32]
Stamps: TypeAlias = NDArray[np.int64]

UNKNOWN = -1
_TABLES = ("requests", "chunks")

OUTCOMES = ("ok", "error", "stall", "short", "long", "cancelled", "wrong_input")
"""How a request ended; everything but ``ok`` is a failure. ``cancelled``: given up by the client, or never sent."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestTable:
    """A row per request of a round, in the order of release; every column has shape (requests,)."""

    index: Ints
    prompt_tokens: Ints  # as asked
    reported_prompt_tokens: Ints  # as the path reported it; -1 unknown
    requested_tokens: Ints
    intended_ns: Stamps  # when the load wanted it to leave; 0 never
    sent_ns: Stamps  # just before it left; 0 never
    first_ns: Stamps  # the first arrival with a token; 0 none
    last_ns: Stamps  # the last arrival with a token; 0 none
    tokens: Ints  # counted, or as the server says; -1: nobody tells
    first_tokens: Ints  # tokens in the first arrival that had one; -1: the path does not tell
    outcome: tuple[str, ...]
    error: tuple[str, ...]  # "" where there is nothing to say

    def __len__(self) -> int:
        return len(self.index)

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests got exactly what they asked for; shape (requests,)."""
        return np.array([outcome == "ok" for outcome in self.outcome], dtype=bool)


@dataclass(frozen=True, slots=True, eq=False)
class ChunkTable:
    """A row per arrival that carried tokens, in order; columns have shape (chunks,), but for ``token_ids``."""

    request: Ints  # RequestTable.index
    stamp_ns: Stamps
    read_ns: Stamps  # when the process had it in hand; minus stamp_ns: how late it was; -1 unknown
    tokens: Ints  # -1: the path does not tell
    token_ids: Ints  # all ids one after the other, shape (sum of the known tokens,), or none: the path gives no ids

    def __len__(self) -> int:
        return len(self.request)

    def ids(self) -> list[Ints]:
        """The token ids of each chunk."""
        return np.split(self.token_ids, self.id_ends()[:-1]) if len(self) else []

    def id_ends(self) -> NDArray[np.int64]:
        """Where the ids of each chunk end in ``token_ids``."""
        counts = np.maximum(self.tokens, 0) if len(self.token_ids) else np.zeros(len(self))
        return np.cumsum(counts, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class RoundRecord:
    """One pass over a cell's requests."""

    round_index: int
    warmup: bool
    block: int
    streaming: bool
    load: Mapping[str, Any]  # plan.load as JSON: kind, label, level and more
    stamp_kind: str
    started_ns: int  # release of the first request
    ended_ns: int  # last arrival; equal to started_ns when nothing arrived
    clock_stepped: bool  # CLOCK_REALTIME was set during the round
    requests: RequestTable
    chunks: ChunkTable

    @property
    def valid(self) -> bool:
        """False when the wall clock was set while stamps were taken from it (kernel stamps are CLOCK_REALTIME)."""
        return not (self.clock_stepped and self.stamp_kind == "kernel")

    @property
    def window_s(self) -> float:
        """From the release of the first request to the last arrival."""
        return (self.ended_ns - self.started_ns) / 1e9


def int_array(values: Sequence[int]) -> Ints:
    """``values`` as an array of counts."""
    return np.asarray(values, dtype=np.int32)


def stamp_array(values: Sequence[int]) -> Stamps:
    """``values`` as an array of stamps, ns."""
    return np.asarray(values, dtype=np.int64)


def columns(table: RequestTable | ChunkTable) -> dict[str, Any]:
    """The columns of ``table`` by name, without copying."""
    return {field.name: getattr(table, field.name) for field in fields(table)}


def head(record: RoundRecord) -> dict[str, Any]:
    """What is said of the round as a whole: every field but the tables; JSON."""
    return {field.name: getattr(record, field.name) for field in fields(record) if field.name not in _TABLES}


def to_frames(record: RoundRecord) -> tuple[dict[str, Any], list[bytes]]:
    """``record`` as a JSON header and raw little-endian buffers, for a pipe (no pickle: versions may differ)."""
    header: dict[str, Any] = {"head": head(record)}
    blobs: list[bytes] = []
    for name, table in (("requests", record.requests), ("chunks", record.chunks)):
        header[name] = {column: _packed(values, blobs) for column, values in columns(table).items()}
    return header, blobs


def from_frames(header: Mapping[str, Any], blobs: Sequence[bytes]) -> RoundRecord:
    """The inverse of ``to_frames``. Raises WorkerError for frames that are not a record."""
    try:
        requests = {column: _unpacked(spec, blobs) for column, spec in header["requests"].items()}
        chunks = {column: _unpacked(spec, blobs) for column, spec in header["chunks"].items()}
        return RoundRecord(requests=RequestTable(**requests), chunks=ChunkTable(**chunks), **header["head"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        message = (
            f"The worker's record cannot be read ({error}): worker and harness must be of the same enginebench version."
        )
        raise WorkerError(message) from error


def _packed(values: Any, blobs: list[bytes]) -> Any:
    if isinstance(values, tuple):
        return list(values)
    blobs.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return {"dtype": values.dtype.newbyteorder("<").str, "blob": len(blobs) - 1}


def _unpacked(spec: Any, blobs: Sequence[bytes]) -> Any:
    if isinstance(spec, list):
        return tuple(spec)
    return np.frombuffer(blobs[spec["blob"]], dtype=spec["dtype"])
