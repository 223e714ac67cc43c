"""OpenAI-compatible ``/v1/completions`` and ``/v1/chat/completions``: trtllm-serve, Triton's OpenAI frontend.

Ties the reactor to the messages. It loads and starts nothing, sends no API keys, and speaks no TLS.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from typing import Any

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.answers import JSON, explain
from enginebench.runtimes.base import Arrival, Chunk, JsonValue
from enginebench.runtimes.http_session import (
    HttpSession,
    ask,
    connections_of,
    identifying_tokenizer,
    resolve,
    urls_of,
)
from enginebench.runtimes.openai_messages import EXTRAS, PATHS, Api, decode

SERVER = "OpenAI-compatible server"
_FIRST_ANSWER_TIMEOUT_S = 120.0
"""Some servers load the model when they are first asked."""
_UNKNOWN_KEY = (400, 422)
REPLICAS = "several --openai-url must be replicas of one deployment"


def open_session(options: Mapping[str, JsonValue]) -> "OpenAiSession":
    """Open a session from ``urls``, ``endpoint`` (completions or chat), ``connections`` (to each) and ``tokenizer``.

    Further options: ``model`` (default: the only one that is served), ``token_ids`` (default false) to send prompts as
    ids. Asks for one token, to learn which keys beyond OpenAI's own the server takes. Raises SessionError when the
    server cannot be reached, or does not serve the model.
    """
    urls, endpoint = urls_of(options), options.get("endpoint")
    if not urls or endpoint not in ("completions", "chat"):
        raise SessionError(
            "The openai_http runtime needs the options 'urls' and 'endpoint' (completions or chat), "
            "e.g. [http://127.0.0.1:8000], completions."
        )
    card = served_model(urls, options.get("model"))
    api = Api(endpoint, str(card["id"]), takes_ids=bool(options.get("token_ids", False)))
    if api.takes_ids and endpoint == "chat":
        raise SessionError("A chat takes no token ids: use the endpoint 'completions', or leave out 'token_ids'.")
    api = replace(api, extras=_taken_by_all(urls, api))
    return OpenAiSession(urls, api, card, connections_of(options), identifying_tokenizer(options))


class OpenAiSession(HttpSession):
    """A session on one model of running servers; ``tokenizer``: None unless text identifies ids."""

    def __init__(
        self,
        urls: Sequence[str],
        api: Api,
        card: Mapping[str, Any],
        connections: int,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._api, self._card, self._tokenizer = api, card, tokenizer
        super().__init__(urls, api.model, connections)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Read the events and turn text into ids; to be called before the next round's requests are submitted."""
        return decode(arrivals, self._requests, self._api, self._tokenizer)

    def facts(self) -> Mapping[str, JsonValue]:
        """Server, model, capabilities, and what happened to the connections so far."""
        return {
            "runtime": "openai_http",
            "model": self._name,
            "endpoint": self._api.endpoint,
            "owned_by": str(self._card.get("owned_by")),
            "takes_token_ids": self._api.takes_ids,
            "gives_token_ids": False,
            "text_identifies_ids": self._tokenizer is not None,
            "exact_length_input": "ignore_eos" if "ignore_eos" in self._api.extras else None,
            "extra_keys": list(self._api.extras),
            "reports_prompt_tokens": self._api.endpoint == "completions",
            "counts_tokens": True,
            "cancels": True,
            **self._connection_facts(),
        }

    def _target(self, request: Request) -> tuple[str, bytes]:
        return PATHS[self._api.endpoint], self._api.body(request)


def served_model(urls: Sequence[str], model: object) -> Mapping[str, Any]:
    """What the first of ``urls`` says of ``model`` (None: its only one). Raises SessionError when one has another."""
    first = _card(urls[0], model)
    for url in urls[1:]:
        if (other := _card(url, model))["id"] != first["id"]:
            raise SessionError(f"{urls[0]} serves the model {first['id']!r}, and {url} {other['id']!r}: {REPLICAS}.")
    return first


def _card(url: str, model: object) -> Mapping[str, Any]:
    """What the server says of ``model`` (None: its only one). Raises SessionError when there is no such model.

    A server that lists nothing may serve it all the same.
    """
    host, _ = resolve(url)
    try:
        (listed,) = ask(host, SERVER, "/v1/models")
    except SessionError as error:
        if model is None or isinstance(error.__cause__, OSError | HTTPException):  # there is no server at all
            raise
        listed = {}
    data = listed.get("data")
    cards = {str(card.get("id")): card for card in data if isinstance(card, Mapping)} if isinstance(data, list) else {}
    if model is None and len(cards) == 1:
        return next(iter(cards.values()))
    if model is not None and not cards:
        return {"id": model}
    if model not in cards:
        what = "needs the name of a model" if model is None else f"has no model {model!r}"
        raise SessionError(f"The server at {url} {what}: it has {', '.join(cards) or 'none'}.")
    return cards[str(model)]


def _taken_by_all(urls: Sequence[str], api: Api) -> Collection[str]:
    """``_taken``, of replicas. Raises SessionError for one that takes other keys than the first."""
    first = _taken(resolve(urls[0])[0], api)
    for url in urls[1:]:
        if (other := _taken(resolve(url)[0], api)) != first:
            raise SessionError(
                f"{urls[0]} takes the keys {', '.join(first) or 'none'} beyond OpenAI's own, and {url} "
                f"{', '.join(other) or 'none'}: {REPLICAS}."
            )
    return first


def _taken(host: str, api: Api) -> Collection[str]:
    """The keys beyond OpenAI's own that the server takes. Raises SessionError when it does not answer at all."""
    if _refusal(host, api) is None:
        return api.extras
    taken = tuple(key for key in EXTRAS if _refusal(host, replace(api, extras=(key,))) is None)
    refusal = None if taken else _refusal(host, replace(api, extras=()))
    if refusal is not None:
        raise SessionError(refusal)
    return taken


def _refusal(host: str, api: Api) -> str | None:
    """Ask for one token: why the server takes no such request, if it does not. Raises SessionError for other faults."""
    sampling = Sampling(temperature=1.0, top_k=1 if "top_k" in api.extras else 0)
    body = api.body(Request(0, "Hi", (1,), output_tokens=1, streaming=True, sampling=sampling))
    connection = HTTPConnection(host, timeout=_FIRST_ANSWER_TIMEOUT_S)
    try:
        connection.request("POST", PATHS[api.endpoint], body, {"Content-Type": JSON})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, HTTPException) as error:
        raise SessionError(f"No {SERVER} answers at http://{host}: {error}.") from error
    finally:
        connection.close()
    if response.status == 200:
        return None
    refusal = explain(api.model, response.status, response.getheader("Content-Type", ""), answer)
    if response.status not in _UNKNOWN_KEY:
        raise SessionError(refusal)
    return refusal
