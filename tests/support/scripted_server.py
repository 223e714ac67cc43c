"""An HTTP server on 127.0.0.1 that does as it is told, byte by byte, over real sockets and in threads of its own.

A script is a function of the request that yields steps: bytes to send, seconds to pause, an event to wait for, CLOSE.
When it ends, the connection waits for the next request.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

CLOSE = "close"
Step = bytes | float | threading.Event | str
WAIT_S = 30.0


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    body: bytes
    connection: int  # counted from 0

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


Script = Callable[[Asked], Iterable[Step]]


@dataclass
class ScriptedServer:
    """Use as a context manager; ``asked`` and ``ended`` tell what happened."""

    script: Script
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0

    def __enter__(self) -> "ScriptedServer":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._changed = threading.Condition()
        self._closed_by_client: set[int] = set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_listening()
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT_S)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stop_listening(self) -> None:
        """Refuse new connections; open ones stay."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close_connections(self) -> None:
        """Close every connection, as a server does with idle ones."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def wait_connected(self, connections: int) -> bool:
        """Whether so many connections have been accepted; the client's side of one is open a moment earlier."""
        with self._changed:
            return self._changed.wait_for(lambda: self.connections >= connections, WAIT_S)

    def wait_closed_by_client(self, connection: int) -> bool:
        """Whether the client closes this connection."""
        with self._changed:
            return self._changed.wait_for(lambda: connection in self._closed_by_client, WAIT_S)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections))
            self._threads.append(thread)
            with self._changed:  # before its first answer can leave
                self.connections += 1
                self._changed.notify_all()
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        with sock, suppress(OSError):
            while asked := _read_request(sock, number):
                self.asked.append(asked)
                for step in self.script(asked):
                    if step == CLOSE:
                        return
                    _do(step, sock)
        with self._changed:
            self._closed_by_client.add(number)
            self._changed.notify_all()


def _do(step: Step, sock: socket.socket) -> None:
    if isinstance(step, bytes):
        sock.sendall(step)
    elif isinstance(step, float):
        time.sleep(step)
    elif isinstance(step, threading.Event):
        assert step.wait(WAIT_S)


def _read_request(sock: socket.socket, number: int) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        body += sock.recv(65536)
    method, path, _ = lines[0].split(" ")
    return Asked(method, path, body, number)


def head(status: int = 200, content_type: str = "text/event-stream; charset=utf-8", *more: str) -> bytes:
    """A response's head; the body is chunked unless ``more`` says otherwise."""
    extra = more or ("Transfer-Encoding: chunked",)
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", f"Content-Type: {content_type}", *extra, "", ""]).encode()


def piece(body: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(body), body)


END = b"0\r\n\r\n"
"""The end of a chunked body."""


def event(value: Any) -> bytes:
    """A server-sent event as Triton writes it."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def whole(status: int, content_type: str, body: bytes) -> bytes:
    """A response with a length."""
    return head(status, content_type, f"Content-Length: {len(body)}") + body


def stream(*bodies: bytes) -> Iterator[Step]:
    """A good event stream, one send a body."""
    yield head()
    for body in bodies:
        yield piece(body)
    yield END
