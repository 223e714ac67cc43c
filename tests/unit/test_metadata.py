"""Requests are built from what a server declares, version by version: names, types, and what it cannot do without."""

import json
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival
from enginebench.runtimes.triton_messages import decode, read_model
from tests.support.scripted_server import event
from tests.support.scripted_triton import TOKENIZER

PROMPT = "你是谁？"
REQUEST = Request(0, PROMPT, TOKENIZER.encode(PROMPT), 9, streaming=True, sampling=Sampling(temperature=0.5, seed=3))

# The inputs of upstream's templates that matter to a client: name → (type, dims, optional).
OPTIONAL = True
V05: dict[str, tuple[str, list[int], bool]] = {
    "text_input": ("BYTES", [-1], False),
    "max_tokens": ("UINT32", [-1], False),
    "bad_words": ("BYTES", [-1], False),
    "stop_words": ("BYTES", [-1], False),
    "end_id": ("UINT32", [1], OPTIONAL),
    "top_k": ("UINT32", [1], OPTIONAL),
    "temperature": ("FP32", [1], OPTIONAL),
    "min_length": ("UINT32", [1], OPTIONAL),
    "random_seed": ("UINT64", [1], OPTIONAL),
    "stream": ("BOOL", [1], OPTIONAL),
}
V09 = {**V05, "max_tokens": ("INT32", [-1], False), "end_id": ("INT32", [1], OPTIONAL)}
V09["bad_words"] = V09["stop_words"] = ("BYTES", [-1], OPTIONAL)
V1 = {
    **{name: value for name, value in V09.items() if name not in ("random_seed", "min_length")},
    "seed": ("UINT64", [1], OPTIONAL),
    "min_tokens": ("INT32", [1], OPTIONAL),
    "exclude_input_in_output": ("BOOL", [1], OPTIONAL),
    "return_perf_metrics": ("BOOL", [1], OPTIONAL),
    "return_num_input_tokens": ("BOOL", [1], OPTIONAL),
}
LLM_API = {
    "text_input": ("BYTES", [-1], False),
    "streaming": ("BOOL", [1], OPTIONAL),
    "sampling_param_max_tokens": ("INT32", [1], OPTIONAL),
    "sampling_param_temperature": ("FP32", [1], OPTIONAL),
    "sampling_param_seed": ("UINT64", [1], OPTIONAL),
    "sampling_param_return_perf_metrics": ("BOOL", [1], OPTIONAL),
}


def model(inputs: dict[str, tuple[str, list[int], bool]]) -> Any:
    """As ``GET /v2/models/NAME`` and ``/config`` describe it."""
    metadata = {
        "name": "ensemble",
        "inputs": [{"name": name, "datatype": kind, "shape": dims} for name, (kind, dims, _) in inputs.items()],
        "outputs": [{"name": "text_output", "datatype": "BYTES", "shape": [-1]}],
    }
    config = {"input": [{"name": name, "optional": optional} for name, (_, _, optional) in inputs.items()]}
    return read_model(metadata, config)


def asked(inputs: dict[str, tuple[str, list[int], bool]], *, perf_metrics: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(model(inputs).body(REQUEST, perf_metrics=perf_metrics))
    return body


COMMON = {"text_input": PROMPT, "max_tokens": 9, "stream": True, "temperature": 0.5}


def test_0_5_gets_its_required_words_and_its_old_names() -> None:
    words = {"bad_words": "", "stop_words": ""}
    assert asked(V05) == {**COMMON, **words, "min_length": 9, "random_seed": 3}


def test_0_9_can_do_without_an_end_of_sequence() -> None:
    assert asked(V09) == {**COMMON, "end_id": -1, "random_seed": 3}


def test_1_x_is_asked_under_its_new_names() -> None:
    extras = {"exclude_input_in_output": True, "return_num_input_tokens": True}
    assert asked(V1) == {**COMMON, **extras, "end_id": -1, "seed": 3}


def test_the_llm_api_is_asked_under_names_of_its_own() -> None:
    assert asked(LLM_API, perf_metrics=True) == {
        "text_input": PROMPT,
        "streaming": True,
        "sampling_param_max_tokens": 9,
        "sampling_param_temperature": 0.5,
        "sampling_param_seed": 3,
        "sampling_param_return_perf_metrics": True,
    }


def test_perf_metrics_are_asked_for_where_they_are_offered_and_wanted() -> None:
    assert asked(V1, perf_metrics=True) == {**asked(V1), "return_perf_metrics": True}
    assert asked(V09, perf_metrics=True) == asked(V09)
    assert model(V1).tells_times
    assert not model(V09).tells_times


def test_an_input_that_nobody_can_fill_is_named() -> None:
    with pytest.raises(SessionError, match=r"Model ensemble needs the input 'image_url', which nothing here can fill"):
        asked({**V1, "image_url": ("BYTES", [1], False)})


def test_a_sampling_key_that_is_not_declared_is_an_error() -> None:
    without = {name: value for name, value in V1.items() if name != "seed"}
    with pytest.raises(SessionError, match=r"no input 'seed' or 'random_seed', which sampling\.seed needs"):
        asked(without)


@pytest.mark.parametrize("write", [int, str, lambda value: [value], lambda value: [str(value)]])
def test_perf_metrics_are_read_as_numbers_texts_and_lists(write: Any) -> None:
    told: dict[int, dict[str, int]] = {}
    answers = [
        {"text_output": "一", "arrival_time_ns": write(5), "kv_cache_reused_blocks": write(0)},
        {"text_output": "丁", "arrival_time_ns": write(5), "last_token_time_ns": write(76735374300000)},
    ]
    arrivals = [Arrival(0, at + 1, event(answer)) for at, answer in enumerate(answers)]
    chunks = decode(arrivals, {0: REQUEST}, model(V1), TOKENIZER, told)
    assert told == {0: {"arrival_time_ns": 5, "last_token_time_ns": 76735374300000}}
    assert len(chunks) == 2
