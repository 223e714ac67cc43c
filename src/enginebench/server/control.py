"""The control plane of any Triton server, managed or not: whether it is one, whether it is ready, what it serves.

Never on the path of a measured request. Built on tritonclient[http], which is imported when a server is attached to.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from enginebench.errors import ServerError

TIMEOUT_S = 10.0


class TritonControl:
    """One server's metadata, health and models. Used by one thread."""

    def __init__(self, url: str) -> None:
        from tritonclient.http import InferenceServerClient

        self.url = url
        self._client = InferenceServerClient(_authority(url), connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S)

    def ready(self) -> bool:
        """Whether the server says that it and its models are ready. It says so after a model's process died, too."""
        with self._mapped("health"):
            return bool(self._client.is_server_ready())

    def metadata(self) -> Mapping[str, Any]:
        """The server's ``name`` (its id), ``version`` and ``extensions``."""
        with self._mapped("metadata"):
            return dict(self._client.get_server_metadata())

    def models(self) -> tuple[str, ...]:
        """The names of the models that are ready, sorted."""
        with self._mapped("list of models"):
            index = self._client.get_model_repository_index()
            return tuple(sorted(model["name"] for model in index if model.get("state") == "READY"))

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> "TritonControl":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            raise ServerError(f"Triton at {self.url} refused the {what}: {error.message()}.") from error
        except (OSError, ValueError, LookupError) as error:
            raise ServerError(
                f"Nothing at {self.url} answers for Triton's {what} ({error or type(error).__name__}): "
                "is the server running, and is this its HTTP port?"
            ) from error


def attach(url: str) -> TritonControl:
    """The control plane of the running server at ``url`` (``http://host:port``), once it is ready and serves models.

    Raises:
        ServerError: the URL is none, nothing answers there, or it is not ready.
    """
    control = TritonControl(url)
    try:
        control.metadata()  # what is no Triton at all has none
        if not control.ready():
            raise ServerError(f"Triton at {url} is not ready: see its log, or wait until its models are loaded.")
        if not control.models():
            raise ServerError(f"Triton at {url} serves no model: load a model repository first.")
    except BaseException:
        control.close()
        raise
    return control


def _authority(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "http" or not parts.hostname or port is None or parts.path.strip("/"):
        raise ServerError(f"{url!r} is no server URL: use http://HOST:PORT with Triton's HTTP port.")
    if ":" in parts.hostname:
        raise ServerError(f"{url!r} names an IPv6 address, which the client does not speak: use a name or IPv4.")
    return f"{parts.hostname}:{port}"
