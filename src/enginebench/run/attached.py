"""Servers: which run already, what one of our own is to be like, what a path asks of them, what they can serve.

Attaching by URL needs no rights on the server's machine: everything is asked over HTTP.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginebench.errors import ServerError
from enginebench.server.control import attach

MODELS = {"core": "tensorrt_llm", "ensemble": "ensemble", "bls": "tensorrt_llm_bls", "llmapi": "tensorrt_llm"}
"""The model of a Triton server that a path sends its requests to."""

ENDPOINTS = {"openai-completions": "completions", "openai-chat": "chat"}
"""The endpoint of an OpenAI-compatible server that a path sends its requests to."""

EMBEDDED = ("core", "ensemble", "bls")
"""Paths that a server of our own offers to an engine."""

OF_CHECKPOINTS = ("llmapi",)
"""Paths that a server of our own offers to a checkpoint for the PyTorch backend."""


@dataclass(frozen=True, slots=True)
class OwnServer:
    """What a command line asks of a server that is started for it."""

    templates: Path | None = None  # None: where images have them
    overrides: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (model, variable) → value
    bls: bool = True  # whether anything goes to the BLS model, which takes a process for each request in flight


@dataclass(frozen=True, slots=True)
class Attached:
    """The servers that a command line names, and what it wants of one that is started."""

    triton_url: str | None = None
    openai_url: str | None = None
    openai_model: str | None = None  # None: the only one that is served
    own: OwnServer = field(default_factory=OwnServer)

    def url_of(self, path: str) -> str | None:
        """The server that ``path`` leads to; None: one of our own."""
        return self.openai_url if path in ENDPOINTS else self.triton_url

    def options_of(self, path: str) -> tuple[str, dict[str, Any]]:
        """The runtime that drives ``path``, and its options but for the URL."""
        if path in ENDPOINTS:
            return "openai_http", {"endpoint": ENDPOINTS[path], "model": self.openai_model}
        return "triton_http", {"model": MODELS[path]}

    def starts(self, paths: Collection[str]) -> bool:
        """Whether a server of our own is started for one of ``paths``."""
        return any(path in MODELS and not self.url_of(path) for path in paths)

    def check(self, paths: Collection[str], kind: str = "reference") -> None:
        """Raise ServerError unless ``paths`` can all be reached, and every server that is named is needed.

        ``kind``: of the build, which decides what a server of our own can offer.
        """
        for option, url, ways in (
            ("--triton-url", self.triton_url, MODELS),
            ("--openai-url", self.openai_url, ENDPOINTS),
        ):
            if url is not None and not any(path in ways for path in paths):
                raise ServerError(f"{option} {url} is of no use without a path to it: add --path {list(ways)[-2]}.")
        offered = OF_CHECKPOINTS if kind == "pytorch" else EMBEDDED
        for path in paths:
            if path != "direct" and path not in offered and not self.url_of(path):
                raise ServerError(_unreachable(path, offered))
        if self.triton_url is not None:
            _check_models(self.triton_url, {path: MODELS[path] for path in paths if path in MODELS})


def _unreachable(path: str, offered: Collection[str]) -> str:
    if path in EMBEDDED:
        others = " or ".join(f"--path {other}" for other in ("direct", *offered))
        return (
            f"The path {path!r} needs an engine, and the build is a checkpoint for the PyTorch backend: use {others}."
        )
    option = "--openai-url" if path in ENDPOINTS else "--triton-url"
    return f"The path {path!r} needs a running server: name it with {option} URL."


def _check_models(url: str, wanted: Mapping[str, str]) -> None:
    with attach(url) as control:
        served = control.models()
    for path, model in wanted.items():
        if model not in served:
            raise ServerError(
                f"Triton at {url} has no model {model!r}, which the path {path!r} needs (it serves "
                f"{', '.join(served)}): choose another --path, or load that model."
            )
