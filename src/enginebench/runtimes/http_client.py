"""A single-threaded HTTP/1.1 reactor that stamps what it reads and keeps it as it came.

epoll, non-blocking sockets in a keep-alive pool, one send per request and one ``recvmsg`` per readable socket. The
bytes of good responses are handed on as arrivals, undecoded. It follows no redirects, speaks no TLS and knows no
timeouts: a request without an answer is the caller's to judge.
"""

import os
import select
from collections.abc import Callable, Sequence
from functools import partial

from enginebench.clock import now_ns
from enginebench.errors import SessionError
from enginebench.runtimes import kernel_stamps
from enginebench.runtimes.base import Arrival, StampKind
from enginebench.runtimes.http_connection import FRAMING_ERRORS, Address, Connection, Outgoing

READ_BYTES = 65_536
_CLOCK_CHECK_NS = 1_000_000_000
_STALE_NS = 1_000_000_000  # a server that closed an idle connection says so by then; later, it lost our request
_SHORT_WAIT_NS = 2_000_000  # epoll waits whole milliseconds
_READABLE = select.EPOLLIN | select.EPOLLRDHUP
_JUST_DATA = select.EPOLLIN
_arrival = partial(tuple.__new__, Arrival)  # of (index, stamp, payload, ended, error, read): a third of the usual cost

Explain = Callable[[int, int, str, bytes], str]
"""Makes one sentence of a response that was not wanted: the server's place, status, content type, body."""


