"""Triton's ``generate`` and ``generate_stream`` over HTTP, for the ensemble, the BLS and the core model.

Ties the reactor to the messages. What a model is asked follows from the metadata that the server gives when the
session opens. It loads and starts nothing, and does not know how the server works inside.
"""

import json
import socket
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from enginebench.builds.tokenizer import Tokenizer, tokenizer_from_spec
from enginebench.clock import now_ns
from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue, StampKind
from enginebench.runtimes.http_client import HttpClient
from enginebench.runtimes.http_connection import Address, Outgoing
from enginebench.runtimes.triton_messages import EVENT_STREAM, JSON, Model, decode, explain, read_model

_OPEN_TIMEOUT_S = 10.0
_SETTLE_NS = 250_000_000  # the core looks for requests whose client has gone every 100 ms, and tells nobody


def open_session(options: Mapping[str, JsonValue]) -> "TritonSession":
    """Open a session from ``url``, ``model``, ``connections`` (default 1) and ``tokenizer`` (spec or null).

    Raises SessionError when the server cannot be reached, or has no such model.
    """
    match options:
        case {"url": str(url), "model": str(model)}:
            spec, connections = options.get("tokenizer"), options.get("connections", 1)
            tokenizer = tokenizer_from_spec(spec) if isinstance(spec, Mapping) else None
            if not isinstance(connections, int) or connections < 1:
                raise SessionError(f"The triton_http runtime cannot open {connections!r} connections: give 1 or more.")
            return TritonSession(url, model, connections, tokenizer)
    raise SessionError(
        "The triton_http runtime needs the options 'url' and 'model', e.g. http://127.0.0.1:8000, ensemble."
    )


class TritonSession:
    """A session on one model of a running server."""

    def __init__(self, url: str, model: str, connections: int, tokenizer: Tokenizer | None = None) -> None:
        self._url = url
        self._tokenizer = tokenizer
        self._host, address = _resolve(url)
        self._server, self._model, self._decoupled = _describe(self._host, model)
        self._requests: dict[int, Request] = {}
        self._cancelled_ns = 0  # when a connection was last closed for it
        self._client = HttpClient(address, lambda *response: explain(model, *response))
        self.stamp_kind: StampKind = self._client.stamp_kind
        try:
            self._client.connect(connections, _OPEN_TIMEOUT_S)
        except SessionError:
            self._client.close()
            raise

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Send ``requests``; return the stamp (ns) just before each left. Raises SessionError for unknown sampling."""
        outgoing = [self._outgoing(request) for request in requests]  # all are written before the first one leaves
        return self._client.submit(outgoing)

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did."""
        return self._client.poll(timeout_s)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Read the events and turn text into ids; to be called before the next round's requests are submitted."""
        known = self._tokenizer if self._tokenizer and self._tokenizer.identifies_ids else None
        return decode(arrivals, self._requests, self._model, known)

    def cancel(self, request_index: int) -> None:
        """Close the request's connection where that stops the engine, else let it end unheard: ``drain`` waits for it.

        Triton tells the core model when a client is gone, but neither the ensemble nor the BLS model tells the core.
        """
        if self._model.takes_ids:
            self._client.cancel(request_index)
            self._cancelled_ns = now_ns()
        else:
            self._client.abandon(request_index)

    def drain(self, timeout_s: float) -> None:
        """Wait for the end of what was cancelled; arrivals of other requests are thrown away. Raises SessionError."""
        if not self._client.wait_idle(timeout_s):
            raise SessionError(
                f"Model {self._model.name} at {self._url} still works on {self._client.running} requests after "
                f"{timeout_s:g} s: restart the server, or wait longer."
            )
        if self._cancelled_ns:
            time.sleep(max(0, self._cancelled_ns + _SETTLE_NS - now_ns()) / 1e9)

    def facts(self) -> Mapping[str, JsonValue]:
        """Server, model, capabilities, and what happened to the connections so far."""
        client = self._client
        return {
            "runtime": "triton_http",
            "url": self._url,
            "model": self._model.name,
            "server_id": str(self._server.get("name")),
            "server_version": str(self._server.get("version")),
            "decoupled": self._decoupled,
            "takes_token_ids": self._model.takes_ids,
            "gives_token_ids": self._model.takes_ids,
            "text_identifies_ids": bool(self._tokenizer and self._tokenizer.identifies_ids),
            "exact_length_input": self._model.exact_length,
            "reports_prompt_tokens": "return_num_input_tokens" in self._model.inputs,
            "cancels": self._model.takes_ids,
            "loads": ["batch", "concurrency", "rate"],
            "connections_opened": client.opened,
            "requests_resent": client.resent,
            "reads": client.reads,
            "reads_without_kernel_stamp": client.reads_without_kernel_stamp,
            "clock_steps": client.clock_steps,
        }

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _outgoing(self, request: Request) -> Outgoing:
        if request.streaming and not self._decoupled:
            raise SessionError(
                f"Model {self._model.name} at {self._url} cannot stream: its transaction policy is not decoupled "
                "(set decoupled_mode:True in the core's config.pbtxt, or streaming: false in the scenario)."
            )
        self._requests[request.index] = request
        body = self._model.body(request)
        endpoint = "generate_stream" if request.streaming else "generate"
        head = (
            f"POST /v2/models/{self._model.name}/{endpoint} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return Outgoing(request.index, head.encode() + body, EVENT_STREAM if request.streaming else JSON)


def _resolve(url: str) -> tuple[str, Address]:
    """The host and port of ``url``, as text and as an address. Raises SessionError."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise SessionError(f"Server URL {url!r} cannot be used: write http://HOST:PORT, e.g. http://127.0.0.1:8000.")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SessionError(f"Host {parts.hostname} of {url} cannot be found: {error.strerror}.") from error
    family, _, _, _, where = found[0]
    return parts.netloc, (family, (str(where[0]), int(where[1])))


def _describe(host: str, model: str) -> tuple[Mapping[str, Any], Model, bool]:
    """Ask the server who it is, what the model declares, and whether it may stream. Raises SessionError."""
    connection = HTTPConnection(host, timeout=_OPEN_TIMEOUT_S)
    try:
        server = _get(connection, "/v2")
        metadata = _get(connection, f"/v2/models/{model}")
        config = _get(connection, f"/v2/models/{model}/config")
    except (OSError, HTTPException, ValueError) as error:
        raise SessionError(f"No Triton server answers at http://{host}: {error}.") from error
    finally:
        connection.close()
    return server, read_model(metadata), bool(config.get("model_transaction_policy", {}).get("decoupled"))


def _get(connection: HTTPConnection, path: str) -> Mapping[str, Any]:
    connection.request("GET", path)
    response = connection.getresponse()
    answer: Mapping[str, Any] = json.loads(response.read() or b"{}")
    if response.status != 200:
        raise SessionError(
            f"http://{connection.host}:{connection.port}{path} answered HTTP {response.status}: "
            f"{str(answer.get('error', 'no reason given')).rstrip('.')}."
        )
    return answer
