"""A server with known truth: ``python -m enginebench.measure.truth_server``. The client is measured against it.

Speaks as much of Triton's ``generate_stream`` as the client needs, for one model that takes and gives token ids. Tokens
leave at the times of a script, and the server tells afterwards when each one really did: the script may be missed by
what the machine costs, the truth is never. Runs no engine, one thread, no asyncio; standard library only.

Beside Triton's own addresses: ``POST /script`` sets the script for requests from then on, ``GET /truth`` gives what
happened since it was asked for last (``measure.truth`` reads it). It ends when its standard input does.
"""

import ctypes
import gc
import heapq
import json
import os
import select
import signal
import socket
from array import array
from dataclasses import dataclass
from itertools import count

from enginebench.clock import now_ns
from enginebench.runtimes import kernel_stamps

MODEL = "tensorrt_llm"
"""The name of the one model."""

INPUTS = {
    "input_ids": "INT32",  # the first one names the request in the truth
    "request_output_len": "INT32",
    "streaming": "BOOL",
    "end_id": "INT32",
    "runtime_top_k": "INT32",
}
COLUMNS = ("key", "arrived_ns", "tokens")
"""Of the truth, an integer per request: its name, the kernel's stamp on its last byte, how many tokens left."""

TOKEN_COLUMNS = ("due_ns", "before_ns", "after_ns")
"""Of the truth, an integer per token, requests one after the other: when the script wanted it out, and the moments
before and after the call that handed it to the kernel."""

GOLDEN = 0.6180339887498949
"""The fraction of its multiples lies evenly, however many there are."""

_READ_BYTES = 1 << 20
_SENDS_BETWEEN_POLLS = 64
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
_END = b"0\r\n\r\n"
# As long as what the C++ backend sends for a token.
_EVENT = (
    b'data: {"context_logits":0.0,"cum_log_probs":0.0,"generation_logits":0.0,"model_name":"tensorrt_llm",'
    b'"model_version":"1","output_ids":%d,"output_log_probs":0.0,"sequence_end":false,"sequence_id":0,'
    b'"sequence_length":1}\n\n'
)


