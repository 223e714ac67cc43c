"""One question to a server's control or metrics port, on the standard library.

Never on the path of a measured request.
"""

import contextlib
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from enginebench.errors import ServerError

TIMEOUT_S = 5.0


def fetch(url: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """The text at ``url``; with a ``body``, what the server answers when that is posted as JSON.

    Raises:
        ServerError: nothing answers within ``timeout_s``, or not with HTTP 200.
    """
    parts = urlsplit(url)
    try:
        with contextlib.closing(
            http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout_s)
        ) as connection:
            content = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", parts.path, content)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(
            f"{url} does not answer ({error or type(error).__name__}): is the server up, and is this its port?"
        ) from error
    if response.status != 200:
        raise ServerError(f"{url} answered HTTP {response.status}: {text.strip()[:200] or 'no reason given'}.")
    return text


def fetch_json(url: str, body: Mapping[str, Any] | None = None, timeout_s: float = TIMEOUT_S) -> Mapping[str, Any]:
    """The JSON object at ``url``. Raises ServerError, also for anything else than an object."""
    text = fetch(url, body, timeout_s)
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ServerError(f"{url} answered what is no JSON object ({text[:60]!r}): is this Triton's HTTP port?")
    return answer
