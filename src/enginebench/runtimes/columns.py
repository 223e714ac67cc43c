"""What a round leaves, in columns: a million arrivals, or chunks, in some tens of bytes each.

Both logs are sequences of the objects that they hold, which are made when they are asked for. Nothing is interpreted.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from enginebench.runtimes.base import UNKNOWN, Arrival, Chunk

Rows: TypeAlias = NDArray[np.intp]

_FOLD = 512  # arrivals that wait as objects: few enough to fold between two reads, many enough to be worth it


class ArrivalLog(Sequence[Arrival]):
    """Arrivals in order. Those of one log have payloads of one kind: bytes or ids (empty ones are of either)."""

    def __init__(self, arrivals: Iterable[Arrival] = ()) -> None:
        self._new: list[Arrival] = []
        self._request_index, self._stamp_ns, self._read_ns = array("i"), array("q"), array("q")
        self._size, self._end = (
            array("i"),
            array("q"),
        )  # of each payload; where it ends in its request's bytes, or in ids
        self._ended = bytearray()
        self._errors: dict[int, str] = {}
        self._bytes: dict[int, bytearray] = defaultdict(bytearray)  # by request, so that they can be freed one by one
        self._ids = array("i")
        for arrival in arrivals:
            self.append(arrival)

    def append(self, arrival: Arrival) -> None:
        """Keep ``arrival``."""
        self._new.append(arrival)
        if len(self._new) >= _FOLD:
            self._fold()

    def __len__(self) -> int:
        return len(self._request_index) + len(self._new)

    @overload
    def __getitem__(self, place: int) -> Arrival: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Arrival]: ...
    def __getitem__(self, place: int | slice) -> Arrival | Sequence[Arrival]:
        """The arrival at ``place``, or the list of those in a slice."""
        self._fold()
        if isinstance(place, slice):
            return [self._at(row) for row in range(*place.indices(len(self)))]
        return self._at(range(len(self))[place])

    def __iter__(self) -> Iterator[Arrival]:
        self._fold()
        return map(self._at, range(len(self)))

    @property
    def last_stamp_ns(self) -> int | None:
        """The latest stamp; None when nothing arrived."""
        self._fold()
        return max(self._stamp_ns, default=None)

    @property
    def tokens(self) -> int:
        """How many ids came; where bytes did, the number of arrivals."""
        self._fold()
        return len(self._ids) or len(self)

    @property
    def errors(self) -> Mapping[int, str]:
        """What is wrong with the arrivals that have an error, by row."""
        self._fold()
        return self._errors

    def by_request(self) -> Iterator[tuple[int, Rows]]:
        """The rows of each request, in order; requests in the order of their indexes."""
        self._fold()
        indexes = np.frombuffer(self._request_index, dtype=np.intc)
        order = np.argsort(indexes, kind="stable")
        cuts = np.flatnonzero(np.diff(indexes[order])) + 1
        for rows in np.split(order, cuts) if len(order) else ():
            yield int(indexes[rows[0]]), rows

    def reads(self, rows: Rows) -> tuple[bytes, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """All bytes of the request with these ``rows``; where each row's end, their stamps, when they were read."""
        body = bytes(self._bytes[self._request_index[rows[0]]])
        ends, stamps, reads = (
            np.frombuffer(column, dtype=np.int64)[rows] for column in (self._end, self._stamp_ns, self._read_ns)
        )
        return body, ends, stamps, reads

    def forget(self, request_index: int) -> None:
        """Free the bytes of a request: its arrivals stay, without a payload."""
        self._fold()
        self._bytes[request_index] = bytearray()

    def _at(self, row: int) -> Arrival:
        index, where = self._request_index[row], slice(self._end[row] - self._size[row], self._end[row])
        payload: Sequence[int] | bytes = tuple(self._ids[where]) if self._ids else bytes(self._bytes[index][where])
        return Arrival(
            index,
            self._stamp_ns[row],
            payload,
            bool(self._ended[row]),
            self._errors.get(row),
            self._read_ns[row],
        )

    def _fold(self) -> None:
        new, self._new = self._new, []
        if not new:
            return
        indexes, stamps, payloads, ended, errors, reads = zip(*new, strict=True)
        row = len(self._request_index)
        self._request_index.extend(indexes)
        self._stamp_ns.extend(stamps)
        self._read_ns.extend(reads)
        self._ended.extend(ended)
        self._size.extend(map(len, payloads))
        if any(errors):
            self._errors |= {row + place: error for place, error in enumerate(errors) if error}
        for index, payload in zip(indexes, payloads, strict=True):
            if isinstance(payload, bytes):
                body = self._bytes[index]
                body += payload
                self._end.append(len(body))
            else:
                self._ids.extend(payload)
                self._end.append(len(self._ids))


