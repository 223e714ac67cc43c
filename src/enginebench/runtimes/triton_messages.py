"""What Triton's generate endpoints are asked and what they answer, for TensorRT-LLM's models: pure.

Requests are built from the inputs that a model declares, because Triton takes unknown keys for parameters without a
word. Answers become chunks after the round. Sends nothing and measures nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes import answers
from enginebench.runtimes.answers import Piece, Reader
from enginebench.runtimes.base import UNKNOWN, Arrival
from enginebench.runtimes.columns import ChunkLog

_NO_END_ID = -1  # the engine then has no end of sequence
_EMPTY = {"bad_words": "", "stop_words": ""}  # 0.5 cannot do without them

PERF_METRICS = (
    "arrival_time_ns",
    "first_scheduled_time_ns",
    "first_token_time_ns",
    "last_token_time_ns",
    "kv_cache_reused_blocks",
    "kv_cache_reused_block",  # the LLM API's name
)
"""What an engine says of a request when it is asked for perf metrics; stamps are of a clock of its own."""


@dataclass(frozen=True, slots=True)
class Names:
    """How a kind of model calls what we need; of several names, the one that it declares is used."""

    prompt: str
    length: str
    stream: str
    temperature: str
    top_k: str
    output: str
    seed: tuple[str, ...] = ("seed", "random_seed")
    min_length: tuple[str, ...] = ("min_tokens", "min_length")
    excludes_prompt: str = "exclude_input_in_output"
    perf_metrics: str = "return_perf_metrics"


TEXT = Names("text_input", "max_tokens", "stream", "temperature", "top_k", "text_output")
"""``ensemble`` and ``tensorrt_llm_bls``: text in, text out."""

CORE = Names("input_ids", "request_output_len", "streaming", "temperature", "runtime_top_k", "output_ids")
"""``tensorrt_llm`` of ``inflight_batcher_llm``: token ids in, token ids out."""

LLM_API = Names(
    "text_input",
    "sampling_param_max_tokens",
    "streaming",
    "sampling_param_temperature",
    "sampling_param_top_k",
    "text_output",
    seed=("sampling_param_seed",),
    min_length=(),  # an end of sequence ends its answers: a short one is a finding
    excludes_prompt="sampling_param_exclude_input_from_output",
    perf_metrics="sampling_param_return_perf_metrics",
)
"""``tensorrt_llm`` of ``llmapi``: text in, the whole text so far out."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as ``GET /v2/models/NAME`` describes it."""

    name: str
    inputs: Mapping[str, str]  # name → datatype
    names: Names
    required: frozenset[str] = frozenset()  # inputs that it cannot do without, as far as its configuration tells

    @property
    def takes_ids(self) -> bool:
        """Whether prompts and answers are token ids; text otherwise."""
        return self.names is CORE

    @property
    def exact_length(self) -> str | None:
        """The input that makes answers as long as asked, whatever the engine would say; None: there is none."""
        if self.inputs.get("end_id", "").startswith("INT"):
            return "end_id"
        return next((name for name in self.names.min_length if name in self.inputs), None)

    @property
    def excludes_prompt(self) -> bool:
        """Whether the prompt can be left out of answers that do not stream."""
        return self.names.excludes_prompt in self.inputs

    @property
    def counts_tokens(self) -> bool:
        """Whether it tells how many tokens an answer has."""
        return "return_num_output_tokens" in self.inputs

    @property
    def tells_times(self) -> bool:
        """Whether it tells when the engine took up a request and made its tokens, when it is asked to."""
        return self.names.perf_metrics in self.inputs

    def body(self, request: Request, *, perf_metrics: bool = False) -> bytes:
        """The JSON that asks for ``request``; with ``perf_metrics``, also for what the engine knows of its time.

        Raises:
            SessionError: the model has no input for the request's sampling, or needs one that nobody knows.
        """
        names = self.names
        values: dict[str, Any] = {
            names.prompt: request.prompt_ids if self.takes_ids else request.prompt_text,
            names.length: request.output_tokens,
            names.stream: request.streaming,
            "return_num_input_tokens": True,
            "return_num_output_tokens": not self.takes_ids,
            names.excludes_prompt: True,
            "input_lengths": len(request.prompt_ids),
            **{name: value for name, value in _EMPTY.items() if name in self.required},
            **({names.perf_metrics: True} if perf_metrics else {}),
        }
        if exact := self.exact_length:
            values[exact] = _NO_END_ID if exact == "end_id" else request.output_tokens
        declared = {name: value for name, value in values.items() if name in self.inputs}
        declared |= self._sampling(request.sampling)
        if unknown := sorted(self.required - declared.keys()):
            raise SessionError(
                f"Model {self.name} needs the input {unknown[0]!r}, which nothing here can fill: give it "
                "optional: true in the model's config.pbtxt."
            )
        return json.dumps(declared, ensure_ascii=False).encode()

    def _sampling(self, sampling: Sampling) -> dict[str, float | int]:
        if sampling.temperature == 0:
            # Not every version knows temperature 0; the best of one candidate is greedy in all of them.
            return {self._declared("top_k", self.names.top_k): 1}
        values: dict[str, float | int] = {
            self._declared("temperature", self.names.temperature): float(sampling.temperature),
            self._declared("seed", *self.names.seed): sampling.seed,
        }
        if sampling.top_k:
            values[self._declared("top_k", self.names.top_k)] = sampling.top_k
        return values

    def _declared(self, what: str, *names: str) -> str:
        for name in names:
            if name in self.inputs:
                return name
        raise SessionError(
            f"Model {self.name} has no input {' or '.join(map(repr, names))}, which sampling.{what} needs: "
            "change the scenario's sampling or the model's config.pbtxt."
        )