@dataclass(frozen=True, slots=True)
class Script:
    """When the tokens of a request leave: the first ``first_s`` after it arrived, each further one ``gap_s`` later.

    Streams are out of step: the first gap of each is longer by another fraction of ``gap_s``. With ``together`` they
    step as one, as in-flight batching does: all tokens leave at multiples of ``gap_s``.
    """

    first_s: float = 0.02
    gap_s: float = 0.005
    together: bool = False

    def first_ns(self, arrived_ns: int) -> int:
        """When the first token is due."""
        due_ns = arrived_ns + int(self.first_s * 1e9)
        gap_ns = int(self.gap_s * 1e9)
        return -(-due_ns // gap_ns) * gap_ns if self.together and gap_ns else due_ns

    def shift_ns(self, number: int) -> int:
        """How much longer the first gap of the stream with this number is."""
        return 0 if self.together else int(self.gap_s * 1e9 * (number * GOLDEN % 1.0))


class _Connection:
    """A client's connection and the answer under way on it."""

    __slots__ = ("asked", "socket", "stream", "unsent", "writing")

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self.asked = b""
        self.stream: _Stream | None = None
        self.unsent = b""
        self.writing = False  # a token waits for room in the socket


class _Stream:
    """One answer: what is still to come of it, and what happened."""

    __slots__ = ("arrived_ns", "due_ns", "gap_ns", "key", "place", "shift_ns", "times", "wanted")

    def __init__(self, key: int, wanted: int, arrived_ns: int, script: Script, number: int) -> None:
        self.key, self.wanted, self.arrived_ns = key, wanted, arrived_ns
        self.place = 0  # of the token that leaves next
        self.due_ns = script.first_ns(arrived_ns)
        self.gap_ns = int(script.gap_s * 1e9)
        self.shift_ns = script.shift_ns(number)
        self.times = array("q")  # due, before, after of each token that left

    def left(self, before_ns: int, after_ns: int) -> bool:
        """A token did; False when it was the last."""
        self.times.extend((self.due_ns, before_ns, after_ns))
        self.place += 1
        self.due_ns += self.gap_ns + (self.shift_ns if self.place == 1 else 0)
        return self.place < self.wanted


class TruthServer:
    """The server. ``run`` returns when standard input ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(0, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._coming: list[tuple[int, int, _Connection]] = []  # heap: due, order, connection
        self._order = count()
        self._numbers = count()
        self._streams: list[_Stream] = []  # since the truth was asked for
        self._pieces: list[bytes] = []
        self._script = Script()
        self._clock = kernel_stamps.StampMapper()
        self._open = True

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve."""
        while self._open:
            for descriptor, mask in self._wait():
                self._handle(descriptor, mask)
            self._send_due()

    def _wait(self) -> list[tuple[int, int]]:
        if not self._coming:
            return self._epoll.poll()
        wait_ns = self._coming[0][0] - now_ns()
        if wait_ns > 0:
            select.select((self._epoll,), (), (), wait_ns / 1e9)  # epoll itself waits whole milliseconds
        return self._epoll.poll(0)

    def _handle(self, descriptor: int, mask: int) -> None:
        if descriptor == 0:
            self._open = bool(os.read(0, 1))  # nobody writes: it ended
        elif descriptor == self._listener.fileno():
            self._accept()
        elif connection := self._connections.get(descriptor):
            if mask & select.EPOLLOUT and connection.unsent:
                self._finish_sending(connection)
            if mask & ~select.EPOLLOUT:
                self._readable(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kernel_stamps.enable(client)
            self._connections[client.fileno()] = _Connection(client)
            self._epoll.register(client, select.EPOLLIN)

    def _readable(self, connection: _Connection) -> None:
        try:
            data, ancillary, _, _ = connection.socket.recvmsg(_READ_BYTES, kernel_stamps.ANCILLARY_BYTES)
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._drop(connection)
            return
        read_ns = now_ns()
        stamp_ns = self._clock.stamp(ancillary, read_ns) or read_ns
        connection.asked += data
        head, separator, body = connection.asked.partition(b"\r\n\r\n")
        if separator and len(body) >= _content_length(head):
            connection.asked = b""
            method, path, _ = head.split(b" ", 2)
            self._answer(connection, method.decode(), path.decode(), body, stamp_ns)

    def _answer(self, connection: _Connection, method: str, path: str, body: bytes, arrived_ns: int) -> None:
        if method == "POST" and path == f"/v2/models/{MODEL}/generate_stream":
            self._start(connection, json.loads(body), arrived_ns)
        elif method == "POST" and path == "/script":
            self._script = Script(**json.loads(body))
            self._clock.check()
            self._reply(connection, b"{}")
        elif path == "/truth":
            self._reply(connection, self._truth())
        else:
            described = _DESCRIPTIONS.get(path)
            self._reply(connection, json.dumps(described or {"error": f"no {path} here"}).encode(), described is None)

    def _reply(self, connection: _Connection, body: bytes, missing: bool = False) -> None:
        status = b"404 Not Found" if missing else b"200 OK"
        connection.socket.setblocking(True)
        connection.socket.sendall(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))
        connection.socket.setblocking(False)

    def _start(self, connection: _Connection, asked: dict[str, object], arrived_ns: int) -> None:
        ids, wanted = asked["input_ids"], asked["request_output_len"]
        assert isinstance(wanted, int)
        key = int(ids[0] if isinstance(ids, list) else str(ids))
        stream = connection.stream = _Stream(key, wanted, arrived_ns, self._script, next(self._numbers))
        self._streams.append(stream)
        heapq.heappush(self._coming, (stream.due_ns, next(self._order), connection))

    def _send_due(self) -> None:
        """Hand to the kernel what is due; return now and then, so that requests are read meanwhile."""
        coming, now = self._coming, now_ns()
        for _ in range(_SENDS_BETWEEN_POLLS):
            if not coming or coming[0][0] > now:
                return
            self._send_token(heapq.heappop(coming)[2])

    def _send_token(self, connection: _Connection) -> None:
        stream = connection.stream
        if stream is None:  # the client has gone
            return
        data = self._piece(stream.place)
        if stream.place == 0:
            data = _HEAD + data
        if stream.place == stream.wanted - 1:
            data += _END
        self._send(connection, data)

    def _send(self, connection: _Connection, data: bytes) -> None:
        before_ns = now_ns()
        try:
            sent = connection.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        after_ns = now_ns()
        if sent == len(data):
            self._sent(connection, before_ns, after_ns)
            return
        connection.unsent = data[sent:]
        if not connection.writing:
            connection.writing = True
            self._epoll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)

    def _finish_sending(self, connection: _Connection) -> None:
        data, connection.unsent = connection.unsent, b""
        self._send(connection, data)
        if not connection.unsent and connection.writing:
            connection.writing = False
            if connection.socket.fileno() >= 0:
                self._epoll.modify(connection.socket, select.EPOLLIN)

    def _sent(self, connection: _Connection, before_ns: int, after_ns: int) -> None:
        stream = connection.stream
        assert stream is not None
        if stream.left(before_ns, after_ns):
            heapq.heappush(self._coming, (stream.due_ns, next(self._order), connection))
        else:
            connection.stream = None

    def _piece(self, place: int) -> bytes:
        while place >= len(self._pieces):
            event = _EVENT % len(self._pieces)
            self._pieces.append(b"%x\r\n%b\r\n" % (len(event), event))
        return self._pieces[place]

    def _truth(self) -> bytes:
        """What happened, and forget it: the columns one after the other, 8 bytes a number, as the machine orders it."""
        streams, self._streams = self._streams, []
        requests = (
            array("q", (stream.key for stream in streams)),
            array("q", (stream.arrived_ns for stream in streams)),
            array("q", (stream.place for stream in streams)),
        )
        width = len(TOKEN_COLUMNS)
        tokens = [b"".join(stream.times[place::width].tobytes() for stream in streams) for place in range(width)]
        head = json.dumps({"requests": len(streams), "clock_steps": self._clock.steps}).encode()
        return b"".join([head, b"\n", *(column.tobytes() for column in requests), *tokens])

    def _drop(self, connection: _Connection) -> None:
        connection.stream = None
        del self._connections[connection.socket.fileno()]
        connection.socket.close()


_DESCRIPTIONS = {
    "/v2": {"name": "truth", "version": "1"},
    f"/v2/models/{MODEL}": {
        "name": MODEL,
        "inputs": [{"name": name, "datatype": kind, "shape": [-1]} for name, kind in INPUTS.items()],
        "outputs": [{"name": "output_ids", "datatype": "INT32", "shape": [-1]}],
    },
    f"/v2/models/{MODEL}/config": {"model_transaction_policy": {"decoupled": True}},
}


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def main() -> None:
    """Serve on a free port, which is printed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the harness, which decides
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, 1)  # nanosecond: sleep no longer than asked
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    server = TruthServer()
    print(server.port, flush=True)
    gc.disable()  # a collection would delay tokens, and there are no cycles
    server.run()


if __name__ == "__main__":
    main()