class HttpClient:
    """The reactor, for one server or several. One thread; at most one request per index at a time."""

    def __init__(self, addresses: Sequence[Address], explain: Explain) -> None:
        self._addresses = tuple(addresses)
        self._explain = explain
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}  # by file descriptor
        self._idle: list[list[Connection]] = [[] for _ in addresses]  # by the place of the server
        self._busy: dict[int, Connection] = {}  # by the index of the request; given-up ones are in neither
        self._arrivals: list[Arrival] = []
        self._answer_ended = False  # while events are handled
        self._check_clock_ns = 0  # when to look for a step again
        self._clock = kernel_stamps.StampMapper()
        self.opened = 0  # connections
        self.resent = 0  # requests sent again because the server had closed their idle connection
        self.reads = 0
        self.stamp_kind: StampKind = "kernel" if kernel_stamps.available() else "user"

    @property
    def clock_steps(self) -> int:
        """How often one of the clocks was seen to jump."""
        return self._clock.steps

    @property
    def reads_without_kernel_stamp(self) -> int:
        """How many reads have the stamp of the process instead."""
        return self._clock.missing

    @property
    def running(self) -> int:
        """Requests without a complete answer, given-up ones that are still read included."""
        return sum(connection.outgoing is not None for connection in self._connections.values())

    def connect(self, connections: int, timeout_s: float) -> None:
        """Open ``connections`` to each server and wait, so that requests leave at once. Raises SessionError."""
        opened = [self._open(server) for server in range(len(self._addresses)) for _ in range(connections)]
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        while waiting := [connection for connection in opened if connection.connecting]:
            pumped = self._pump(deadline_ns - now_ns())
            refused = [connection for connection in opened if connection.closed]
            if refused or not pumped:
                where = self._where((refused or waiting)[0].server)
                raise SessionError(f"Cannot open {connections} connections to {where}: is the server running?")

    def submit(self, outgoing: Sequence[Outgoing]) -> list[int]:
        """Send each on a connection of its own; return the stamp (ns) just before it left. Never blocks.

        A request beyond the open connections gets a new one, and leaves when that is established.
        Raises SessionError when the process may open no more sockets.
        """
        return [self._send(request) for request in outgoing]

    def poll(self, timeout_s: float) -> list[Arrival]:
        """Return what arrived, as soon as something did; empty after ``timeout_s``."""
        if not self._arrivals:
            now = now_ns()
            deadline_ns = now + int(timeout_s * 1e9)
            if now >= self._check_clock_ns:
                self._clock.check()
                self._check_clock_ns = now + _CLOCK_CHECK_NS
            self._pump(deadline_ns - now)
            while not self._arrivals and (now := now_ns()) < deadline_ns:
                self._pump(deadline_ns - now)
        arrivals, self._arrivals = self._arrivals, []
        return arrivals

    def cancel(self, index: int) -> None:
        """Close the connection of a request; nothing of it arrives any more."""
        if connection := self._forget(index):
            self._drop(connection)

    def abandon(self, index: int) -> None:
        """Read the answer of a request to its end and throw it away: ``running`` tells when it is over."""
        if connection := self._forget(index):
            connection.listening = False

    def wait_idle(self, timeout_s: float) -> bool:
        """Throw away what arrives until no request is running; False when some still are after ``timeout_s``."""
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        while self.running and now_ns() < deadline_ns:
            self._pump(deadline_ns - now_ns())
        self._arrivals.clear()
        return not self.running

    def close(self) -> None:
        """Close every socket. May be called twice."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._busy.clear()
        self._epoll.close()

    def _where(self, server: int) -> str:
        return "{}:{}".format(*self._addresses[server][1][:2])

    def _forget(self, index: int) -> Connection | None:
        self._arrivals = [arrival for arrival in self._arrivals if arrival.request_index != index]
        return self._busy.pop(index, None)

    def _pump(self, wait_ns: int) -> bool:
        """Handle what is ready, or becomes so within ``wait_ns``; False when nothing was.

        What is behind the end of an answer waits for the next call: the end may free the place of a request that is
        to leave at once, and the kernel has stamped what waits.
        """
        if wait_ns >= _SHORT_WAIT_NS:
            events = self._epoll.poll((wait_ns // 1_000_000 - 0.5) / 1000)  # rounded up by epoll: never beyond wait_ns
        else:
            events = self._poll_briefly(wait_ns)
        self._answer_ended = False
        for descriptor, mask in events:
            if self._answer_ended:
                break
            connection = self._connections[descriptor]
            if mask == _JUST_DATA:
                self._readable(connection)
            else:
                self._changed(connection, mask)
        return bool(events)

    def _poll_briefly(self, wait_ns: int) -> list[tuple[int, int]]:
        if wait_ns > 0:
            select.select((self._epoll,), (), (), wait_ns / 1e9)  # waits microseconds
        return self._epoll.poll(0)

    def _changed(self, connection: Connection, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._writable(connection)
        if mask & ~select.EPOLLOUT and not connection.closed:
            self._readable(connection)

    def _open(self, server: int) -> Connection:
        try:
            connection = Connection(self._addresses[server], server)
        except OSError as error:
            raise SessionError(
                f"Cannot open connection {len(self._connections) + 1} to {self._where(server)}: {error.strerror} "
                "(lower the load, or raise the limit with ulimit -n)."
            ) from error
        self._connections[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket, _READABLE | select.EPOLLOUT)
        self.opened += 1
        return connection

    def _drop(self, connection: Connection) -> None:
        idle = self._idle[connection.server]
        if connection in idle:
            idle.remove(connection)
        del self._connections[connection.socket.fileno()]
        connection.close()  # leaves the epoll set by itself

    def _send(self, outgoing: Outgoing) -> int:
        idle = self._idle[outgoing.server]
        pooled = bool(idle)
        connection = idle.pop() if pooled else self._open(outgoing.server)
        self._busy[outgoing.index] = connection
        sent_ns = now_ns()
        connection.start(outgoing, sent_ns, pooled=pooled)
        self._flush(connection)
        return sent_ns

    def _flush(self, connection: Connection) -> None:
        try:
            connection.flush()
        except OSError as error:
            self._lost(connection, _reason(error.errno))
            return
        if connection.unsent:
            self._epoll.modify(connection.socket, _READABLE | select.EPOLLOUT)

    def _writable(self, connection: Connection) -> None:
        if connection.connecting and (number := connection.connected()):
            self._lost(connection, _reason(number))
            return
        self._epoll.modify(connection.socket, _READABLE)
        if connection.outgoing is None:
            self._idle[connection.server].append(connection)
        elif connection.unsent:
            self._flush(connection)

    def _readable(self, connection: Connection) -> None:
        try:
            data, ancillary, _, _ = connection.receive(READ_BYTES, kernel_stamps.ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(connection, _reason(error.errno))
            return
        read_ns = now_ns()
        outgoing = connection.outgoing
        if not data or outgoing is None:  # closed by the server, or speaking out of turn
            self._lost(connection, "the server closed the connection")
            return
        self.reads += 1
        stamp_ns = self._clock.stamp(ancillary, read_ns)
        try:
            connection.feed(data)
        except FRAMING_ERRORS as error:
            if not connection.complete:
                where = self._where(connection.server)
                self._fail(connection, f"The answer of {where} is not HTTP/1.1: {error}.", stamp_ns, read_ns)
                return
        if connection.complete:
            self._finish(connection, stamp_ns, read_ns)
        elif connection.good and connection.parts and connection.listening:
            payload = connection.parts.pop() if len(connection.parts) == 1 else connection.take()
            self._arrivals.append(_arrival((outgoing.index, stamp_ns, payload, False, None, read_ns)))

    def _end(self, connection: Connection, payload: bytes, error: str | None, stamp_ns: int, read_ns: int) -> None:
        if connection.listening and connection.outgoing:
            index = connection.outgoing.index
            del self._busy[index]
            self._answer_ended = True
            self._arrivals.append(Arrival(index, stamp_ns, payload, True, error, read_ns))

    def _finish(self, connection: Connection, stamp_ns: int, read_ns: int) -> None:
        payload, error = connection.take(), None
        if not connection.good:
            payload, error = b"", self._explain(connection.server, connection.status, connection.content_type, payload)
        self._end(connection, payload, error, stamp_ns, read_ns)
        if connection.reusable:
            connection.reset()
            self._idle[connection.server].append(connection)
        else:
            self._drop(connection)

    def _fail(self, connection: Connection, error: str, stamp_ns: int, read_ns: int) -> None:
        self._end(connection, b"", error, stamp_ns, read_ns)
        self._drop(connection)

    def _lost(self, connection: Connection, why: str) -> None:
        now = now_ns()
        if connection.outgoing is None:
            self._drop(connection)
        elif connection.pooled and not connection.answer_begun and now - connection.sent_ns < _STALE_NS:
            self._resend(connection)
        elif connection.status and not connection.framed:  # such an answer ends with its connection
            self._finish(connection, now, now)
        else:
            when = "in the middle of the answer" if connection.answer_begun else "before any answer"
            self._fail(connection, f"Connection to {self._where(connection.server)} lost {when}: {why}.", now, now)

    def _resend(self, stale: Connection) -> None:
        outgoing, listening = stale.outgoing, stale.listening
        self._drop(stale)
        assert outgoing is not None
        if not listening:
            return
        self.resent += 1
        connection = self._busy[outgoing.index] = self._open(stale.server)
        connection.start(outgoing, now_ns(), pooled=False)
        self._flush(connection)


def _reason(number: int | None) -> str:
    return os.strerror(number) if number else "unknown error"
