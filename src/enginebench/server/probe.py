"""Two questions to a Triton server over plain HTTP: are you the one that we started, and do you stream tokens?

Deliberately small and on the standard library: it must not share the faults of the client that measures.
"""

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from enginebench.errors import ServerError

HEALTH_TIMEOUT_S = 2.0


def server_name(url: str) -> str | None:
    """The id that the server at ``url`` was started with, or None while nothing there is ready."""
    try:
        with _connected(url, HEALTH_TIMEOUT_S) as connection:
            connection.request("GET", "/v2/health/ready")
            ready = connection.getresponse()
            ready.read()
            connection.request("GET", "/v2")
            name = json.loads(connection.getresponse().read()).get("name")
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return str(name) if ready.status == 200 else None


def canary_inputs(url: str, model: str, tokens: int) -> dict[str, Any]:
    """A request for ``tokens`` tokens in the words that ``model`` declares, whichever version it is of.

    Raises:
        ServerError: the server does not tell the model's configuration.
    """
    known = {
        "text_input": "canary",
        "max_tokens": tokens,
        "min_tokens": tokens,
        "min_length": tokens,
        "stream": True,
        "streaming": True,
        "sampling_param_max_tokens": tokens,
    }
    try:
        with _connected(url, 10.0) as connection:
            connection.request("GET", f"/v2/models/{model}/config")
            config = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerError(f"Triton at {url} did not tell the configuration of {model!r}: {error}.") from error
    if "error" in config:
        raise ServerError(f"Triton at {url} serves no model {model!r}: {str(config['error']).rstrip('.')}.")
    inputs = {tensor["name"]: tensor for tensor in config.get("input", ())}
    words = {name: "" for name, tensor in inputs.items() if not tensor.get("optional")}  # 0.5 wants stop words
    return {**words, **{name: value for name, value in known.items() if name in inputs}}


def stream_events(url: str, model: str, inputs: Mapping[str, Any], timeout_s: float = 60.0) -> Iterator[dict[str, Any]]:
    """The events that ``model`` streams for ``inputs``, as JSON objects.

    Raises:
        ServerError: the server refused, sent an error in mid-stream, or was silent for ``timeout_s``.
    """
    try:
        with _connected(url, timeout_s) as connection:
            body = json.dumps(inputs).encode()
            path = f"/v2/models/{model}/generate_stream"
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            for line in _lines(response):
                if event := _event(line):
                    yield _checked(event, model)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ServerError(
            f"The model {model!r} at {url} did not answer a stream: {error or type(error).__name__}."
        ) from error


def _connected(url: str, timeout_s: float) -> "contextlib.closing[http.client.HTTPConnection]":
    parts = urlsplit(url)
    return contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s))


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The lines of the body; unlike iterating over the response, a broken connection is an error here."""
    rest = b""
    while data := response.read1(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
    yield rest


def _event(line: bytes) -> dict[str, Any] | None:
    text = line.removeprefix(b"data: ").strip()
    return dict(json.loads(text)) if text else None


def _checked(event: dict[str, Any], model: str) -> dict[str, Any]:
    if "error" in event:
        raise ServerError(f"The model {model!r} answered with an error: {str(event['error']).rstrip('.')}.")
    return event
