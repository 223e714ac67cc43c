"""OpenAI-compatible ``/v1/completions`` and ``/v1/chat/completions``: trtllm-serve, Triton's OpenAI frontend.

Ties the reactor to the messages. It loads and starts nothing, sends no keys, and speaks no TLS.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue
from enginebench.runtimes.http_session import HttpSession, ask, connections_of, identifying_tokenizer, resolve
from enginebench.runtimes.openai_messages import PATHS, Api, decode


def open_session(options: Mapping[str, JsonValue]) -> "OpenAiSession":
    """Open a session from ``url``, ``endpoint`` (completions or chat), ``connections`` and ``tokenizer``.

    Further options: ``model`` (default: the only one that is served), ``extended`` (default true) to send keys beyond
    OpenAI's own, ``token_ids`` (default false) to send prompts as ids. Raises SessionError when the server cannot be
    reached, or has no such model.
    """
    match options:
        case {"url": str(url), "endpoint": "completions" | "chat" as endpoint}:
            card = _card(url, options.get("model"))
            api = Api(
                endpoint, str(card["id"]), bool(options.get("extended", True)), bool(options.get("token_ids", False))
            )
            if api.takes_ids and endpoint == "chat":
                raise SessionError(
                    "A chat takes no token ids: use the endpoint 'completions', or leave out 'token_ids'."
                )
            return OpenAiSession(url, api, card, connections_of(options), identifying_tokenizer(options))
    raise SessionError(
        "The openai_http runtime needs the options 'url' and 'endpoint' (completions or chat), "
        "e.g. http://127.0.0.1:8000, completions."
    )


class OpenAiSession(HttpSession):
    """A session on one model of a running server; ``tokenizer``: None unless text identifies ids."""

    def __init__(
        self, url: str, api: Api, card: Mapping[str, Any], connections: int, tokenizer: Tokenizer | None = None
    ) -> None:
        self._api, self._card, self._tokenizer = api, card, tokenizer
        super().__init__(url, api.model, connections)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Read the events and turn text into ids; to be called before the next round's requests are submitted."""
        return decode(arrivals, self._requests, self._api, self._tokenizer)

    def facts(self) -> Mapping[str, JsonValue]:
        """Server, model, capabilities, and what happened to the connections so far."""
        return {
            "runtime": "openai_http",
            "url": self._url,
            "model": self._name,
            "endpoint": self._api.endpoint,
            "owned_by": str(self._card.get("owned_by")),
            "takes_token_ids": self._api.takes_ids,
            "gives_token_ids": False,
            "text_identifies_ids": self._tokenizer is not None,
            "exact_length_input": "ignore_eos" if self._api.extended else None,
            "reports_prompt_tokens": self._api.endpoint == "completions",
            "counts_tokens": True,
            "cancels": True,
            **self._connection_facts(),
        }

    def _target(self, request: Request) -> tuple[str, bytes]:
        return PATHS[self._api.endpoint], self._api.body(request)


def _card(url: str, model: object) -> Mapping[str, Any]:
    """What the server says of ``model`` (None: its only one). Raises SessionError when there is no such model."""
    host, _ = resolve(url)
    (listed,) = ask(host, "OpenAI-compatible server", "/v1/models")
    data = listed.get("data")
    cards = {str(card.get("id")): card for card in data if isinstance(card, Mapping)} if isinstance(data, list) else {}
    if model is None and len(cards) == 1:
        return next(iter(cards.values()))
    if model not in cards:
        what = "needs the name of a model" if model is None else f"has no model {model!r}"
        raise SessionError(f"The server at {url} {what}: it has {', '.join(cards) or 'none'}.")
    return cards[str(model)]
