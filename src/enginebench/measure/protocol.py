"""What harness and worker say to each other: messages over two pipes, versioned, without pickle.

A message is a length (u32, little-endian), that many bytes of JSON, then the raw buffers whose sizes stand in its
``blobs``. The worker greets with ``hello``; then it answers one operation after the other::

    open {runtime, options} → opened {facts}          prepare {requests, load, ...} → prepared
    run {start_at_ns} → progress {tokens, ended}*, done {...}       fetch → record (blobs)          close → closed
    profile {kind, directory} → profiling {reason}       profiled → profile {...}        (around a run)

or, to any of them, ``error {kind, message}``, where ``kind`` names a class of ``enginebench.errors``. Standard library
only.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from enginebench import errors
from enginebench.errors import EnginebenchError, WorkerError
from enginebench.plan.requests import Request, Sampling

PROTOCOL_VERSION = 2

_LENGTH = struct.Struct("<I")
_MAX_HEADER_BYTES = 256 * 2**20  # beyond this it is not a length that was read


@dataclass(frozen=True, slots=True)
class Message:
    """An operation or an answer: what it is, what it says, and buffers."""

    op: str
    body: Mapping[str, Any]
    blobs: Sequence[bytes] = ()


def write_message(
    write: Callable[[bytes], object], op: str, body: Mapping[str, Any], blobs: Sequence[bytes] = ()
) -> None:
    """Hand one message to ``write``, which must take all of what it is given. Raises what ``write`` raises."""
    header = json.dumps({**body, "op": op, "blobs": [len(blob) for blob in blobs]}).encode()
    write(b"".join([_LENGTH.pack(len(header)), header, *blobs]))


def read_message(read: Callable[[int], bytes]) -> Message | None:
    """Read one message; None when the stream ended before it. ``read(n)`` gives n bytes, or fewer at the end.

    Raises:
        WorkerError: the stream ended within a message, or does not speak the protocol.
    """
    start = read(_LENGTH.size)
    if not start:
        return None
    length = _LENGTH.unpack(_whole(start, _LENGTH.size))[0]
    if length > _MAX_HEADER_BYTES:
        raise WorkerError("The worker's pipe carries something that is not the protocol: a library wrote to it.")
    try:
        body = json.loads(_whole(read(length), length))
        op, sizes = body.pop("op"), body.pop("blobs")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WorkerError(f"The worker's pipe carries something that is not the protocol ({error}).") from error
    return Message(op, body, [_whole(read(size), size) for size in sizes])


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise WorkerError(f"The worker's pipe ended in the middle of a message ({len(data)} of {size} bytes).")
    return data


def error_body(error: Exception) -> dict[str, str]:
    """The body of an ``error`` message. Errors that are not enginebench's own mean that a runtime broke."""
    if isinstance(error, EnginebenchError):
        return {"kind": type(error).__name__, "message": str(error)}
    return {"kind": "SessionError", "message": f"The runtime broke with {type(error).__name__}: {error}."}


def to_error(body: Mapping[str, Any]) -> EnginebenchError:
    """The inverse of ``error_body``."""
    kind: type[EnginebenchError] = getattr(errors, str(body.get("kind")), WorkerError)
    return kind(str(body.get("message", "")))


def requests_to_json(requests: Sequence[Request]) -> list[dict[str, Any]]:
    """Requests for a ``prepare`` message."""
    return [asdict(request) for request in requests]


def requests_from_json(items: Sequence[Mapping[str, Any]]) -> list[Request]:
    """The inverse of ``requests_to_json``."""
    return [
        Request(**{**item, "prompt_ids": tuple(item["prompt_ids"]), "sampling": Sampling(**item["sampling"])})
        for item in items
    ]
