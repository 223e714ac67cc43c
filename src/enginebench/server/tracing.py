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

_FLUSH_TIMEOUT_S = 10.0
_ON: Mapping[str, Any] = {
    "trace_level": ["TIMESTAMPS"],
    "trace_rate": "1",
    "trace_count": "-1",
    "log_frequency": "100000000",  # into a file of their own, FILE.N, which is whole once tracing is off
}
_OFF: Mapping[str, Any] = {"trace_level": ["OFF"], "log_frequency": "0"}


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


class Tracer:
    """Traces requests to one server that was started with ``trace_arguments``."""

    def __init__(self, url: str, file: Path) -> None:
        self._setting = f"{url}/v2/trace/setting"
        self._file = file

    @contextmanager
    def on(self) -> Iterator[None]:
        """Trace every request inside the context. Raises ServerError when the server cannot."""
        fetch_json(self._setting, _ON)
        try:
            yield
        finally:
            fetch_json(self._setting, _OFF)

    def take(self, requests: int) -> list[Span]:
        """The spans of the requests that were traced since the last time, in the order of their arrival.

        Raises:
            ServerError: the server did not write as many as there were ``requests`` in time.
        """
        deadline_s = time.monotonic() + _FLUSH_TIMEOUT_S
        found = self._written()
        while len(found) < requests and time.monotonic() < deadline_s:
            time.sleep(0.05)
            found = self._written()
        for file in self._files():
            file.unlink(missing_ok=True)
        if len(found) != requests:
            raise ServerError(f"Triton traced {len(found)} requests instead of {requests}: others were asked, too.")
        return found

    def _files(self) -> list[Path]:
        return sorted(self._file.parent.glob(f"{self._file.name}.*"))

    def _written(self) -> list[Span]:
        """None while a file is being written."""
        try:
            entries = [entry for file in self._files() for entry in json.loads(file.read_text(encoding="utf-8"))]
        except (OSError, ValueError):
            return []
        return read_spans(entries)


def read_spans(entries: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The requests in the entries of a trace file: those without a parent, in the order of their arrival."""
    spans: dict[int, Span] = {}
    for entry in entries:
        span = spans.setdefault(entry["id"], Span(entry["id"]))
        span.model = entry.get("model_name", span.model)
        span.parent = entry.get("parent_id") or span.parent
        for stamp in entry.get("timestamps", ()):
            span.stamps_ns.setdefault(stamp["name"], []).append(stamp["ns"])
    roots: list[Span] = []
    for span in spans.values():
        parent = spans.get(span.parent) if span.parent else None
        (parent.children if parent else roots).append(span)
    return sorted(roots, key=lambda span: span.first_ns("REQUEST_START") or 0)
