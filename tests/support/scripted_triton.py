"""A script that speaks Triton's generate endpoints as 2.51 was seen to do, for TensorRT-LLM's models.

Answers are a pure function of prompt, seed and position, so that tests know them. It runs no engine.
"""

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from enginebench.reference.tokenizer import ReferenceTokenizer
from enginebench.runtimes.answers import EVENT_STREAM, JSON
from tests.support.scripted_server import Asked, Step, event, head, piece, stream, whole

TOKENIZER = ReferenceTokenizer(vocab_size=1024)
TOKENIZER_SPEC = {"kind": "reference", "vocab_size": 1024}
MAX_TOKENS = 1000
STEP_S = 0.001

_COMMON = {"exclude_input_in_output": "BOOL", "end_id": "INT32", "temperature": "FP32", "seed": "UINT64"}
_COUNTS = {"return_num_input_tokens": "BOOL"}
_TEXT = {"text_input": "BYTES", "max_tokens": "INT32", "stream": "BOOL", "top_k": "INT32"} | _COMMON | _COUNTS
_CORE = {
    "input_ids": "INT32",
    "input_lengths": "INT32",
    "request_output_len": "INT32",
    "streaming": "BOOL",
    "runtime_top_k": "INT32",
}
_LLM_API = {"text_input": "BYTES", "streaming": "BOOL"} | {
    f"sampling_param_{name}": kind
    for name, kind in {
        "max_tokens": "INT32",
        "temperature": "FP32",
        "top_k": "INT32",
        "seed": "UINT64",
        "exclude_input_from_output": "BOOL",
    }.items()
}
INPUTS = {
    "ensemble": _TEXT,
    "tensorrt_llm_bls": _TEXT,
    "tensorrt_llm": _CORE | _COMMON | _COUNTS,
    "llmapi": _LLM_API,  # in its repository it is called tensorrt_llm, too
}


def answer_ids(prompt_ids: tuple[int, ...], output_tokens: int, seed: int | None) -> tuple[int, ...]:
    """What the server says to a prompt; ``seed`` None is greedy."""
    draw = random.Random(f"{prompt_ids} {seed}")
    return tuple(draw.choice(TOKENIZER.plain_ids) for _ in range(output_tokens))


@dataclass
class ScriptedTriton:
    """The script. ``inputs`` are what models declare; ``tensorrt_llm_bls`` and ``llmapi`` accumulate their text."""

    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: INPUTS)
    decoupled: bool = True
    version: str = "2.51.0"
    parameters: Mapping[str, str] = field(default_factory=dict)  # of every model
    after_one: tuple[Step, ...] | None = None  # what follows the first event of a stream, when it is to go wrong

    def __call__(self, asked: Asked) -> Iterator[Step]:
        """Answer one request."""
        parts = asked.path.split("/")
        if asked.path == "/v2":
            yield _json(200, {"name": "scripted", "version": self.version, "extensions": []})
        elif parts[3] not in self.inputs:
            yield _json(404, {"error": f"Request for unknown model: '{parts[3]}' is not found"})
        elif asked.method == "GET":
            yield _json(200, self._config() if parts[-1] == "config" else self._metadata(parts[3]))
        else:
            yield from self._generate(parts[3], parts[4], asked.json)

    def _config(self) -> dict[str, Any]:
        policy = {"model_transaction_policy": {"decoupled": True}} if self.decoupled else {}
        return {**policy, "parameters": {name: {"string_value": value} for name, value in self.parameters.items()}}

    def _metadata(self, model: str) -> dict[str, Any]:
        outputs = ["output_ids"] if model == "tensorrt_llm" else ["text_output"]
        return {
            "name": model,
            "inputs": [{"name": name, "datatype": kind, "shape": [-1, 1]} for name, kind in self.inputs[model].items()],
            "outputs": [{"name": name, "datatype": "?", "shape": [-1]} for name in [*outputs, "num_input_tokens"]],
        }

    def _generate(self, model: str, endpoint: str, body: dict[str, Any]) -> Iterator[Step]:
        unknown = body.keys() - self.inputs[model].keys()
        assert not unknown, f"sent what the model does not declare: {unknown}"
        core, llm_api = model == "tensorrt_llm", model == "llmapi"
        prefix = "sampling_param_" if llm_api else ""
        asked_for = body["request_output_len" if core else prefix + "max_tokens"]
        if asked_for > MAX_TOKENS:
            refusal = event({"error": f"in ensemble 'ensemble', {asked_for} tokens exceed the limit of {MAX_TOKENS}"})
            yield head(400, EVENT_STREAM) + piece(refusal) + b"0\r\n\r\n"
            return
        prompt_ids = tuple(body["input_ids"]) if core else TOKENIZER.encode(body["text_input"])
        greedy = body["runtime_top_k" if core else prefix + "top_k"] == 1
        ids = answer_ids(prompt_ids, asked_for, None if greedy else body[prefix + "seed"])
        objects = [self._object(model, part, prompt_ids) for part in _parts(model, endpoint, ids)]
        if endpoint == "generate":
            yield _json(200, objects[0])
        elif self.after_one is not None:
            yield head() + piece(event(objects[0]))
            yield from self.after_one
        else:
            yield from _paced(objects)

    def _object(self, model: str, ids: tuple[int, ...], prompt_ids: tuple[int, ...]) -> dict[str, Any]:
        # Tensors of one element are written as scalars.
        value: Any = list(ids) if len(ids) > 1 else ids[0]
        output = {"output_ids": value} if model == "tensorrt_llm" else {"text_output": TOKENIZER.decode(ids)}
        counts = {} if model == "llmapi" else {"num_input_tokens": len(prompt_ids)}
        return {"model_name": model} | counts | output


def _paced(objects: list[dict[str, Any]]) -> Iterator[Step]:
    for step in stream(*map(event, objects)):
        yield step
        yield STEP_S


def _parts(model: str, endpoint: str, ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    if endpoint == "generate":
        return [ids]
    accumulates = model in ("tensorrt_llm_bls", "llmapi")
    return [ids[: at + 1] if accumulates else ids[at : at + 1] for at in range(len(ids))]


def _json(status: int, value: Any) -> bytes:
    return whole(status, JSON, json.dumps(value).encode())
