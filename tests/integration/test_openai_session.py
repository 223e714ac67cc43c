"""A session on an OpenAI-compatible server: opening, asking, counting, failing."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.measure.driver import record, run_round
from enginebench.measure.records import RoundRecord
from enginebench.plan.load import Batch
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.openai_http import open_session
from tests.support.scripted_openai import DONE, MODEL, ScriptedOpenAi
from tests.support.scripted_server import CLOSE, END, ScriptedServer, Step, event, piece
from tests.support.scripted_triton import TOKENIZER, TOKENIZER_SPEC, answer_ids

PATIENCE_S = 30.0
PROMPT_IDS = TOKENIZER.encode("你是谁？")


def request(index: int = 0, streaming: bool = True, **changes: Any) -> Request:
    values: dict[str, Any] = {"output_tokens": 5, "sampling": Sampling()} | changes
    return Request(index, "你是谁？", PROMPT_IDS, streaming=streaming, **values)


def options(url: str, /, **changes: Any) -> Mapping[str, Any]:
    return {"urls": [url], "model": MODEL, "endpoint": "completions", "tokenizer": None, "connections": 2, **changes}


def test_replicas_serve_the_same_model_and_take_the_same_keys() -> None:
    scripts = (ScriptedOpenAi(), ScriptedOpenAi(listed=("another",)), ScriptedOpenAi(refused=("top_k",)))
    with ExitStack() as stack:
        one, renamed, refusing = (stack.enter_context(ScriptedServer(script)).url for script in scripts)
        with pytest.raises(SessionError, match=f"{one} serves the model .served., and {renamed} .another.: "):
            open_session(options("", urls=[one, renamed], model=None))
        with pytest.raises(SessionError, match=f"The server at {renamed} has no model .served."):
            open_session(options("", urls=[one, renamed]))
        with pytest.raises(SessionError, match=f"{one} takes the keys .*top_k.*, and {refusing} .*: several"):
            open_session(options("", urls=[one, refusing]))


def drive(script: ScriptedOpenAi, *requests: Request, **changes: Any) -> RoundRecord:
    with ScriptedServer(script) as server:
        session = open_session(options(server.url, **changes))
        raw = run_round(session, requests, Batch(len(requests)), PATIENCE_S)
        found = record(session, raw, round_index=0, warmup=False)
        session.close()
    return found


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("streaming", [True, False])
def test_text_that_identifies_ids_becomes_ids(endpoint: str, streaming: bool) -> None:
    found = drive(ScriptedOpenAi(), request(streaming=streaming), endpoint=endpoint, tokenizer=TOKENIZER_SPEC)
    assert tuple(found.chunks.token_ids) == answer_ids(PROMPT_IDS, 5, None)
    assert found.requests.outcome == ("ok",)
    assert found.requests.reported_prompt_tokens.tolist() == [-1 if endpoint == "chat" else len(PROMPT_IDS)]


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_usage_with_every_chunk_counts_merged_tokens(endpoint: str) -> None:
    found = drive(ScriptedOpenAi(merged=2), request(), endpoint=endpoint)
    assert found.chunks.tokens.tolist() == [2, 2, 1]
    assert len(found.chunks.token_ids) == 0
    table = found.requests
    together = found.chunks.stamp_ns == table.first_ns[0]  # more than the first, where one read brought them
    assert table.first_tokens.tolist() == [found.chunks.tokens[together].sum()]
    assert (table.tokens.tolist(), table.outcome) == ([5], ("ok",))


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
@pytest.mark.parametrize("refused", [("continuous_usage_stats",), ()])
def test_usage_at_the_end_tells_the_total_and_no_more(endpoint: str, refused: tuple[str, ...]) -> None:
    found = drive(ScriptedOpenAi(continuous=False, merged=2, refused=refused), request(), endpoint=endpoint)
    assert found.chunks.tokens.tolist() == [-1, -1, -1]
    table = found.requests
    assert (table.tokens.tolist(), table.first_tokens.tolist(), table.outcome) == ([5], [-1], ("ok",))
    assert 0 < table.first_ns[0] <= table.last_ns[0]


def test_the_whole_answer_at_once_is_counted() -> None:
    found = drive(ScriptedOpenAi(), request(streaming=False))
    assert (found.requests.tokens.tolist(), found.requests.first_tokens.tolist()) == ([5], [5])


def test_prompts_are_counted_where_usage_comes_at_the_end() -> None:
    found = drive(ScriptedOpenAi(continuous=False), request(), tokenizer=TOKENIZER_SPEC)
    assert tuple(found.chunks.token_ids) == answer_ids(PROMPT_IDS, 5, None)
    assert found.requests.reported_prompt_tokens.tolist() == [len(PROMPT_IDS)]


def test_requests_carry_what_the_servers_add_to_the_standard() -> None:
    warm = Sampling(temperature=0.5, top_k=9, seed=3)
    with ScriptedServer(ScriptedOpenAi()) as server:
        session = open_session(options(server.url, token_ids=True))
        run_round(session, [request(sampling=warm)], Batch(1), PATIENCE_S)
        session.close()
        asked = server.asked[-1]
    assert asked.path == "/v1/completions"
    assert asked.json == {
        "model": MODEL,
        "prompt": list(PROMPT_IDS),
        "max_tokens": 5,
        "stream": True,
        "temperature": 0.5,
        "seed": 3,
        "top_k": 9,
        "ignore_eos": True,
        "add_special_tokens": False,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }


def test_a_server_that_refuses_unknown_keys_is_asked_without_them() -> None:
    with ScriptedServer(ScriptedOpenAi(refused=("ignore_eos", "top_k", "add_special_tokens"))) as server:
        session = open_session(options(server.url))
        run_round(session, [request()], Batch(1), PATIENCE_S)
        with pytest.raises(SessionError, match="takes no top_k"):
            session.submit([request(sampling=Sampling(temperature=1.0, top_k=3))])
        facts = session.facts()
        session.close()
        asked = server.asked[-1]
    assert asked.json.keys() == {"model", "prompt", "max_tokens", "stream", "temperature", "stream_options"}
    assert asked.json["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert (facts["exact_length_input"], facts["extra_keys"]) == (None, ["continuous_usage_stats"])


def test_a_server_that_refuses_every_request_is_one_sentence() -> None:
    sentence = r"\(HTTP 422\): body.stream_options: Extra inputs; body.prompt: Extra inputs\.$"
    with (
        ScriptedServer(ScriptedOpenAi(refused=("stream_options", "prompt"))) as server,
        pytest.raises(SessionError, match=sentence),
    ):
        open_session(options(server.url))


@pytest.mark.parametrize("model", [MODEL, "other"])
def test_a_server_that_lists_nothing_is_believed_to_serve_what_is_named(model: str) -> None:
    with ScriptedServer(ScriptedOpenAi(listed=())) as server:
        if model == MODEL:
            open_session(options(server.url)).close()
        else:
            with pytest.raises(SessionError, match=r"\(HTTP 404\): The model `other` does not exist"):
                open_session(options(server.url, model=model))
        with pytest.raises(SessionError, match="needs the name of a model: it has none"):
            open_session(options(server.url, model=None))


def delta(finish: str | None = None, **content: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "logprobs": None, "finish_reason": finish}]}


def part(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish}]}


USAGE = {"usage": {"prompt_tokens": len(PROMPT_IDS), "completion_tokens": 5, "total_tokens": len(PROMPT_IDS) + 5}}


@pytest.mark.parametrize(
    ("endpoint", "events", "total", "chunks"),
    [
        # transformers serve 5.23: usage in the last event of a choice, and no [DONE]
        ("completions", (part("el"), part("are"), part("", "length") | USAGE), 5, 2),
        ("chat", (delta(role="assistant"), delta(content="el"), delta(content="are"), delta("length") | USAGE), 5, 2),
        # llama-cpp-python 0.3.36: no usage in a stream; tokens that make no text yet are sent as empty ones
        ("completions", (part("el"), part(""), part("are"), part("", "length"), DONE), -1, 2),
        ("chat", (delta(role="assistant"), delta(content="el"), delta("length"), DONE), -1, 1),
        # thoughts under both names, as servers have them
        ("chat", (delta(reasoning_content="el"), delta(reasoning="are"), delta("stop") | USAGE, DONE), 5, 2),
    ],
)
def test_streams_as_servers_were_seen_to_send_them(
    endpoint: str, events: Sequence[dict[str, Any] | bytes], total: int, chunks: int
) -> None:
    stream = (piece(each if isinstance(each, bytes) else event(each)) for each in events)
    found = drive(ScriptedOpenAi(stream=(*stream, END)), request(), endpoint=endpoint)
    assert found.requests.outcome == ("ok",)
    assert (found.requests.tokens.tolist(), len(found.chunks)) == ([total], chunks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, r"has no model 'other': it has served"),
        ({"endpoint": "embeddings"}, r"needs the options 'urls' and 'endpoint'"),
        ({"endpoint": "chat", "token_ids": True}, "takes no token ids"),
        ({"connections": 0}, "cannot open 0 connections"),
        ({"urls": ["https://127.0.0.1:1"]}, r"write http://HOST:PORT"),
    ],
)
def test_options_that_cannot_be_used_are_one_sentence(changes: dict[str, Any], message: str) -> None:
    with ScriptedServer(ScriptedOpenAi()) as server, pytest.raises(SessionError, match=message):
        open_session(options(server.url, **changes))


def test_nobody_there_is_one_sentence() -> None:
    with ScriptedServer(ScriptedOpenAi()) as server:
        url = server.url
    with pytest.raises(SessionError, match=rf"No OpenAI-compatible server answers at {url}"):
        open_session(options(url))


def test_a_server_that_only_keeps_the_connection_has_stalled() -> None:
    pings = (piece(b": ping\r\n\r\n"), 0.05) * 1000
    with ScriptedServer(ScriptedOpenAi(after_one=(*pings, piece(DONE) + END))) as server:
        session = open_session(options(server.url))
        raw = run_round(session, [request()], Batch(1), stall_timeout_s=0.5)
        found = record(session, raw, round_index=0, warmup=False)
        session.close()
    assert found.requests.outcome == ("stall",)
    assert found.chunks.tokens.tolist() == [1]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ((piece(event({"error": {"message": "out of memory", "code": 500}})) + END,), "failed: out of memory"),
        ((piece(event({"object": "error", "message": "no more", "code": 500}) + DONE) + END,), "failed: no more"),
        ((CLOSE,), "lost in the middle of the answer"),
        ((piece(b"data: oops\n\n" + DONE) + END,), "not JSON: oops"),
        ((piece(b"data: 5\n\n" + DONE) + END,), "failed: 5"),
    ],
)
def test_what_breaks_in_mid_stream_is_an_error_after_the_good_part(rest: tuple[Step, ...], message: str) -> None:
    found = drive(ScriptedOpenAi(after_one=rest), request())
    assert found.requests.outcome == ("error",)
    assert message in found.requests.error[0]
    assert found.chunks.tokens.tolist() == [1]


def test_facts_tell_the_server_and_the_endpoint() -> None:
    with ScriptedServer(ScriptedOpenAi()) as server:
        session = open_session(options(server.url))
        facts = session.facts()
        session.close()
    assert (facts["owned_by"], facts["endpoint"], facts["connections_opened"]) == ("tensorrt_llm", "completions", 2)
