"""A script that speaks OpenAI's completions and chats as trtllm-serve and Triton's frontend do.

Answers are the same pure function of prompt, seed and position as in ``scripted_triton``. It runs no engine.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from enginebench.runtimes.answers import JSON
from tests.support.scripted_server import END, Asked, Step, event, head, piece, whole
from tests.support.scripted_triton import MAX_TOKENS, STEP_S, TOKENIZER, answer_ids

MODEL = "served"
TEMPLATE_TOKENS = 5  # what a chat template adds to a prompt
DONE = b"data: [DONE]\n\n"


@dataclass
class ScriptedOpenAi:
    """The script. ``continuous``: whether it knows usage with every chunk; ``after_one`` as in ``ScriptedTriton``.

    ``refused``: keys that it does not know, of the request or of its stream options; ``listed``: models that it tells;
    ``stream``: what follows the head of a stream, whatever was asked.
    """

    continuous: bool = True
    merged: int = 1  # tokens that go out together
    after_one: tuple[Step, ...] | None = None
    refused: tuple[str, ...] = ()
    listed: tuple[str, ...] = (MODEL,)
    stream: tuple[Step, ...] | None = None

    def __call__(self, asked: Asked) -> Iterator[Step]:
        """Answer one request."""
        if asked.path == "/v1/models":
            cards = [{"id": each, "object": "model", "owned_by": "tensorrt_llm"} for each in self.listed]
            yield _json(200, {"object": "list", "data": cards})
        elif asked.json["model"] != MODEL:
            yield _json(404, {"error": {"message": f"The model `{asked.json['model']}` does not exist.", "code": 404}})
        elif unknown := [key for key in self.refused if key in asked.json | asked.json.get("stream_options", {})]:
            faults = [{"type": "extra_forbidden", "loc": ["body", key], "msg": "Extra inputs"} for key in unknown]
            yield _json(422, {"detail": faults})
        elif asked.json["max_tokens"] > MAX_TOKENS:
            yield _json(
                400, {"object": "error", "message": f"{asked.json['max_tokens']} exceeds\nthe limit.", "code": 400}
            )
        else:
            yield from self._generate(asked.json, chat=asked.path == "/v1/chat/completions")

    def _generate(self, body: dict[str, Any], *, chat: bool) -> Iterator[Step]:
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        prompt_ids = TOKENIZER.encode(prompt) if isinstance(prompt, str) else tuple(prompt)
        ids = answer_ids(prompt_ids, body["max_tokens"], None if body["temperature"] == 0 else body["seed"])
        prompt_tokens = len(prompt_ids) + TEMPLATE_TOKENS * chat
        if not body["stream"]:
            text = TOKENIZER.decode(ids)
            choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            yield _json(200, {"choices": [{"index": 0, **choice}], "usage": _usage(prompt_tokens, len(ids))})
            return
        events = self._events(ids, prompt_tokens, body["stream_options"], chat=chat)
        yield head()
        if self.stream is not None:
            yield from self.stream
            return
        if self.after_one is not None and len(ids) > 1:  # not when a session asks what keys are taken
            yield piece(next(events))
            yield from self.after_one
            return
        for each in events:
            yield piece(each)
            yield STEP_S
        yield piece(DONE)
        yield END

    def _events(
        self, ids: tuple[int, ...], prompt_tokens: int, options: dict[str, bool], *, chat: bool
    ) -> Iterator[bytes]:
        every = self.continuous and options.get("continuous_usage_stats", False)
        if chat:
            usage = _usage(prompt_tokens, 0) if every else None
            yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], "usage": usage})
        for start in range(0, len(ids), self.merged):
            text = TOKENIZER.decode(ids[start : start + self.merged])
            choice = {"delta": {"content": text}} if chat else {"text": text}
            usage = _usage(prompt_tokens, min(len(ids), start + self.merged)) if every else None
            yield event({"choices": [{"index": 0, **choice, "finish_reason": None}], "usage": usage})
        if options["include_usage"]:
            yield event({"choices": [], "usage": _usage(prompt_tokens, len(ids))})


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def _json(status: int, value: Any) -> bytes:
    return whole(status, JSON, json.dumps(value).encode())
