"""Triton's ``generate`` and ``generate_stream`` over HTTP, for every model of TensorRT-LLM's repositories.

Ties the reactor to the messages. What a model is asked follows from the metadata that the server gives when the
session opens. It loads and starts nothing, and does not know how the server works inside.
"""

from collections.abc import Mapping, Sequence

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.plan.requests import Request
from enginebench.runtimes.base import Arrival, Chunk, JsonValue
from enginebench.runtimes.http_session import (
    HttpSession,
    ask,
    connections_of,
    identifying_tokenizer,
    resolve,
    urls_of,
)
from enginebench.runtimes.triton_messages import decode, read_model


def open_session(options: Mapping[str, JsonValue]) -> "TritonSession":
    """Open a session from ``urls``, ``model``, ``connections`` (to each, default 1) and ``tokenizer`` (spec or null).

    Several URLs are replicas: what the first says of the model holds for all.
    With ``perf_metrics`` every request asks for what the engine knows of its time, where the model offers that.

    Raises SessionError when the server cannot be reached, or has no such model.
    """
    urls, model = urls_of(options), options.get("model")
    if urls and isinstance(model, str):
        told = bool(options.get("perf_metrics"))
        return TritonSession(urls, model, connections_of(options), identifying_tokenizer(options), perf_metrics=told)
    raise SessionError(
        "The triton_http runtime needs the options 'urls' and 'model', e.g. [http://127.0.0.1:8000], ensemble."
    )


class TritonSession(HttpSession):
    """A session on one model of running servers; ``tokenizer``: None unless text identifies ids."""

    def __init__(
        self,
        urls: Sequence[str],
        model: str,
        connections: int,
        tokenizer: Tokenizer | None = None,
        *,
        perf_metrics: bool = False,
    ) -> None:
        host, _ = resolve(urls[0])
        self._told: dict[int, dict[str, int]] | None = {} if perf_metrics else None
        self._tokenizer = tokenizer
        self._server, metadata, config = ask(
            host, "Triton server", "/v2", f"/v2/models/{model}", f"/v2/models/{model}/config"
        )
        self._model = read_model(metadata, config)
        self._decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
        super().__init__(urls, model, connections)

    def decode(self, arrivals: Sequence[Arrival]) -> Sequence[Chunk]:
        """Read the events and turn text into ids; to be called before the next round's requests are submitted."""
        if self._told is not None:
            self._told.clear()
        return decode(arrivals, self._requests, self._model, self._tokenizer, self._told)

    def observations(self) -> Mapping[str, JsonValue]:
        """The perf metrics of the round that was decoded last, a mapping a request, where they were asked for."""
        return {"perf_metrics": list((self._told or {}).values())}

    def cancel(self, request_index: int) -> None:
        """Close the request's connection where that stops the engine, else let it end unheard: ``drain`` waits for it.

        Triton tells the core model when a client is gone, but neither the ensemble nor the BLS model tells the core.
        """
        if self._model.takes_ids:
            super().cancel(request_index)
        else:
            self._client.abandon(request_index)

    def facts(self) -> Mapping[str, JsonValue]:
        """Server, model, capabilities, and what happened to the connections so far."""
        return {
            "runtime": "triton_http",
            "model": self._model.name,
            "server_id": str(self._server.get("name")),
            "server_version": str(self._server.get("version")),
            "decoupled": self._decoupled,
            "takes_token_ids": self._model.takes_ids,
            "gives_token_ids": self._model.takes_ids,
            "text_identifies_ids": self._tokenizer is not None,
            "exact_length_input": self._model.exact_length,
            "reports_prompt_tokens": "return_num_input_tokens" in self._model.inputs,
            "counts_tokens": self._model.counts_tokens,
            "tells_times": self._model.tells_times,
            "cancels": self._model.takes_ids,
            **self._connection_facts(),
        }

    def _target(self, request: Request) -> tuple[str, bytes]:
        if request.streaming and not self._decoupled:
            raise SessionError(
                f"Model {self._model.name} at {self._where} cannot stream: its transaction policy is not decoupled "
                "(set decoupled_mode:True in the core's config.pbtxt, or streaming: false in the scenario)."
            )
        endpoint = "generate_stream" if request.streaming else "generate"
        return f"/v2/models/{self._model.name}/{endpoint}", self._model.body(
            request, perf_metrics=self._told is not None
        )
