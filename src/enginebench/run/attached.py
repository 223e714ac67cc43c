"""Servers: which run already, what one of our own is to be like, what a path asks of them, what they can serve.

Attaching by URL needs no rights on the server's machine: everything is asked over HTTP.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enginebench.errors import ServerError
from enginebench.runtimes.http_session import resolve
from enginebench.runtimes.openai_http import served_model
from enginebench.server.control import attach
from enginebench.server.replicas import require_replicas

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

    @property
    def fills_templates(self) -> bool:
        """Whether something is asked of the templates, and so of a server for a TensorRT-LLM build."""
        return self.templates is not None or bool(self.overrides)

    def check(self, kind: str) -> None:
        """Raise ServerError where the server of a build of ``kind`` is not made of templates, and they are named."""
        if kind == "reference" and self.fills_templates:
            raise ServerError(
                "--templates and --set are for TensorRT-LLM builds; a reference build has its own repository."
            )


@dataclass(frozen=True, slots=True)
class Attached:
    """The servers that a command line names, and what it wants of one that is started.

    Several URLs of a kind are replicas of one deployment.
    """

    triton_urls: tuple[str, ...] = ()
    openai_urls: tuple[str, ...] = ()
    openai_model: str | None = None  # None: the only one that is served
    own: OwnServer = field(default_factory=OwnServer)

    def urls_of(self, path: str) -> tuple[str, ...]:
        """The servers that ``path`` leads to; none: to the engine in process, or to a server of our own."""
        if path in ENDPOINTS:
            return self.openai_urls
        return self.triton_urls if path in MODELS else ()

    def as_json(self) -> dict[str, list[str]]:
        """The ``servers`` in the plan of run.json."""
        named = {"triton": self.triton_urls, "openai": self.openai_urls}
        return {kind: list(urls) for kind, urls in named.items() if urls}

    def options_of(self, path: str) -> tuple[str, dict[str, Any]]:
        """The runtime that drives ``path``, and its options but for the URLs."""
        if path in ENDPOINTS:
            return "openai_http", {"endpoint": ENDPOINTS[path], "model": self.openai_model}
        return "triton_http", {"model": MODELS[path]}

    def starts(self, paths: Collection[str]) -> bool:
        """Whether a server of our own is started for one of ``paths``."""
        return any(path in MODELS and not self.urls_of(path) for path in paths)

    def check(self, paths: Collection[str], kind: str = "reference") -> None:
        """Raise EnginebenchError unless ``paths`` can all be reached, and all that is named is needed.

        ``kind``: of the build, which decides what a server of our own can offer.
        """
        for option, given, ways in (
            ("--triton-url", self.triton_urls, MODELS),
            ("--openai-url", self.openai_urls, ENDPOINTS),
            ("--openai-model", [self.openai_model] if self.openai_model else [], ENDPOINTS),
        ):
            if given and not any(path in ways for path in paths):
                raise ServerError(
                    f"{option} {given[0]} is of no use without a path to it: add --path {list(ways)[-2]}."
                )
        offered = OF_CHECKPOINTS if kind == "pytorch" else EMBEDDED
        for path in paths:
            if path != "direct" and path not in offered and not self.urls_of(path):
                raise ServerError(_unreachable(path, offered))
        if self.triton_urls:
            self._check_triton({path: MODELS[path] for path in paths if path in MODELS})
        if self.openai_urls:
            served_model(self.openai_urls, self.openai_model)

    def _check_triton(self, wanted: Mapping[str, str]) -> None:
        for url in self.triton_urls:
            _check_models(url, wanted)
        for model in dict.fromkeys(wanted.values()):
            require_replicas(self.triton_urls, model)


def read_urls(option: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The servers that ``option`` names, which is given once for each. Raises EnginebenchError for one named twice."""
    if joined := [text for text in texts if "," in text]:
        raise ServerError(f"{option} {joined[0]!r} is not one URL: for several servers, give {option} once for each.")
    urls = tuple(text.rstrip("/") for text in texts)
    known: dict[object, str] = {}
    for url in urls if len(urls) > 1 else ():
        _, address = resolve(url)
        if address in known:
            raise ServerError(f"{option} {known[address]} and {url} are the same server: give every server once.")
        known[address] = url
    return urls


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
