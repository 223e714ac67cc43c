"""What Triton's generate endpoints are asked and what they answer, for the models of ``inflight_batcher_llm``: pure.

Requests are built from the inputs that a model declares, because Triton takes unknown keys for parameters without a
word. Answers become chunks after the round. Sends nothing and measures nothing.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes import sse
from enginebench.runtimes.base import Arrival, Chunk

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
_EXCERPT = 300
_NO_END_ID = -1  # the engine then has no end of sequence


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


TEXT = Names("text_input", "max_tokens", "stream", "temperature", "top_k", "text_output")
"""``ensemble`` and ``tensorrt_llm_bls``: text in, text out."""

CORE = Names("input_ids", "request_output_len", "streaming", "temperature", "runtime_top_k", "output_ids")
"""``tensorrt_llm``: token ids in, token ids out."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as ``GET /v2/models/NAME`` describes it."""

    name: str
    inputs: Mapping[str, str]  # name → datatype
    names: Names

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
        return "exclude_input_in_output" in self.inputs

    def body(self, request: Request) -> bytes:
        """The JSON that asks for ``request``. Raises SessionError when the model has no input for its sampling."""
        names = self.names
        values: dict[str, Any] = {
            names.prompt: request.prompt_ids if self.takes_ids else request.prompt_text,
            names.length: request.output_tokens,
            names.stream: request.streaming,
            "return_num_input_tokens": True,
            "exclude_input_in_output": True,
            "input_lengths": len(request.prompt_ids),
        }
        if exact := self.exact_length:
            values[exact] = _NO_END_ID if exact == "end_id" else request.output_tokens
        declared = {name: value for name, value in values.items() if name in self.inputs}
        return json.dumps({**declared, **self._sampling(request.sampling)}, ensure_ascii=False).encode()

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


def read_model(metadata: Mapping[str, Any]) -> Model:
    """Make a Model of Triton's metadata. Raises SessionError for a model of another kind."""
    inputs = {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]}
    outputs = {tensor["name"] for tensor in metadata["outputs"]}
    for names in (TEXT, CORE):
        if {names.prompt, names.length, names.stream} <= inputs.keys() and names.output in outputs:
            return Model(metadata["name"], inputs, names)
    raise SessionError(
        f"Model {metadata['name']} cannot be driven: it declares neither text_input, max_tokens, stream and "
        "text_output nor input_ids, request_output_len, streaming and output_ids."
    )


def explain(model: str, status: int, content_type: str, body: bytes) -> str:
    """Say in one sentence why a response was not what it should be."""
    if status == 200:
        return f"Model {model} answered with content type {content_type!r}: {_excerpt(body)}."
    events = sse.events([sse.Read(0, body)]) if content_type.startswith(EVENT_STREAM) else ()
    texts = [event.data for event in events] or [_excerpt(body)]
    return f"Model {model} refused the request (HTTP {status}): {_error_of(texts[0]).rstrip('. ')}."


@dataclass(frozen=True, slots=True)
class Piece:
    """One JSON object of an answer."""

    stamp_ns: int
    text: str = ""
    token_ids: tuple[int, ...] = ()
    error: str | None = None
    prompt_tokens: int | None = None
    counted: bool = True


def decode(
    arrivals: Sequence[Arrival], requests: Mapping[int, Request], model: Model, tokenizer: Tokenizer | None
) -> list[Chunk]:
    """Turn a round's arrivals into chunks, in the order of their stamps.

    ``tokenizer`` turns text into ids: None unless text identifies ids; the tokens of text are then not known.
    """
    reads: dict[int, list[sse.Read]] = {}
    for arrival in arrivals:
        assert isinstance(arrival.payload, bytes)
        reads.setdefault(arrival.request_index, []).append(sse.Read(arrival.stamp_ns, arrival.payload))
    answers = {index: _pieces(requests[index], got, model) for index, got in reads.items()}
    if not model.takes_ids:
        answers = _identify(answers, requests, tokenizer)
    chunks = [
        Chunk(index, piece.stamp_ns, piece.token_ids, piece.error, piece.prompt_tokens, piece.counted)
        for index, pieces in answers.items()
        for piece in pieces
        if piece.token_ids or not piece.counted or piece.error
    ]
    chunks += [Chunk(each.request_index, each.stamp_ns, (), each.error) for each in arrivals if each.error]
    return sorted(chunks, key=lambda chunk: chunk.stamp_ns)