def read_model(metadata: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Model:
    """Make a Model of Triton's metadata, and of its ``config``, which alone tells what is required.

    Raises:
        SessionError: it is a model of another kind.
    """
    inputs = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    outputs = {tensor["name"] for tensor in metadata["outputs"]}
    for names in (TEXT, CORE, LLM_API):
        if {names.prompt, names.length, names.stream} <= inputs.keys() and names.output in outputs:
            return Model(metadata["name"], inputs, names, _required(config or {}))
    raise SessionError(
        f"Model {metadata['name']} cannot be driven: it declares neither text_input, max_tokens, stream and "
        "text_output, nor input_ids, request_output_len, streaming and output_ids, nor text_input, "
        "sampling_param_max_tokens, streaming and text_output."
    )


def _required(config: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(each["name"] for each in config.get("input", ()) if not each.get("optional", False))


def decode(
    arrivals: Sequence[Arrival],
    requests: Mapping[int, Request],
    model: Model,
    tokenizer: Tokenizer | None,
    told: dict[int, dict[str, int]] | None = None,
) -> ChunkLog:
    """Turn a round's arrivals into chunks; ``tokenizer``: None unless text identifies ids.

    ``told`` takes the perf metrics in the answers, by the index of their request.
    """
    piece = partial(_piece, model) if told is None else partial(_piece_and_times, model, told)
    reader = Reader(f"Model {model.name}", piece, model.takes_ids, may_accumulate=not model.takes_ids)
    return answers.decode(arrivals, requests, reader, tokenizer)


def _piece_and_times(
    model: Model, told: dict[int, dict[str, int]], answer: Mapping[str, Any], request: Request
) -> Piece:
    """Some versions tell with every token, others with the last one: the last word counts."""
    times = {name: _count(answer[name]) for name in PERF_METRICS if name in answer}
    if times:
        told[request.index] = times
    return _piece(model, answer, request)


def _piece(model: Model, answer: Mapping[str, Any], request: Request) -> Piece:
    value = answer.get(model.names.output, ())
    prompt_tokens = _count(answer.get("num_input_tokens"))
    tokens = _count(answer.get("num_output_tokens"))
    # Tensors of one element come as scalars, longer ones as flat lists, empty ones as empty lists.
    if model.takes_ids:
        ids = (value,) if isinstance(value, int) else tuple(map(int, _as_list(value)))
        piece = Piece("", ids, None, prompt_tokens)
    else:
        text = value if isinstance(value, str) else "".join(map(str, _as_list(value)))
        piece = Piece(text, (), None, prompt_tokens, tokens)
    return piece if request.streaming or model.excludes_prompt else _without_prompt(piece, request)


def _count(value: Any) -> int:
    """A count as an integer or a string of digits, alone or in a list; -1 when there is none."""
    if isinstance(value, int):
        return value
    values = _as_list(() if value is None else value)
    return int(values[0]) if values else UNKNOWN


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _without_prompt(piece: Piece, request: Request) -> Piece:
    """Take the prompt off an answer that repeats it, as versions without ``exclude_input_in_output`` do."""
    length = len(request.prompt_ids)
    repeated = len(piece.token_ids) > length and tuple(piece.token_ids[:length]) == request.prompt_ids
    return piece._replace(
        text=piece.text.removeprefix(request.prompt_text),
        token_ids=piece.token_ids[length:] if repeated else piece.token_ids,
    )
