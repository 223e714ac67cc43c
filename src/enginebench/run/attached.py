"""Servers that are running already: which they are, what a path asks of them, and whether they can serve it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from enginebench.errors import ServerError
from enginebench.server.control import attach

MODELS = {"core": "tensorrt_llm", "ensemble": "ensemble", "bls": "tensorrt_llm_bls", "llmapi": "tensorrt_llm"}
"""The model of a Triton server that a path sends its requests to."""

ENDPOINTS = {"openai-completions": "completions", "openai-chat": "chat"}
"""The endpoint of an OpenAI-compatible server that a path sends its requests to."""

EMBEDDED = ("core", "ensemble", "bls")
"""Paths that a server of our own offers."""


@dataclass(frozen=True, slots=True)
class Attached:
    """The servers that a command line names."""

    triton_url: str | None = None
    openai_url: str | None = None
    openai_model: str | None = None  # None: the only one that is served

    def url_of(self, path: str) -> str | None:
        """The server that ``path`` leads to; None: one of our own."""
        return self.openai_url if path in ENDPOINTS else self.triton_url

    def options_of(self, path: str) -> tuple[str, dict[str, Any]]:
        """The runtime that drives ``path``, and its options but for the URL."""
        if path in ENDPOINTS:
            return "openai_http", {"endpoint": ENDPOINTS[path], "model": self.openai_model}
        return "triton_http", {"model": MODELS[path]}

    def check(self, paths: Collection[str]) -> None:
        """Raise ServerError unless ``paths`` can all be reached, and every server that is named is needed."""
        for option, url, ways in (
            ("--triton-url", self.triton_url, MODELS),
            ("--openai-url", self.openai_url, ENDPOINTS),
        ):
            if url is not None and not any(path in ways for path in paths):
                raise ServerError(f"{option} {url} is of no use without a path to it: add --path {list(ways)[-2]}.")
        for path in paths:
            if path != "direct" and path not in EMBEDDED and not self.url_of(path):
                option = "--openai-url" if path in ENDPOINTS else "--triton-url"
                raise ServerError(f"The path {path!r} needs a running server: name it with {option} URL.")
        if self.triton_url is not None:
            _check_models(self.triton_url, {path: MODELS[path] for path in paths if path in MODELS})


def _check_models(url: str, wanted: Mapping[str, str]) -> None:
    with attach(url) as control:
        served = control.models()
    for path, model in wanted.items():
        if model not in served:
            raise ServerError(
                f"Triton at {url} has no model {model!r}, which the path {path!r} needs (it serves "
                f"{', '.join(served)}): choose another --path, or load that model."
            )
