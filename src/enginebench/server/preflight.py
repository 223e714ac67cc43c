"""A canary before the first cell: does this model stream, in order, at the asked length, with the prompt as it is?

Asks two small requests and decodes them as the measuring client does. What a server's version cannot show is
``unverified``; nothing is assumed, and nothing is refused here.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import ServerError, SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Chunk
from enginebench.runtimes.triton_messages import Model, decode, read_model
from enginebench.server.plain_http import fetch, fetch_json
from enginebench.server.probe import stream_events

Status = Literal["verified", "failed", "unverified", "not applicable"]

OUTPUT_TOKENS = 8
PROMPT_TOKENS = 160  # more than a block of the KV cache has, which is what a cache of prefixes is made of
TIMEOUT_S = 60.0

_REUSED = ("kv_cache_reused_blocks", "kv_cache_reused_block")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a measurement relies on, and how it was seen."""

    name: str  # canary, streaming, order, output_length, prompt_tokens, prefix_cache, replicas
    status: Status
    detail: str  # one sentence
    server: str = ""  # the URL of the one that was asked; "": every one

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the canary got: the JSON objects, and what the client makes of them."""

    objects: Sequence[Mapping[str, Any]]
    chunks: Sequence[Chunk]
    text: str  # or the ids, written

    @property
    def tokens(self) -> int | None:
        """None: nobody tells."""
        if any(chunk.tokens < 0 for chunk in self.chunks):
            return self.chunks[-1].total_tokens if self.chunks else None
        return sum(chunk.tokens for chunk in self.chunks)


def preflight(
    url: str, model: str, tokenizer: Tokenizer, *, longest_prompt: int | None, kv_cache_reuse: bool = False
) -> list[Check]:
    """Ask ``model`` at ``url`` for the same tokens twice, streaming and whole, and say what that shows.

    ``longest_prompt``: tokens that the build takes; None: unknown. A canary that breaks is one failed check.
    """
    try:
        known = read_model(
            fetch_json(f"{url}/v2/models/{model}"), config := fetch_json(f"{url}/v2/models/{model}/config")
        )
        decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
        canary = _Canary(url, known, tokenizer, _request(tokenizer, longest_prompt))
        streamed = canary.stream() if decoupled else None
        whole = canary.whole()
    except (ServerError, SessionError) as error:
        return [Check("canary", "failed", str(error), url)]
    checks = [
        _streaming(streamed),
        _order(streamed, whole),
        _length(streamed or whole),
        _prompt_tokens(canary, streamed or whole),
        _prefix_cache(canary, streamed, whole, kv_cache_reuse=kv_cache_reuse),
    ]
    return [replace(check, server=url) for check in checks]


def failures(checks: Sequence[Check]) -> list[str]:
    """A sentence for each check that failed; of several servers it says of which."""
    several = len({check.server for check in checks if check.server}) > 1
    sentences = []
    for check in checks:
        if check.status == "failed":
            where = f" of {check.server}" if several and check.server else ""
            sentences.append(f"Preflight{where}, {check.name.replace('_', ' ')}: {check.detail}")
    return sentences


class _Canary:
    """One request to one model."""

    def __init__(self, url: str, model: Model, tokenizer: Tokenizer, request: Request) -> None:
        self.url, self.model, self.request = url, model, request
        self._tokenizer = tokenizer

    def stream(self) -> _Answer:
        body = json.loads(self.model.body(self.request, perf_metrics=True))
        return self._answer(self.request, list(stream_events(self.url, self.model.name, body, TIMEOUT_S)))

    def whole(self) -> _Answer:
        request = replace(self.request, streaming=False)
        body = json.loads(self.model.body(request, perf_metrics=True))
        text = fetch(f"{self.url}/v2/models/{self.model.name}/generate", body, TIMEOUT_S)
        answer = json.loads(text)
        if "error" in answer:
            raise ServerError(f"The model {self.model.name!r} answered with an error: {answer['error']}")
        return self._answer(request, [answer])

    def _answer(self, request: Request, objects: Sequence[Mapping[str, Any]]) -> _Answer:
        as_sent = [json.dumps(each).encode() for each in objects]
        framed = [b"data: " + each + b"\n\n" if request.streaming else each for each in as_sent]
        arrivals = [Arrival(0, at + 1, each, at == len(framed) - 1) for at, each in enumerate(framed)]
        tokenizer = self._tokenizer if self._tokenizer.identifies_ids else None
        chunks = list(decode(arrivals, {0: request}, self.model, tokenizer))
        return _Answer(objects, chunks, _joined([_written(each, self.model) for each in objects], request))


def _request(tokenizer: Tokenizer, longest_prompt: int | None) -> Request:
    """A prompt that nobody has asked before. Raises ServerError for a tokenizer without letters and digits."""
    most = min(PROMPT_TOKENS, longest_prompt or PROMPT_TOKENS)
    text = secrets.token_hex(4)
    try:
        while len(tokenizer.encode(longer := f"{text} {secrets.token_hex(2)}")) <= most:
            text = longer
        ids = tokenizer.encode(text)
    except ValueError as error:
        raise ServerError(f"The build's tokenizer cannot encode {text!r} for a canary ({error}).") from error
    return Request(0, text, tuple(ids), OUTPUT_TOKENS, streaming=True, sampling=Sampling())


def _written(answer: Mapping[str, Any], model: Model) -> str:
    value = answer.get(model.names.output, ())
    values = value if isinstance(value, list) else [value]
    return " ".join(map(str, values)) + " " if model.takes_ids else "".join(map(str, values))


def _joined(texts: Sequence[str], request: Request) -> str:
    """The whole text of an answer, whose events may each carry all of it so far, and which may repeat the prompt."""
    if len(texts) > 1 and all(late.startswith(early) for early, late in pairwise(texts)):
        return texts[-1]
    ids = "".join(f"{token_id} " for token_id in request.prompt_ids)
    return "".join(texts).removeprefix(request.prompt_text).removeprefix(ids)


def _streaming(streamed: _Answer | None) -> Check:
    if streamed is None:
        return Check("streaming", "unverified", "The model's transaction policy is not decoupled: it cannot stream.")
    events = len(streamed.objects)
    detail = f"{OUTPUT_TOKENS} tokens came in {events} event{'s' if events != 1 else ''}."
    return Check("streaming", "verified" if events > 1 else "failed", detail)


def _order(streamed: _Answer | None, whole: _Answer) -> Check:
    if streamed is None:
        return Check("order", "not applicable", "Nothing is streamed.")
    one, other = ("".join(answer.text.split()) for answer in (streamed, whole))
    if one == other:
        return Check("order", "verified", "The streamed answer is the one that comes in one piece.")
    if sorted(one) == sorted(other):
        detail = (
            "The streamed answer has the tokens of the whole one in another order: set postprocessing to 1 instance."
        )
        return Check("order", "failed", detail)
    return Check("order", "unverified", "The answer differs when it is asked for again, so its order shows nothing.")


def _length(answer: _Answer) -> Check:
    tokens = answer.tokens
    if tokens is None:
        detail = f"The server does not say how many tokens it sent; {len(answer.objects)} events came."
        return Check("output_length", "unverified", detail)
    status: Status = "verified" if tokens == OUTPUT_TOKENS else "failed"
    return Check("output_length", status, f"{tokens} tokens came, {OUTPUT_TOKENS} were asked for.")


def _prompt_tokens(canary: _Canary, answer: _Answer) -> Check:
    expected = len(canary.request.prompt_ids)
    if canary.model.takes_ids:
        return Check("prompt_tokens", "verified", f"The {expected} token ids of the prompt are sent as they are.")
    told, how = next((chunk.prompt_tokens for chunk in answer.chunks if chunk.prompt_tokens), None), "the server"
    if told is None:
        told, how = _preprocessed(canary), "preprocessing, asked alone,"
    if told is None:
        return Check("prompt_tokens", "unverified", "The server does not say how many tokens a prompt has.")
    status: Status = "verified" if told == expected else "failed"
    return Check(
        "prompt_tokens", status, f"The prompt has {told} tokens, says {how} and {expected} by the build's tokenizer."
    )


def _preprocessed(canary: _Canary) -> int | None:
    """The length that the model ``preprocessing`` finds; None: there is none, or it does not say."""
    url = f"{canary.url}/v2/models/preprocessing"
    known = {"QUERY": canary.request.prompt_text, "REQUEST_OUTPUT_LEN": OUTPUT_TOKENS}
    try:
        config = fetch_json(f"{url}/config")
        needed = [each["name"] for each in config.get("input", ()) if not each.get("optional")]
        answer = fetch_json(f"{url}/generate", {**dict.fromkeys(needed, ""), **known}, TIMEOUT_S)
    except ServerError:
        return None
    length = answer.get("REQUEST_INPUT_LEN")
    return int(length[0] if isinstance(length, list) else length) if length else None


def _prefix_cache(canary: _Canary, streamed: _Answer | None, whole: _Answer, *, kv_cache_reuse: bool) -> Check:
    """The second request has the prompt of the first."""
    if kv_cache_reuse:
        return Check("prefix_cache", "not applicable", "The scenario lets the engine reuse the KV cache of prefixes.")
    reused = next((answer[name] for answer in whole.objects for name in _REUSED if name in answer), None)
    if streamed is None or reused is None:
        return Check("prefix_cache", "unverified", "The server does not say how many blocks of the KV cache it reused.")
    blocks = int(reused[0] if isinstance(reused, list) else reused)
    detail = f"The same prompt of {len(canary.request.prompt_ids)} tokens reused {blocks} blocks the second time."
    return Check("prefix_cache", "failed" if blocks else "verified", detail)
