"""One HTTP/1.1 connection: a non-blocking socket, the request under way on it, and the framing of its answer.

Knows nothing of other connections, of waiting, or of what bodies mean. httptools (llhttp) does the framing.
"""

import socket
from dataclasses import dataclass
from errno import EINPROGRESS

import httptools

from enginebench.runtimes import kernel_stamps

FRAMING_ERRORS = (httptools.HttpParserError, httptools.HttpParserUpgrade)
"""What ``Connection.feed`` raises when it is given what is no HTTP/1.1 response, or more than one."""

Address = tuple[socket.AddressFamily, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as it goes over the wire, and what its answer must be."""

    index: int
    data: bytes
    content_type: str  # of a good answer, which also has status 200
    server: int = 0  # the place of its address among the client's


class Connection:
    """A socket and its framing; it is httptools' callback object."""

    __slots__ = (
        "answer_begun", "complete", "connecting", "content_type", "feed", "framed", "good", "keep_alive", "listening",
        "on_body", "outgoing", "parser", "parts", "pooled", "problem", "receive", "sent_ns", "server", "socket",
        "status", "unsent",
    )  # fmt: skip

    def __init__(self, address: Address, server: int) -> None:
        family, where = address
        self.server = server  # the place of the address among the client's
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kernel_stamps.enable(self.socket)
        self.receive = self.socket.recvmsg  # bound once: these two are called for every read
        self.connecting = True
        self.problem = self.socket.connect_ex(where)
        self.parts: list[bytes] = []
        self.on_body = self.parts.append  # called for each piece of a body, without a Python frame
        self.parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.feed = self.parser.feed_data
        self.reset()

    def reset(self) -> None:
        """Make ready for the next request."""
        self.outgoing: Outgoing | None = None
        self.unsent = memoryview(b"")
        self.sent_ns = 0
        self.pooled = False  # it waited idle before its request: the server may have closed it meanwhile
        self.listening = True  # False: the request was given up, its answer is read and thrown away
        self.answer_begun = False
        self.status = 0
        self.content_type = ""
        self.framed = False  # the head says where the body ends
        self.good = False  # going by its head, the answer is the one wanted
        self.complete = False
        self.keep_alive = False
        self.parts.clear()

    def start(self, outgoing: Outgoing, sent_ns: int, *, pooled: bool) -> None:
        """Take on a request; ``flush`` sends it."""
        self.outgoing, self.unsent = outgoing, memoryview(outgoing.data)
        self.sent_ns, self.pooled = sent_ns, pooled

    def connected(self) -> int:
        """Ask how the attempt to connect ended: 0, or the error number."""
        refused = self.problem if self.problem != EINPROGRESS else 0
        self.problem = refused or self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.connecting = False
        return self.problem

    def flush(self) -> None:
        """Send what the socket takes. Raises OSError."""
        if self.problem not in (0, EINPROGRESS):
            raise OSError(self.problem, "refused")
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent, socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            return
        self.connecting = False

    def take(self) -> bytes:
        """Return the pieces of the body that came since the last call."""
        payload = b"".join(self.parts)
        self.parts.clear()
        return payload

    @property
    def reusable(self) -> bool:
        """Whether another request may follow the answer that is complete."""
        return self.keep_alive and not self.unsent

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self.parser is None

    def close(self) -> None:
        """Close the socket, and break the cycle with the parser."""
        self.socket.close()
        self.parser = None
        del self.feed, self.receive

    def on_message_begin(self) -> None:
        self.answer_begun = True
        if self.complete:
            raise ValueError("a second response follows the first")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1").lower()
        self.framed = self.framed or name in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        assert self.parser is not None
        self.status = self.parser.get_status_code()
        wanted = self.outgoing.content_type if self.outgoing else ""
        self.good = self.status == 200 and self.content_type.startswith(wanted)

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.complete = self.status >= 200  # "100 Continue" announces another
        self.keep_alive = bool(self.parser.should_keep_alive())
