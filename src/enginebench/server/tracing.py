"""Triton's traces of single requests: switched on for some, read from the server's file, one request a tree of spans.

Tracing costs time: it is off but for requests that are sent for it. The file lies on the server's machine, so only a
server that is ours is traced. Stamps are the server's CLOCK_MONOTONIC, which a client on the same host shares.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginebench.errors import ServerError
from enginebench.server.plain_http import fetch_json

_FLUSH_TIMEOUT_S = 3.0
_ON: Mapping[str, Any] = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": "-1", "log_frequency": "0"}


@dataclass(slots=True)
class Span:
    """What Triton recorded of one request to one model."""

    id: int
    model: str = ""
    parent: int | None = None
    stamps_ns: dict[str, list[int]] = field(default_factory=dict)  # name → every occurrence, in order
    children: "list[Span]" = field(default_factory=list)

    def first_ns(self, name: str) -> int | None:
        """The first stamp of a name; None: there is none."""
        return next(iter(self.stamps_ns.get(name, ())), None)

    def all_of(self, model: str) -> "list[Span]":
        """The spans of ``model`` below this one, at any depth, in the order of their arrival."""
        found = [each for child in self.children for each in ([child] if child.model == model else child.all_of(model))]
        return sorted(found, key=lambda span: span.first_ns("REQUEST_START") or 0)


def trace_arguments(file: Path) -> list[str]:
    """What ``tritonserver`` must be told at its start, so that it can be asked for traces later; none are taken."""
    settings = ("mode=triton", f"triton,file={file}", "level=OFF", "rate=1", "count=-1")
    return [f"--trace-config={setting}" for setting in settings]


@contextmanager
def traced(url: str) -> Iterator[None]:
    """Trace every request to the server at ``url`` inside the context.

    Raises:
        ServerError: the server cannot trace.
    """
    fetch_json(f"{url}/v2/trace/setting", _ON)
    try:
        yield
    finally:
        fetch_json(f"{url}/v2/trace/setting", {"trace_level": ["OFF"]})  # which also writes the file


def take_spans(file: Path, requests: int) -> list[Span]:
    """The spans of ``requests`` requests that were traced last, and remove the file.

    Raises:
        ServerError: the server wrote no such file in time, or it holds another number of requests.
    """
    deadline_s = time.monotonic() + _FLUSH_TIMEOUT_S
    found: list[Span] = []
    while len(found) < requests and time.monotonic() < deadline_s:
        time.sleep(0.05)
        found = _read(file)
    file.unlink(missing_ok=True)
    if len(found) != requests:
        raise ServerError(
            f"Triton traced {len(found)} of {requests} requests in {file}: something else was asked, too."
        )
    return found


def read_spans(entries: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The requests in the entries of a trace file: those without a parent, in the order of their arrival."""
    spans: dict[int, Span] = {}
    for entry in entries:
        span = spans.setdefault(entry["id"], Span(entry["id"]))
        span.model = entry.get("model_name", span.model)
        span.parent = entry.get("parent_id") or span.parent
        for stamp in entry.get("timestamps", ()):
            span.stamps_ns.setdefault(stamp["name"], []).append(stamp["ns"])
    roots = []
    for span in spans.values():
        parent = spans.get(span.parent) if span.parent else None
        (parent.children if parent else roots).append(span)
    return sorted(roots, key=lambda span: span.first_ns("REQUEST_START") or 0)


def _read(file: Path) -> list[Span]:
    """Nothing while the file is being written."""
    try:
        return read_spans(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
