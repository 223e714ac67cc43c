"""Upstream's model repository templates: where they lie, which variables they have, and how these are filled.

They are read, never written: each version has its own (0.5 to 1.x), and the user's are those of the user's image.
Knows no value of any variable.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enginebench.errors import ServerError

Kind = Literal["inflight_batcher_llm", "llmapi"]

MODELS: Mapping[Kind, tuple[str, ...]] = {
    "inflight_batcher_llm": ("preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls", "ensemble"),
    "llmapi": ("tensorrt_llm",),
}
"""The models of each set; before 0.7 there was no BLS model."""

PLACES = (
    Path("/app/all_models"),  # images from 25.02 on, by their Dockerfile
    Path("/opt/tritonserver/all_models"),
    Path("/tensorrtllm_backend/all_models"),  # where the documentation mounts a checkout
    Path("/opt/tritonserver/tensorrtllm_backend/all_models"),
    Path("/app/tensorrt_llm/triton_backend/all_models"),
    Path("/workspace/TensorRT-LLM/triton_backend/all_models"),
    Path("/workspace/tensorrtllm_backend/all_models"),
)
"""Where images and their documentation put the templates."""

UPSTREAM = "https://github.com/triton-inference-server/tensorrtllm_backend"
UPSTREAM_LATER = "https://github.com/NVIDIA/TensorRT-LLM"
"""Where they are published, up to 0.19 and later."""

_INSIDE = ("", "all_models", "triton_backend/all_models")  # of a directory that a user names
_TOKEN = re.compile(r'(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<comment>#[^\n]*)|\$\{(?P<bare>\w+)\}')
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_BARE_VALUE = re.compile(r"[A-Za-z0-9_.+-]+")


@dataclass(frozen=True, slots=True)
class TemplateSet:
    """The templates of one version: ``config.pbtxt`` of each model, and the files that stand beside it."""

    kind: Kind
    directory: Path
    configs: Mapping[str, str]  # model → text of its config.pbtxt

    def code(self, model: str) -> str:
        """The Python of ``model``, all files of its version together; empty for a model without."""
        files = sorted((self.directory / model / "1").rglob("*.py"))
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files)

    def variables(self) -> Mapping[str, frozenset[str]]:
        """Model → the variables of its template."""
        return {model: frozenset(_variables(text)) for model, text in self.configs.items()}


@dataclass(frozen=True, slots=True)
class FilledText:
    """One ``config.pbtxt`` with its variables filled."""

    text: str
    filled: tuple[str, ...]  # variables that got a value
    left: tuple[str, ...]  # variables inside quotes that got none: upstream takes ``${x}`` for "not given"
    missing: tuple[str, ...]  # variables outside quotes that got none: Triton cannot read the file


def find_templates(kind: Kind, given: Path | None = None, places: Sequence[Path] = PLACES) -> TemplateSet:
    """The templates of ``kind`` in ``given``, else in the first of ``places`` that has them.

    ``given``: the set itself, an ``all_models``, or a checkout of tensorrtllm_backend or TensorRT-LLM.

    Raises:
        ServerError: there are none, or they are not complete.
    """
    if given is not None and not given.is_dir():
        raise ServerError(
            f"--templates {given} is no directory: name a checkout of tensorrtllm_backend or TensorRT-LLM."
        )
    for directory in [given] if given is not None else places:
        for inside in _INSIDE:
            for candidate in (directory / inside / kind, directory / inside):
                if _is_set(kind, candidate):
                    return _read(kind, candidate)
    if given is not None:
        raise ServerError(
            f"--templates {given} holds no {kind} (no {_mark(kind)} in it, nor in all_models/{kind}): name a "
            f"checkout of tensorrtllm_backend or TensorRT-LLM, its all_models, or the set itself."
        )
    raise ServerError(
        f"There are no templates of {kind} in {', '.join(map(str, places))}: get those of the image's TensorRT-LLM "
        f"X.Y.Z with `git clone --branch vX.Y.Z {UPSTREAM}` (from 0.20 on of {UPSTREAM_LATER}), and name the checkout "
        "with --templates DIR."
    )


def fill_text(text: str, values: Mapping[str, str]) -> FilledText:
    """Fill the variables of a ``config.pbtxt`` with ``values``; inside quotes they are escaped as protobuf wants.

    Raises:
        ServerError: a value outside quotes is none that can stand there.
    """
    filled: dict[str, None] = {}
    left: dict[str, None] = {}
    missing: dict[str, None] = {}

    def quoted(match: re.Match[str]) -> str:
        name = match[1]
        (filled if name in values else left)[name] = None
        return _escaped(values[name]) if name in values else match[0]

    def token(match: re.Match[str]) -> str:
        if match["comment"] is not None:
            return match[0]
        if match["string"] is not None:
            return _VARIABLE.sub(quoted, match[0])
        name = match["bare"]
        (filled if name in values else missing)[name] = None
        return _bare(name, values[name]) if name in values else match[0]

    done = _TOKEN.sub(token, text)
    return FilledText(done, tuple(filled), tuple(left), tuple(missing))


def quoted(text: str) -> str:
    """``text`` as a string of protobuf's text format."""
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _bare(name: str, value: str) -> str:
    if not _BARE_VALUE.fullmatch(value):
        raise ServerError(
            f"${{{name}}} stands outside quotes in config.pbtxt and cannot be {value!r}: give it a word or a number."
        )
    return value


def _variables(text: str) -> list[str]:
    nothing = fill_text(text, {})
    return [*nothing.left, *nothing.missing]


def _mark(kind: Kind) -> str:
    return "tensorrt_llm/1/model.yaml" if kind == "llmapi" else "preprocessing/config.pbtxt"


def _is_set(kind: Kind, directory: Path) -> bool:
    return (directory / _mark(kind)).is_file()


def _read(kind: Kind, directory: Path) -> TemplateSet:
    configs = {}
    for model in MODELS[kind]:
        file = directory / model / "config.pbtxt"
        if file.is_file():
            configs[model] = file.read_text(encoding="utf-8")
        elif model != "tensorrt_llm_bls":
            raise ServerError(f"The templates in {directory} lack {model}/config.pbtxt: name a complete set.")
    for model in configs.keys() & {"preprocessing", "postprocessing", "tensorrt_llm_bls"}:
        if not (directory / model / "1" / "model.py").is_file():
            raise ServerError(
                f"The templates in {directory} lack {model}/1/model.py, which runs that model: name a complete "
                f"checkout."
            )
    return TemplateSet(kind, directory.resolve(), configs)
