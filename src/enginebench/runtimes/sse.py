"""Server-sent events out of the bytes of a response: pure, and after the fact.

Takes the reads of one response with their stamps, and gives its events, each with the stamp of the read that
completed it, however the bytes were split or glued. What the data mean (JSON, ``[DONE]``) is the caller's. Grammar:
section 9.2.6 of https://html.spec.whatwg.org/; fields other than ``data`` are skipped, and an event that the stream
leaves unfinished is none.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

DONE = "[DONE]"
"""The data of the last event of an OpenAI-compatible stream: an end mark, not JSON."""

COMMENT = b":"
"""Begins a line that is no data: many servers send one every 15 seconds, to keep the connection."""

_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n)")
_FIELD, _BLANK = b"data: ", b"\n\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Read:
    """Bytes that one read of a socket brought, and when they arrived (CLOCK_MONOTONIC)."""

    stamp_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """The data of one event, and when its last byte arrived."""

    stamp_ns: int
    data: str  # invalid UTF-8 becomes U+FFFD


def events(reads: Iterable[Read]) -> Iterator[Event]:
    """Yield the events of one response, in order."""
    kept = tuple(reads)
    ends = list(accumulate(len(read.data) for read in kept))
    data, data_ends = split(b"".join(read.data for read in kept))
    for value, end in zip(data, data_ends, strict=True):
        yield Event(kept[bisect_left(ends, end)].stamp_ns, value.decode("utf-8", "replace"))


def split(body: bytes) -> tuple[list[bytes], list[int]]:
    """The data of each event in ``body``, and where each event ends in it."""
    if _is_plain(body):
        data = body[len(_FIELD) : -len(_BLANK)].split(_BLANK + _FIELD)
        overhead = len(_FIELD) + len(_BLANK)
        return data, list(accumulate(len(value) + overhead for value in data))
    return _split_any(body)


def _is_plain(body: bytes) -> bool:
    """Whether every event is one line of data, as nearly all servers write them: then there is a short way."""
    count = body.count(_BLANK)
    return (
        body.startswith(_FIELD)
        and body.endswith(_BLANK)
        and body.count(_BLANK + _FIELD) == count - 1
        and body.count(b"\n") == 2 * count
        and b"\r" not in body
    )


def _split_any(body: bytes) -> tuple[list[bytes], list[int]]:
    data: list[bytes] = []
    ends: list[int] = []
    lines: list[bytes] = []
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        content: bytes = line[1]
        if content:
            field, _, value = content.partition(b":")
            if field == b"data":
                lines.append(value.removeprefix(b" "))
        elif lines:
            data.append(b"\n".join(lines))
            ends.append(line.end())
            lines.clear()
    return data, ends
