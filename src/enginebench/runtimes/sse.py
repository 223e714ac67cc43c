"""Server-sent events out of the bytes of a response: pure, and after the fact.

Takes the reads of one response with their stamps, and gives its events, each with the stamp of the read that
completed it, however the bytes were split or glued. What the data mean (JSON, ``[DONE]``) is the caller's. Grammar:
section 9.2.6 of https://html.spec.whatwg.org/; fields other than ``data`` are skipped, and an event that the stream
leaves unfinished is none.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

DONE = "[DONE]"
"""The data of the last event of an OpenAI-compatible stream: an end mark, not JSON."""

_LINE = re.compile(rb"([^\r\n]*)(?:\r\n|\r|\n)")
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
    body = b"".join(read.data for read in kept)
    stamp_at = _Stamps(kept)
    lines: list[bytes] = []
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        content: bytes = line[1]
        if content:
            field, _, value = content.partition(b":")
            if field == b"data":
                lines.append(value.removeprefix(b" "))
        elif lines:
            yield Event(stamp_at(line.end()), b"\n".join(lines).decode("utf-8", "replace"))
            lines.clear()


class _Stamps:
    """The stamp of the read that brought the byte before an offset; offsets must not fall."""

    def __init__(self, reads: tuple[Read, ...]):
        self._reads = iter(reads)
        self._end = 0
        self._stamp_ns = 0

    def __call__(self, end: int) -> int:
        while self._end < end:
            read = next(self._reads)
            self._end += len(read.data)
            self._stamp_ns = read.stamp_ns
        return self._stamp_ns
