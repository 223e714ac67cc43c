"""Triton's messages: what is asked of a model, and what its answers mean."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.answers import explain
from enginebench.runtimes.base import Arrival
from enginebench.runtimes.triton_messages import CORE, LLM_API, TEXT, Model, Names, decode, read_model
from tests.support.scripted_server import event
from tests.support.scripted_triton import INPUTS, TOKENIZER

PROMPT = "你是谁？"
REQUEST = Request(0, PROMPT, TOKENIZER.encode(PROMPT), 3, streaming=True, sampling=Sampling())


def model(names: Names = TEXT, *without: str, **more: str) -> Model:
    inputs = INPUTS["tensorrt_llm" if names is CORE else "ensemble"]
    return Model("m", {name: kind for name, kind in inputs.items() if name not in without} | more, names)


def body(of: Model, **changes: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(of.body(replace(REQUEST, **changes)))
    return parsed


def chunks(of: Model, objects: Sequence[Any], request: Request = REQUEST, tokenizer: Any = TOKENIZER) -> list[Any]:
    """What events of ``objects`` decode to: (stamp, text or ids, error, prompt tokens)."""
    arrivals = [Arrival(0, 10 + at, event(each)) for at, each in enumerate(objects)]
    found = decode(arrivals, {0: request}, of, tokenizer)
    return [(each.stamp_ns, TOKENIZER.decode(each.token_ids), each.error, each.prompt_tokens) for each in found]


def texts(of: Model, events: Sequence[str], output_tokens: int = 3) -> list[str]:
    objects = [{"text_output": text} for text in events]
    return [text for _, text, _, _ in chunks(of, objects, replace(REQUEST, output_tokens=output_tokens))]


def test_text_is_asked_for_as_declared() -> None:
    assert body(model()) == {
        "text_input": PROMPT,
        "max_tokens": 3,
        "stream": True,
        "return_num_input_tokens": True,
        "exclude_input_in_output": True,
        "end_id": -1,
        "top_k": 1,
    }


def test_ids_are_asked_for_as_declared() -> None:
    asked = body(model(CORE), streaming=False)
    assert asked["input_ids"] == list(REQUEST.prompt_ids)
    assert (asked["input_lengths"], asked["request_output_len"]) == (len(REQUEST.prompt_ids), 3)
    assert (asked["streaming"], asked["runtime_top_k"], asked["end_id"]) == (False, 1, -1)


def test_chinese_goes_out_as_utf8() -> None:
    assert PROMPT.encode() in model().body(REQUEST)


def test_what_is_not_declared_is_not_sent() -> None:
    old = model(TEXT, "return_num_input_tokens", "exclude_input_in_output")
    assert body(old).keys() == {"text_input", "max_tokens", "stream", "end_id", "top_k"}


def test_an_unsigned_end_id_gives_way_to_the_least_length() -> None:
    assert body(model(TEXT, end_id="UINT32", min_length="UINT32"))["min_length"] == 3
    assert model(TEXT, "end_id").exact_length is None


def test_drawing_sends_temperature_and_seed_under_the_names_of_the_version() -> None:
    warm = Sampling(temperature=0.7, top_k=40, seed=7)
    assert body(model(), sampling=warm).items() >= {"temperature": 0.7, "top_k": 40, "seed": 7}.items()
    assert body(model(TEXT, "seed", random_seed="UINT64"), sampling=warm)["random_seed"] == 7
    assert "top_k" not in body(model(), sampling=replace(warm, top_k=0))


@pytest.mark.parametrize(
    ("missing", "sampling"),
    [
        ("top_k", Sampling()),
        ("temperature", Sampling(temperature=1.0)),
        ("seed", Sampling(temperature=1.0, seed=3)),
    ],
)
def test_sampling_that_the_model_does_not_know_is_named(missing: str, sampling: Sampling) -> None:
    with pytest.raises(SessionError, match=rf"Model m has no input '{missing}'.*sampling\.{missing}"):
        model(TEXT, missing).body(replace(REQUEST, sampling=sampling))


def test_a_model_of_another_kind_is_refused() -> None:
    metadata = {"name": "resnet", "inputs": [{"name": "image", "datatype": "FP32"}], "outputs": []}
    with pytest.raises(SessionError, match="resnet cannot be driven"):
        read_model(metadata)


def test_deltas_become_ids_with_stamps_and_the_input_length() -> None:
    objects = [{"text_output": "一", "num_input_tokens": 4}, {"text_output": "丁七", "num_input_tokens": "4"}]
    assert chunks(model(), objects) == [(10, "一", None, 4), (11, "丁七", None, 4)]


def test_accumulated_text_becomes_deltas() -> None:
    assert texts(model(), ["一", "一丁", "一丁七"]) == ["一", "丁", "七"]


def test_repetition_is_not_accumulation() -> None:
    assert texts(model(), ["一", "一", "一"]) == ["一", "一", "一"]
    assert texts(model(), ["一", "一", "一一"], output_tokens=4) == ["一", "一", "一一"]


def test_one_answer_that_does_not_accumulate_speaks_for_all() -> None:
    arrivals = [
        Arrival(index, 10, event({"text_output": text}))
        for index, answer in enumerate([["一", "一一"], ["丁", "七"]])
        for text in answer
    ]
    requests = {index: replace(REQUEST, index=index, output_tokens=2) for index in range(2)}
    found = decode(arrivals, requests, model(), TOKENIZER)
    assert [len(chunk.token_ids) for chunk in found if chunk.request_index == 0] == [1, 2]


@pytest.mark.parametrize("value", [[], "", [""]])
def test_an_event_without_text_is_no_chunk(value: Any) -> None:
    assert chunks(model(), [{"text_output": "一"}, {"text_output": value}]) == [(10, "一", None, None)]


def test_a_scalar_and_a_list_of_ids_are_both_understood() -> None:
    objects = [{"output_ids": 300}, {"output_ids": [301, 302]}, {"output_ids": []}]
    arrivals = [Arrival(0, at, event(each)) for at, each in enumerate(objects)]
    found = decode(arrivals, {0: REQUEST}, model(CORE), None)
    assert [chunk.token_ids for chunk in found] == [(300,), (301, 302)]


def test_the_end_mark_is_no_chunk() -> None:
    arrivals = [Arrival(0, 1, b'data: {"text_output": "\xe4\xb8\x80"}\n\ndata: [DONE]\n\n')]
    assert len(decode(arrivals, {0: REQUEST}, model(), TOKENIZER)) == 1


def test_an_error_in_mid_stream_is_a_chunk_with_the_error() -> None:
    found = chunks(model(), [{"text_output": "一"}, {"error": "in ensemble 'ensemble', out of memory"}])
    assert found[0] == (10, "一", None, None)
    assert found[1][2] == "Model m failed: in ensemble 'ensemble', out of memory"


def test_an_error_inside_a_good_response_is_an_error() -> None:
    request = replace(REQUEST, streaming=False)
    arrivals = [Arrival(0, 1, b'{"error": "generate expects model '), Arrival(0, 2, b'to produce 1 response"}', True)]
    (chunk,) = decode(arrivals, {0: request}, model(), TOKENIZER)
    assert (chunk.stamp_ns, chunk.token_ids) == (2, ())
    assert chunk.error == "Model m failed: generate expects model to produce 1 response"


def test_a_failed_arrival_is_a_chunk_with_its_error() -> None:
    arrivals = [Arrival(0, 1, event({"text_output": "一"})), Arrival(0, 2, b"", True, "Connection lost.")]
    found = decode(arrivals, {0: REQUEST}, model(), TOKENIZER)
    assert [(chunk.stamp_ns, chunk.error) for chunk in found] == [(1, None), (2, "Connection lost.")]


def test_what_is_not_json_is_an_error() -> None:
    (chunk,) = decode([Arrival(0, 1, b"data: <html>\n\n")], {0: REQUEST}, model(), TOKENIZER)
    assert chunk.error == "Model m sent what is not JSON: <html>"


@pytest.mark.parametrize(("declared", "expected"), [(True, "你是谁？一"), (False, "一")])
def test_a_prompt_before_the_answer_is_taken_off_where_it_cannot_be_left_out(declared: bool, expected: str) -> None:
    request = replace(REQUEST, streaming=False)
    text = model() if declared else model(TEXT, "exclude_input_in_output")
    core = model(CORE) if declared else model(CORE, "exclude_input_in_output")
    for which, answer in (
        (text, {"text_output": PROMPT + "一"}),
        (core, {"output_ids": TOKENIZER.encode(PROMPT + "一")}),
    ):
        (chunk,) = decode([Arrival(0, 1, json.dumps(answer).encode())], {0: request}, which, TOKENIZER)
        assert TOKENIZER.decode(chunk.token_ids) == expected


def test_text_that_identifies_no_ids_is_not_counted() -> None:
    (chunk,) = decode([Arrival(0, 1, event({"text_output": "hello"}))], {0: REQUEST}, model(), None)
    assert not chunk.counted
    assert chunk.token_ids == ()


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ([1, 1, 1], [1, 1, 1]),
        ([1, 2, 1], [1, 2, 1]),
        ([[1], ["2"]], [1, 2]),
        ([1, 2, 3], [1, 1, 1]),  # totals so far
        ([1, 3], [1, 2]),
    ],
)
def test_what_the_server_counts_is_counted_where_ids_are_not_known(told: list[Any], counts: list[int]) -> None:
    arrivals = [
        Arrival(0, at, event({"text_output": "x", "num_output_tokens": count})) for at, count in enumerate(told)
    ]
    found = decode(arrivals, {0: replace(REQUEST, output_tokens=sum(counts))}, model(), None)
    assert [(chunk.tokens, chunk.token_ids) for chunk in found] == [(count, ()) for count in counts]
    assert found[-1].total_tokens == sum(counts)


def test_a_count_for_some_events_counts_none_of_the_others() -> None:
    arrivals = [Arrival(0, 0, event({"text_output": "x"})), Arrival(0, 1, event({"text_output": "y"}))]
    arrivals += [Arrival(0, 2, event({"text_output": "z", "num_output_tokens": 1}))]
    found = decode(arrivals, {0: REQUEST}, model(), None)
    assert [chunk.counted for chunk in found] == [False, False, False]


def test_the_llm_api_is_asked_for_as_it_declares() -> None:
    llm_api = Model("tensorrt_llm", INPUTS["llmapi"], LLM_API)
    warm = Sampling(temperature=0.5, top_k=3, seed=9)
    assert body(llm_api, sampling=warm) == {
        "text_input": PROMPT,
        "streaming": True,
        "sampling_param_max_tokens": 3,
        "sampling_param_temperature": 0.5,
        "sampling_param_top_k": 3,
        "sampling_param_seed": 9,
        "sampling_param_exclude_input_from_output": True,
    }
    assert llm_api.exact_length is None
    assert llm_api.excludes_prompt


def test_each_kind_of_model_is_told_by_what_it_declares() -> None:
    for name, names in (("ensemble", TEXT), ("tensorrt_llm", CORE), ("llmapi", LLM_API)):
        inputs = [{"name": each, "datatype": kind} for each, kind in INPUTS[name].items()]
        assert read_model({"name": "m", "inputs": inputs, "outputs": [{"name": names.output}]}).names is names


def test_chunks_of_many_requests_come_in_the_order_of_their_stamps() -> None:
    arrivals = [Arrival(at % 2, at, event({"output_ids": 300 + at})) for at in range(6)]
    found = decode(arrivals, {0: REQUEST, 1: REQUEST}, model(CORE), None)
    assert [chunk.token_ids for chunk in found] == [(300 + at,) for at in range(6)]


@pytest.mark.parametrize(
    ("status", "content_type", "content", "expected"),
    [
        (400, "text/event-stream", b'data: {"error":"no."}\n\n', "refused the request (HTTP 400): no."),
        (404, "application/json", b'{"error":"unknown model"}', "refused the request (HTTP 404): unknown model."),
        (503, "", b"", "refused the request (HTTP 503): an empty body."),
        (200, "text/html", b"<p>", "answered with content type 'text/html': <p>."),
    ],
)
def test_refusals_are_explained(status: int, content_type: str, content: bytes, expected: str) -> None:
    assert explain("m", status, content_type, content) == f"Model m {expected}"