class ChunkLog(Sequence[Chunk]):
    """Chunks in order."""

    def __init__(self) -> None:
        self.request_index, self.stamp_ns, self.read_ns = array("i"), array("q"), array("q")
        self.tokens = array("i")  # -1: not counted
        self.prompt_tokens, self.total_tokens = array("i"), array("i")  # -1: not told
        self.token_ids = array("i")  # of all chunks, one after the other
        self._id_end = array("q", [0])
        self.errors: dict[int, str] = {}  # by row

    @classmethod
    def of(cls, chunks: Sequence[Chunk]) -> "ChunkLog":
        """``chunks`` as a log: the same object if they are one."""
        if isinstance(chunks, cls):
            return chunks
        log = cls()
        for chunk in chunks:
            prompt_tokens = UNKNOWN if chunk.prompt_tokens is None else chunk.prompt_tokens
            total_tokens = UNKNOWN if chunk.total_tokens is None else chunk.total_tokens
            log.add(
                chunk.request_index, chunk.stamp_ns, chunk.read_ns, chunk.tokens, chunk.token_ids, prompt_tokens,
                total_tokens, chunk.error,
            )  # fmt: skip
        return log

    def add(  # noqa: PLR0917 - one call a chunk: names would cost as much as the work
        self,
        request_index: int,
        stamp_ns: int,
        read_ns: int,
        tokens: int,
        token_ids: Sequence[int] = (),
        prompt_tokens: int = UNKNOWN,
        total_tokens: int = UNKNOWN,
        error: str | None = None,
    ) -> None:
        """Append one chunk; -1 is unknown."""
        if error:
            self.errors[len(self.stamp_ns)] = error
        self.request_index.append(request_index)
        self.stamp_ns.append(stamp_ns)
        self.read_ns.append(read_ns)
        self.tokens.append(tokens)
        self.prompt_tokens.append(prompt_tokens)
        self.total_tokens.append(total_tokens)
        self.token_ids.extend(token_ids)
        self._id_end.append(len(self.token_ids))

    def sort(self) -> None:
        """Put the chunks in the order of their stamps, a column at a time; those of one stamp stay as they are."""
        order = np.argsort(np.frombuffer(self.stamp_ns, dtype=np.int64), kind="stable")
        ends = np.frombuffer(self._id_end, dtype=np.int64)
        sizes = np.diff(ends)[order]
        new_ends = np.concatenate([[0], np.cumsum(sizes)])
        places = np.repeat(ends[:-1][order] - new_ends[:-1], sizes)
        places += np.arange(len(places))
        del ends
        self.token_ids = _taken(self.token_ids, places)
        self._id_end = array("q", new_ends.astype(np.int64).tobytes())
        for name in ("request_index", "stamp_ns", "read_ns", "tokens", "prompt_tokens", "total_tokens"):
            setattr(self, name, _taken(getattr(self, name), order))
        new_row = {int(old): row for row, old in enumerate(order.tolist())} if self.errors else {}
        self.errors = {new_row[row]: error for row, error in self.errors.items()}

    def __len__(self) -> int:
        return len(self.stamp_ns)

    @overload
    def __getitem__(self, place: int) -> Chunk: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Chunk]: ...
    def __getitem__(self, place: int | slice) -> Chunk | Sequence[Chunk]:
        """The chunk at ``place``, or the list of those in a slice."""
        if isinstance(place, slice):
            return [self._at(row) for row in range(*place.indices(len(self)))]
        return self._at(range(len(self))[place])

    def _at(self, row: int) -> Chunk:
        ids = tuple(self.token_ids[self._id_end[row] : self._id_end[row + 1]])
        tokens, total, prompt = self.tokens[row], self.total_tokens[row], self.prompt_tokens[row]
        return Chunk(
            self.request_index[row],
            self.stamp_ns[row],
            ids,
            self.errors.get(row),
            None if prompt == UNKNOWN else prompt,
            counted=tokens != UNKNOWN,
            count=tokens if tokens not in (UNKNOWN, len(ids)) else None,
            total_tokens=None if total == UNKNOWN else total,
            read_ns=self.read_ns[row],
        )


def _taken(column: "array[int]", places: Rows) -> "array[int]":
    """The values of ``column`` at ``places``."""
    return array(column.typecode, np.frombuffer(column, dtype=column.typecode)[places].tobytes())