def _pieces(request: Request, reads: Sequence[sse.Read], model: Model) -> list[Piece]:
    if request.streaming:
        events: Iterable[sse.Event] = sse.events(reads)
    else:
        body = b"".join(read.data for read in reads)
        stamp_ns = max((read.stamp_ns for read in reads if read.data), default=0)
        events = [sse.Event(stamp_ns, body.decode("utf-8", "replace"))]
    pieces = [_piece(event, model) for event in events if event.data and event.data != sse.DONE]
    if request.streaming or model.excludes_prompt:
        return pieces
    return [_without_prompt(piece, request) for piece in pieces]


def _piece(event: sse.Event, model: Model) -> Piece:
    try:
        answer = json.loads(event.data)
    except ValueError:
        return Piece(event.stamp_ns, error=f"Model {model.name} sent what is not JSON: {event.data[:_EXCERPT]}")
    if not isinstance(answer, dict) or "error" in answer:
        return Piece(event.stamp_ns, error=f"Model {model.name} failed: {_error_of(event.data)}")
    values = _as_list(answer.get(model.names.output, ()))
    reported = _as_list(answer.get("num_input_tokens", ()))
    prompt_tokens = int(reported[0]) if reported else None
    if model.takes_ids:
        return Piece(event.stamp_ns, token_ids=tuple(int(value) for value in values), prompt_tokens=prompt_tokens)
    return Piece(event.stamp_ns, "".join(str(value) for value in values), prompt_tokens=prompt_tokens)


def _as_list(value: Any) -> Sequence[Any]:
    """Tensors of one element come as scalars, longer ones as flat lists, empty ones as empty lists."""
    return value if isinstance(value, list | tuple) else (value,)


def _without_prompt(piece: Piece, request: Request) -> Piece:
    """Take the prompt off an answer that repeats it, as versions without ``exclude_input_in_output`` do."""
    length = len(request.prompt_ids)
    repeated = len(piece.token_ids) > length and piece.token_ids[:length] == request.prompt_ids
    return replace(
        piece,
        text=piece.text.removeprefix(request.prompt_text),
        token_ids=piece.token_ids[length:] if repeated else piece.token_ids,
    )


def _identify(
    answers: Mapping[int, Sequence[Piece]], requests: Mapping[int, Request], tokenizer: Tokenizer | None
) -> dict[int, list[Piece]]:
    """Replace text by the ids that it stands for, where a tokenizer can tell."""
    if tokenizer is None:
        return {index: [_uncounted(piece) for piece in pieces] for index, pieces in answers.items()}
    whole_so_far = _accumulates(answers, requests, tokenizer)
    return {index: _with_ids(pieces, _deltas(pieces, whole_so_far), tokenizer) for index, pieces in answers.items()}


def _uncounted(piece: Piece) -> Piece:
    return replace(piece, counted=False) if piece.text else piece


def _accumulates(answers: Mapping[int, Sequence[Piece]], requests: Mapping[int, Request], tokenizer: Tokenizer) -> bool:
    """Whether events carry the whole text so far, not what is new.

    Then in every answer each event begins with the one before. A stream that says the same again and again does that
    too: of the two readings, the one that comes nearer to the number of tokens asked for is right.
    """
    if_whole, if_deltas = 0, 0
    for index, pieces in answers.items():
        texts = [piece.text for piece in pieces if piece.text]
        if not all(later.startswith(earlier) for earlier, later in pairwise(texts)):
            return False
        asked = requests[index].output_tokens
        if_whole += abs(asked - len(tokenizer.encode(texts[-1]))) if texts else 0
        if_deltas += abs(asked - len(tokenizer.encode("".join(texts)))) if texts else 0
    return if_whole < if_deltas


def _with_ids(pieces: Sequence[Piece], texts: Sequence[str], tokenizer: Tokenizer) -> list[Piece]:
    found = [replace(piece, token_ids=tokenizer.encode(text)) for piece, text in zip(pieces, texts, strict=True)]
    if tuple(chain.from_iterable(piece.token_ids for piece in found)) != tokenizer.encode("".join(texts)):
        error = (
            "The stream splits its text inside a token, so that its ids are not known: measure the core path instead."
        )
        found[-1] = replace(found[-1], error=found[-1].error or error)
    return found


def _deltas(pieces: Sequence[Piece], whole_so_far: bool) -> list[str]:
    if not whole_so_far:
        return [piece.text for piece in pieces]
    deltas, known = [], ""
    for piece in pieces:
        deltas.append(piece.text[len(known) :])
        known = piece.text or known
    return deltas


def _error_of(text: str) -> str:
    """The message in a JSON error object, or the text itself."""
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    return str(answer["error"]) if isinstance(answer, dict) and "error" in answer else text


def _excerpt(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()[:_EXCERPT] or "an empty body"
