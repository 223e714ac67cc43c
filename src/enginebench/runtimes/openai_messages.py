"""What OpenAI-compatible endpoints are asked and what they answer: pure.

Written for trtllm-serve and Triton's OpenAI frontend. Beyond OpenAI's own keys a request has those of ``EXTRAS`` that
the server takes: some refuse what they do not know. A server may also take them and do nothing: then a short answer is
a finding, and chunks are not counted. Sends nothing and measures nothing.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes import answers
from enginebench.runtimes.answers import Piece, Reader
from enginebench.runtimes.base import UNKNOWN, Arrival
from enginebench.runtimes.columns import ChunkLog

Endpoint = Literal["completions", "chat"]
PATHS: Mapping[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}

EXTRAS = ("ignore_eos", "add_special_tokens", "continuous_usage_stats", "top_k")
"""Answers as long as asked; prompts as they are; how many tokens each chunk stands for; and how they are drawn."""


@dataclass(frozen=True, slots=True)
class Api:
    """One endpoint for one model."""

    endpoint: Endpoint
    model: str
    extras: Collection[str] = EXTRAS  # what the server takes of these
    takes_ids: bool = False  # send prompts as ids; completions alone can

    def body(self, request: Request) -> bytes:
        """The JSON that asks for ``request``. Raises SessionError for sampling that the server cannot be asked for."""
        values: dict[str, Any] = {
            "model": self.model,
            **self._prompt(request),
            "max_tokens": request.output_tokens,
            "stream": request.streaming,
            **self._sampling(request.sampling),
        }
        if "ignore_eos" in self.extras:
            values["ignore_eos"] = True
        if "add_special_tokens" in self.extras and self.endpoint == "completions":
            values["add_special_tokens"] = False
        if request.streaming:
            values["stream_options"] = {"include_usage": True}
            if "continuous_usage_stats" in self.extras:
                values["stream_options"]["continuous_usage_stats"] = True
        return json.dumps(values, ensure_ascii=False).encode()

    def _prompt(self, request: Request) -> dict[str, Any]:
        if self.endpoint == "chat":
            return {"messages": [{"role": "user", "content": request.prompt_text}]}
        return {"prompt": request.prompt_ids if self.takes_ids else request.prompt_text}

    def _sampling(self, sampling: Sampling) -> dict[str, float | int]:
        if sampling.temperature == 0:
            return {"temperature": 0.0}
        values: dict[str, float | int] = {"temperature": float(sampling.temperature), "seed": sampling.seed}
        if sampling.top_k and "top_k" not in self.extras:
            raise SessionError("The server takes no top_k: leave sampling.top_k out of the scenario.")
        return values | ({"top_k": sampling.top_k} if sampling.top_k else {})


def decode(
    arrivals: Sequence[Arrival], requests: Mapping[int, Request], api: Api, tokenizer: Tokenizer | None
) -> ChunkLog:
    """Turn a round's arrivals into chunks; ``tokenizer``: None unless text identifies ids."""
    reader = Reader(f"Model {api.model}", partial(_piece, api), gives_ids=False, may_accumulate=False)
    return answers.decode(arrivals, requests, reader, tokenizer)


def _piece(api: Api, answer: Mapping[str, Any], request: Request) -> Piece:  # noqa: ARG001 - a reader's signature
    usage = answer.get("usage") or {}
    total_tokens = usage.get("completion_tokens")
    # A chat template adds tokens of its own: the number says nothing about the prompt that was asked for.
    prompt_tokens = None if api.endpoint == "chat" else usage.get("prompt_tokens")
    return Piece(
        "".join(map(_text, answer.get("choices") or ())),
        prompt_tokens=UNKNOWN if prompt_tokens is None else int(prompt_tokens),
        total_tokens=UNKNOWN if total_tokens is None else int(total_tokens),
    )


def _text(choice: Mapping[str, Any]) -> str:
    """The text of one choice: of a completion, a chat's whole message or its delta."""
    if "text" in choice:
        return choice["text"] or ""
    message = choice.get("delta") or choice.get("message") or {}
    return (message.get("reasoning_content") or message.get("reasoning") or "") + (message.get("content") or "")
