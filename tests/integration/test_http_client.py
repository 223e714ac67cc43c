"""The reactor against a server that follows a script, over real sockets."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from enginebench.clock import now_ns
from enginebench.errors import SessionError
from enginebench.runtimes import sse
from enginebench.runtimes.answers import EVENT_STREAM, JSON, explain
from enginebench.runtimes.base import Arrival
from enginebench.runtimes.http_client import HttpClient
from enginebench.runtimes.http_connection import Address, Outgoing
from tests.support.scripted_server import (
    CLOSE,
    END,
    Asked,
    Script,
    ScriptedServer,
    Step,
    event,
    head,
    piece,
    stream,
    whole,
)

PATIENCE_S = 30.0
Open = Callable[..., tuple[HttpClient, ScriptedServer]]


@pytest.fixture
def open_client() -> Iterator[Open]:
    """Start a server with a script, and a client with connections to it."""
    with ExitStack() as stack:

        def start(script: Script, connections: int = 1) -> tuple[HttpClient, ScriptedServer]:
            server = stack.enter_context(ScriptedServer(script))
            client = HttpClient([address(server)], lambda _, *response: explain("m", *response))
            stack.callback(client.close)
            client.connect(connections, PATIENCE_S)
            assert server.wait_connected(connections)
            return client, server

        yield start


def address(server: ScriptedServer) -> Address:
    return socket.AF_INET, ("127.0.0.1", server.port)


def ask(index: int = 0, content_type: str = EVENT_STREAM, body: bytes = b"{}") -> Outgoing:
    lines = f"POST /{index} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    return Outgoing(index, lines.encode() + body, content_type)


def collect(client: HttpClient, ends: int = 1) -> list[Arrival]:
    arrivals: list[Arrival] = []
    while sum(arrival.ended for arrival in arrivals) < ends:
        news = client.poll(PATIENCE_S)
        assert news, "nothing arrived"
        arrivals += news
    return arrivals


def data_of(arrivals: list[Arrival], index: int = 0) -> list[str]:
    reads = [sse.Read(a.stamp_ns, bytes(a.payload)) for a in arrivals if a.request_index == index]
    return [found.data for found in sse.events(reads)]


def error_of(arrivals: list[Arrival]) -> str:
    (error,) = [arrival.error for arrival in arrivals if arrival.error]
    return error


def test_a_stream_arrives_event_by_event_with_kernel_stamps_in_order(open_client: Open) -> None:
    seen = [threading.Event() for _ in range(3)]

    def script(asked: Asked) -> Iterator[Step]:
        yield head()
        for number, gate in enumerate(seen):
            yield piece(event(number))
            yield gate
        yield END

    client, _ = open_client(script)
    before_ns = now_ns()
    (sent_ns,) = client.submit([ask()])
    arrivals: list[Arrival] = []
    for gate in seen:
        arrivals += client.poll(PATIENCE_S)
        gate.set()
    arrivals += collect(client)
    assert data_of(arrivals) == ["0", "1", "2"]
    assert len(arrivals) == 4
    stamps = [before_ns, sent_ns, *(arrival.stamp_ns for arrival in arrivals), now_ns()]
    assert stamps == sorted(stamps)
    assert all(arrival.read_ns >= arrival.stamp_ns for arrival in arrivals)
    assert client.stamp_kind == "kernel"
    assert client.reads_without_kernel_stamp == 0


def test_glued_events_come_in_one_arrival(open_client: Open) -> None:
    glued = head() + piece(event("a")) + piece(event("b") + event("c")) + END
    client, _ = open_client(lambda _: [glued])
    client.submit([ask()])
    arrivals = collect(client)
    assert data_of(arrivals) == ['"a"', '"b"', '"c"']
    assert arrivals[-1].ended


def test_events_split_anywhere_come_together_again(open_client: Open) -> None:
    body = head() + piece(event("写一篇")[:9]) + piece(event("写一篇")[9:] + event("b")) + END
    client, _ = open_client(lambda _: [body[at : at + 1] for at in range(len(body))])
    client.submit([ask()])
    assert data_of(collect(client)) == ['"写一篇"', '"b"']


def test_a_whole_response_arrives_with_its_end(open_client: Open) -> None:
    client, _ = open_client(lambda _: [whole(200, JSON, b'{"text_output": "x"}')])
    client.submit([ask(content_type=JSON)])
    (arrival,) = collect(client)
    assert (arrival.payload, arrival.ended, arrival.error) == (b'{"text_output": "x"}', True, None)


def test_a_response_without_a_length_ends_with_its_connection(open_client: Open) -> None:
    client, _ = open_client(lambda _: [head(200, EVENT_STREAM, "X-No-Length: 1") + event("a"), CLOSE])
    client.submit([ask()])
    arrivals = collect(client)
    assert data_of(arrivals) == ['"a"']
    assert arrivals[-1].error is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (whole(400, EVENT_STREAM, event({"error": "in ensemble 'ensemble', too long"})), "HTTP 400.*too long"),
        (whole(400, JSON, b'{"error":"missing required input(s) [\'max_tokens\']"}'), r"HTTP 400.*\['max_tokens'\]"),
        (whole(404, JSON, b'{"error":"Request for unknown model: \'m\' is not found"}'), "HTTP 404.*is not found"),
        (whole(500, JSON, b'{"error":"failed to parse the request JSON buffer"}'), "HTTP 500.*failed to parse"),
        (whole(502, "text/html", b"<h1>Bad gateway</h1>"), "HTTP 502.*Bad gateway"),
        (whole(405, "text/plain", b""), "HTTP 405.*an empty body"),
        (whole(200, "text/html", b"<p>Hello"), "content type 'text/html'.*<p>Hello"),
        (whole(200, JSON, b'{"error":"x"}'), "content type 'application/json'.*error"),
    ],
)
def test_a_refusal_is_one_sentence_and_no_data(open_client: Open, answer: bytes, message: str) -> None:
    client, server = open_client(lambda _: [answer])
    client.submit([ask()])
    (arrival,) = collect(client)
    assert arrival.payload == b""
    with pytest.raises(SessionError, match=message):
        raise SessionError(arrival.error)
    client.submit([ask(1)])
    collect(client)
    assert server.connections == 1


def test_a_connection_closed_early_keeps_what_came_and_says_so(open_client: Open) -> None:
    client, _ = open_client(lambda _: [head(), piece(event(0)), piece(event(1)), CLOSE])
    client.submit([ask()])
    arrivals = collect(client)
    assert data_of(arrivals) == ["0", "1"]
    assert "lost in the middle of the answer" in error_of(arrivals)


def test_a_server_that_closes_without_an_answer_is_asked_once_more_at_most(open_client: Open) -> None:
    client, server = open_client(lambda _: [CLOSE])
    client.submit([ask()])
    assert "lost before any answer" in error_of(collect(client))
    assert len(server.asked) == 2


def test_what_is_not_http_is_said_to_be_none(open_client: Open) -> None:
    client, _ = open_client(lambda _: [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"])
    client.submit([ask()])
    assert "not HTTP/1.1" in error_of(collect(client))


def test_a_connection_is_used_again_after_a_stream(open_client: Open) -> None:
    client, server = open_client(lambda asked: stream(event(asked.path)))
    for index in range(5):
        client.submit([ask(index)])
        assert data_of(collect(client), index) == [f'"/{index}"']
    assert server.connections == client.opened == 1


def test_a_connection_that_the_server_will_close_is_not_used_again(open_client: Open) -> None:
    script = [head(200, EVENT_STREAM, "Connection: close", "Content-Length: 0")]
    client, server = open_client(lambda _: script)
    for index in range(2):
        client.submit([ask(index)])
        assert collect(client)[-1].error is None
    assert server.connections == 2


def test_an_idle_connection_closed_by_the_server_is_replaced(open_client: Open) -> None:
    client, server = open_client(lambda asked: stream(event(asked.path)))
    for index in range(3):
        client.submit([ask(index)])
        assert data_of(collect(client), index) == [f'"/{index}"']
        server.close_connections()
    assert server.connections == 3


def test_a_connection_that_closes_under_a_request_is_replaced(open_client: Open) -> None:
    # The server reads the second request on its old connection and closes: as if the close had crossed the request.
    def script(asked: Asked) -> Iterator[Step]:
        if asked.path == "/1" and asked.connection == 0:
            yield CLOSE
        yield from stream(event(asked.path))

    client, server = open_client(script)
    client.submit([ask(0)])
    collect(client)
    client.submit([ask(1)])
    arrivals = collect(client)
    assert data_of(arrivals, 1) == ['"/1"']
    assert arrivals[-1].error is None
    assert client.resent == 1
    assert [asked.path for asked in server.asked] == ["/0", "/1", "/1"]


def test_a_server_that_is_gone_is_an_error_of_the_request(open_client: Open) -> None:
    client, server = open_client(lambda asked: stream(event(asked.path)))
    server.stop_listening()
    server.close_connections()
    client.submit([ask()])
    assert "Connection refused" in error_of(collect(client))


def test_opening_connections_to_nobody_is_one_sentence() -> None:
    with ScriptedServer(lambda _: []) as server:
        where = address(server)
    client = HttpClient([where], lambda *_: "")
    with pytest.raises(SessionError, match=r"Cannot open 2 connections to 127\.0\.0\.1:\d+: is the server running"):
        client.connect(2, PATIENCE_S)
    client.close()


def test_each_request_goes_to_its_server_and_a_dead_one_is_named() -> None:
    def script(asked: Asked) -> Iterator[Step]:
        return stream(event(asked.path))

    with ScriptedServer(script) as one, ScriptedServer(script) as other:
        client = HttpClient([address(one), address(other)], lambda *_: "")
        client.connect(1, PATIENCE_S)
        assert other.wait_connected(1)
        client.submit([replace(ask(index), server=index % 2) for index in range(6)])
        collect(client, ends=6)
        paths = [[asked.path for asked in server.asked] for server in (one, other)]
        assert [sorted(each) for each in paths] == [["/0", "/2", "/4"], ["/1", "/3", "/5"]]
        other.stop_listening()
        other.close_connections()
        client.submit([ask(6), replace(ask(7), server=1)])
        errors = {arrival.request_index: arrival.error for arrival in collect(client, ends=2) if arrival.ended}
        client.close()
    assert errors[6] is None
    assert f"Connection to 127.0.0.1:{other.port} lost" in str(errors[7])


def test_of_several_servers_the_one_that_is_not_there_is_named() -> None:
    with ScriptedServer(lambda _: []) as server, ScriptedServer(lambda _: []) as gone:
        gone.stop_listening()
        client = HttpClient([address(server), address(gone)], lambda *_: "")
        with pytest.raises(SessionError, match=rf"Cannot open 2 connections to 127\.0\.0\.1:{gone.port}: "):
            client.connect(2, PATIENCE_S)
        client.close()


def test_a_stall_is_nothing_at_all(open_client: Open) -> None:
    never = threading.Event()

    def script(asked: Asked) -> Iterator[Step]:
        yield head()
        yield piece(event(0))
        yield never

    client, _ = open_client(script)
    client.submit([ask()])
    assert client.poll(PATIENCE_S)
    assert client.poll(0.01) == []
    assert client.running == 1
    never.set()


def test_cancelling_closes_the_socket_and_silences_the_request(open_client: Open) -> None:
    never = threading.Event()

    def script(asked: Asked) -> Iterator[Step]:
        yield head()
        while not never.is_set():
            yield piece(event(asked.path))
        yield END

    client, server = open_client(script)
    client.submit([ask()])
    assert client.poll(PATIENCE_S)
    client.cancel(0)
    assert server.wait_closed_by_client(0)
    assert client.running == 0
    assert client.poll(0.01) == []
    never.set()
    client.cancel(0)  # over: nothing happens
    client.submit([ask(0)])
    assert collect(client)[-1].error is None


def test_an_abandoned_request_is_read_to_its_end_in_silence(open_client: Open) -> None:
    go_on = threading.Event()

    def script(asked: Asked) -> Iterator[Step]:
        yield head()
        yield piece(event(0))
        yield go_on
        yield piece(event(1))
        yield END

    client, server = open_client(script)
    client.submit([ask()])
    assert client.poll(PATIENCE_S)
    client.abandon(0)
    assert not client.wait_idle(0.01)
    go_on.set()
    assert client.wait_idle(PATIENCE_S)
    assert client.poll(0.0) == []
    client.submit([ask(0)])
    assert data_of(collect(client)) == ["0", "1"]
    assert server.connections == 1


def test_many_streams_at_once_keep_apart(open_client: Open) -> None:
    client, server = open_client(
        lambda asked: stream(*(event(f"{asked.path}.{at}") for at in range(20))), connections=64
    )
    sent = client.submit([ask(index) for index in range(64)])
    assert sent == sorted(sent)
    arrivals = collect(client, 64)
    for index in range(64):
        assert data_of(arrivals, index) == [f'"/{index}.{at}"' for at in range(20)]
    assert server.connections == client.opened == 64


def test_more_requests_than_connections_get_their_own(open_client: Open) -> None:
    client, server = open_client(lambda asked: stream(event(asked.path)), connections=2)
    client.submit([ask(index) for index in range(10)])
    arrivals = collect(client, 10)
    assert all(data_of(arrivals, index) == [f'"/{index}"'] for index in range(10))
    assert server.connections == 10


def test_a_request_larger_than_the_sockets_buffers_leaves_in_pieces(open_client: Open) -> None:
    client, _ = open_client(lambda asked: stream(event(len(asked.body))))
    client.submit([ask(body=b"x" * 20_000_000)])
    assert data_of(collect(client)) == ["20000000"]


def test_closing_twice_is_fine(open_client: Open) -> None:
    client, _ = open_client(lambda _: [head()])
    client.submit([ask()])
    assert client.running == 1
    client.close()
    client.close()
    assert client.running == 0
