"""What the sessions over HTTP have in common: addresses, a pool of connections, and the requests that went out.

Several servers are replicas, which stand for one endpoint: requests go to them in turn, see ``requests.server_of``.
What is asked, and what the answers mean, is the business of each path.
"""

import json
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from enginebench.builds.tokenizer import Tokenizer, tokenizer_from_spec
from enginebench.clock import now_ns
from enginebench.errors import SessionError
from enginebench.plan.requests import Request, server_of
from enginebench.runtimes.answers import EVENT_STREAM, JSON, error_of, explain
from enginebench.runtimes.base import Arrival, JsonValue, StampKind
from enginebench.runtimes.http_client import HttpClient
from enginebench.runtimes.http_connection import Address, Outgoing

_OPEN_TIMEOUT_S = 10.0
_SETTLE_NS = 250_000_000  # servers look for clients that have gone every 100 ms or so, and tell nobody


class HttpSession(ABC):
    """Half of ``base.Session``: the other half decodes, and says what it knows. ``connections``: to each server."""

    def __init__(self, urls: Sequence[str], model: str, connections: int) -> None:
        self._urls, self._name = tuple(urls), model
        self._where = " and ".join(urls)
        self._hosts, addresses = zip(*map(resolve, urls), strict=True)
        at = [f"{model} at {url}" if len(urls) > 1 else model for url in urls]
        self._requests: dict[int, Request] = {}
        self._prepared: dict[int, Outgoing] = {}
        self._cancelled_ns = 0  # when a connection was last closed for it
        self._client = HttpClient(addresses, lambda server, *response: explain(at[server], *response))
        self.stamp_kind: StampKind = self._client.stamp_kind
        try:
            self._client.connect(connections, _OPEN_TIMEOUT_S)
        except SessionError:
            self._client.close()
            raise

    def prepare(self, requests: Sequence[Request]) -> None:
        """Write ``requests`` as they will be sent. Raises SessionError for unknown sampling."""
        self._prepared = {request.index: self._outgoing(request) for request in requests}

    def submit(self, requests: Sequence[Request]) -> Sequence[int]:
        """Send ``requests``; return the stamp (ns) just before each left. Raises SessionError for unknown sampling."""
        return self._client.submit([self._ready(request) for request in requests])

    def poll(self, timeout_s: float) -> Sequence[Arrival]:
        """Return what arrived, as soon as something did."""
        return self._client.poll(timeout_s)

    def cancel(self, request_index: int) -> None:
        """Close the request's connection."""
        self._client.cancel(request_index)
        self._cancelled_ns = now_ns()

    def drain(self, timeout_s: float) -> None:
        """Wait for the end of what was cancelled; arrivals of other requests are thrown away. Raises SessionError."""
        if not self._client.wait_idle(timeout_s):
            raise SessionError(
                f"Model {self._name} at {self._where} still works on {self._client.running} requests after "
                f"{timeout_s:g} s: restart the server, or wait longer."
            )
        if self._cancelled_ns:
            time.sleep(max(0, self._cancelled_ns + _SETTLE_NS - now_ns()) / 1e9)

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    @abstractmethod
    def _target(self, request: Request) -> tuple[str, bytes]:
        """The path and the body that ask for ``request``."""

    def _ready(self, request: Request) -> Outgoing:
        prepared = self._prepared.pop(request.index, None)
        if prepared is not None and self._requests[request.index] is request:
            return prepared
        return self._outgoing(request)

    def _outgoing(self, request: Request) -> Outgoing:
        path, body = self._target(request)
        self._requests[request.index] = request
        server = server_of(request.index, request.round_index, len(self._urls))
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._hosts[server]}\r\nContent-Type: {JSON}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return Outgoing(request.index, head.encode() + body, EVENT_STREAM if request.streaming else JSON, server)

    def _connection_facts(self) -> dict[str, JsonValue]:
        client = self._client
        return {
            "urls": self._urls,
            "servers": len(self._urls),
            "loads": ["batch", "concurrency", "rate"],
            "connections_opened": client.opened,
            "requests_resent": client.resent,
            "reads": client.reads,
            "reads_without_kernel_stamp": client.reads_without_kernel_stamp,
            "clock_steps": client.clock_steps,
        }


def urls_of(options: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """The option ``urls``, of one server or of several replicas; empty: there is none."""
    urls = options.get("urls")
    return tuple(map(str, urls)) if isinstance(urls, (list, tuple)) else ()


def connections_of(options: Mapping[str, JsonValue]) -> int:
    """The option ``connections``, 1 by default. Raises SessionError for less."""
    connections = options.get("connections", 1)
    if not isinstance(connections, int) or connections < 1:
        raise SessionError(f"A session cannot open {connections!r} connections: give 1 or more.")
    return connections


def identifying_tokenizer(options: Mapping[str, JsonValue]) -> Tokenizer | None:
    """The tokenizer in the option ``tokenizer`` (a spec or null), if text identifies its ids."""
    spec = options.get("tokenizer")
    tokenizer = tokenizer_from_spec(spec) if isinstance(spec, Mapping) else None
    return tokenizer if tokenizer and tokenizer.identifies_ids else None


def resolve(url: str) -> tuple[str, Address]:
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


def ask(host: str, server: str, *paths: str) -> list[Mapping[str, Any]]:
    """GET each of ``paths``, which answer in JSON. ``server``: what should be there. Raises SessionError."""
    connection = HTTPConnection(host, timeout=_OPEN_TIMEOUT_S)
    try:
        return [_get(connection, path) for path in paths]
    except (OSError, HTTPException, ValueError) as error:
        raise SessionError(f"No {server} answers at http://{host}: {error}.") from error
    finally:
        connection.close()


def _get(connection: HTTPConnection, path: str) -> Mapping[str, Any]:
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        where = f"http://{connection.host}:{connection.port}{path}"
        reason = error_of(body.decode("utf-8", "replace")) or "no reason given"
        raise SessionError(f"{where} answered HTTP {response.status}: {reason.rstrip('.')}.")
    answer = json.loads(body)
    if not isinstance(answer, dict):
        raise ValueError(f"{path} is not what it should be")
    return answer
