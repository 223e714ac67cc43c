"""A session on a server that speaks Triton's generate endpoints: opening, refusing, cancelling, telling."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Session
from enginebench.runtimes.triton_http import open_session
from tests.support.scripted_server import CLOSE, END, Asked, ScriptedServer, Step, event, piece
from tests.support.scripted_triton import INPUTS, TOKENIZER, TOKENIZER_SPEC, ScriptedTriton, answer_ids

PATIENCE_S = 30.0
PROMPT_IDS = TOKENIZER.encode("你是谁？")


def request(index: int = 0, output_tokens: int = 5, streaming: bool = True) -> Request:
    return Request(index, "你是谁？", PROMPT_IDS, output_tokens, streaming, Sampling())


def options(url: str, /, **changes: Any) -> Mapping[str, Any]:
    return {"urls": [url], "model": "ensemble", "tokenizer": TOKENIZER_SPEC, "connections": 2, **changes}


def collect(session: Session, ends: int = 1) -> list[Arrival]:
    arrivals: list[Arrival] = []
    while sum(arrival.ended for arrival in arrivals) < ends:
        news = session.poll(PATIENCE_S)
        assert news, "nothing arrived"
        arrivals += news
    return arrivals


@pytest.mark.parametrize("name", ["ensemble", "tensorrt_llm_bls", "tensorrt_llm"])
@pytest.mark.parametrize("streaming", [True, False])
def test_the_answer_is_the_servers_with_the_input_length(name: str, streaming: bool) -> None:
    with ScriptedServer(ScriptedTriton()) as server:
        session = open_session(options(server.url, model=name))
        session.submit([request(streaming=streaming)])
        chunks = session.decode(collect(session))
        session.close()
    assert sum((chunk.token_ids for chunk in chunks), ()) == answer_ids(PROMPT_IDS, 5, None)
    assert {chunk.prompt_tokens for chunk in chunks} == {len(PROMPT_IDS)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "ensembel"}, r"/v2/models/ensembel answered HTTP 404: Request for unknown model: 'ensembel'"),
        ({"urls": ["127.0.0.1:8000"]}, r"write http://HOST:PORT"),
        ({"urls": ["https://127.0.0.1:8000"]}, r"write http://HOST:PORT"),
        ({"urls": []}, r"needs the options 'urls' and 'model'"),
        ({"connections": 0}, r"cannot open 0 connections"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(changes: dict[str, Any], message: str) -> None:
    with ScriptedServer(ScriptedTriton()) as server, pytest.raises(SessionError, match=message):
        open_session(options(server.url, **changes))


def test_replicas_take_requests_in_turn() -> None:
    with ScriptedServer(ScriptedTriton()) as one, ScriptedServer(ScriptedTriton()) as other:
        session = open_session(options("", urls=[one.url, other.url]))
        session.submit([replace(request(index), round_index=1) for index in range(3)])
        chunks = session.decode(collect(session, ends=3))
        facts = session.facts()
        session.close()
        posts = [sum(asked.method == "POST" for asked in server.asked) for server in (one, other)]
    assert posts == [1, 2]
    assert sum(len(chunk.token_ids) for chunk in chunks) == 15
    assert (facts["urls"], facts["servers"], facts["connections_opened"]) == ((one.url, other.url), 2, 4)


def test_of_replicas_the_one_that_refuses_is_named() -> None:
    with ScriptedServer(ScriptedTriton()) as one, ScriptedServer(ScriptedTriton()) as other:
        session = open_session(options("", urls=[one.url, other.url]))
        session.submit([request(index=1, output_tokens=2000)])
        (chunk,) = session.decode(collect(session))
        session.close()
    assert f"Model ensemble at {other.url} refused the request" in str(chunk.error)


def test_nobody_there_is_one_sentence() -> None:
    with ScriptedServer(ScriptedTriton()) as server:
        url = server.url
    with pytest.raises(SessionError, match=rf"No Triton server answers at {url}"):
        open_session(options(url))


def test_a_model_that_is_not_decoupled_cannot_stream() -> None:
    with ScriptedServer(ScriptedTriton(decoupled=False)) as server:
        session = open_session(options(server.url))
        with pytest.raises(SessionError, match=r"ensemble .* cannot stream"):
            session.submit([request()])
        session.submit([request(streaming=False)])
        assert len(session.decode(collect(session))) == 1
        session.close()


def test_nothing_is_sent_when_the_sampling_is_unknown() -> None:
    inputs = {"ensemble": {name: kind for name, kind in INPUTS["ensemble"].items() if name != "top_k"}}
    with ScriptedServer(ScriptedTriton(inputs)) as server:
        session = open_session(options(server.url))
        with pytest.raises(SessionError, match="no input 'top_k'"):
            session.submit([request()])
        session.close()
        assert not any(asked.method == "POST" for asked in server.asked)


def test_facts_tell_the_server_the_capabilities_and_the_connections() -> None:
    with ScriptedServer(ScriptedTriton()) as server:
        session = open_session(options(server.url, model="tensorrt_llm"))
        session.submit([request()])
        collect(session)
        facts = session.facts()
        session.close()
    assert facts["server_version"] == "2.51.0"
    assert facts["takes_token_ids"] is facts["gives_token_ids"] is facts["decoupled"] is True
    assert facts["exact_length_input"] == "end_id"
    assert facts["connections_opened"] == 2
    assert facts["requests_resent"] == facts["clock_steps"] == 0


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ((piece(event({"error": "Stub process is not healthy."})) + END,), "failed: Stub process is not healthy"),
        ((CLOSE,), "lost in the middle of the answer"),
        ((piece(b"data: {not json}\n\n") + END,), "not JSON: {not json}"),
    ],
)
def test_what_breaks_in_mid_stream_is_an_error_after_the_good_part(rest: tuple[Step, ...], message: str) -> None:
    with ScriptedServer(ScriptedTriton(after_one=rest)) as server:
        session = open_session(options(server.url))
        session.submit([request()])
        good, bad = session.decode(collect(session))
        session.close()
    assert good.token_ids == answer_ids(PROMPT_IDS, 1, None)
    assert message in str(bad.error)


def test_a_cancelled_text_request_is_waited_for() -> None:
    go_on = threading.Event()
    with ScriptedServer(ScriptedTriton(after_one=(go_on, END))) as server:
        session = open_session(options(server.url))
        session.submit([request()])
        assert session.poll(PATIENCE_S)
        session.cancel(0)
        with pytest.raises(SessionError, match=r"still works on 1 requests after 0\.01 s"):
            session.drain(0.01)
        go_on.set()
        session.drain(PATIENCE_S)
        session.close()


def test_a_cancelled_core_request_loses_its_connection() -> None:
    go_on = threading.Event()
    with ScriptedServer(ScriptedTriton(after_one=(go_on, END))) as server:
        session = open_session(options(server.url, model="tensorrt_llm"))
        session.submit([request()])
        assert session.poll(PATIENCE_S)
        (busy,) = [asked.connection for asked in server.asked if asked.method == "POST"]
        session.cancel(0)
        session.drain(PATIENCE_S)
        go_on.set()
        assert server.wait_closed_by_client(busy)
        session.close()


def test_requests_ask_for_the_model_by_name() -> None:
    asked: list[Asked] = []
    with ScriptedServer(ScriptedTriton()) as server:
        session = open_session(options(server.url))
        for streaming in (True, False):
            session.submit([request(streaming=streaming)])
            collect(session)
        session.close()
        asked = [each for each in server.asked if each.method == "POST"]
    assert [each.path for each in asked] == ["/v2/models/ensemble/generate_stream", "/v2/models/ensemble/generate"]
    assert [each.json["stream"] for each in asked] == [True, False]
