"""SPEC.yaml → the engines of a matrix and the commands that build them. Pure but for reading the file.

Knows how the two eras are driven: ``convert_checkpoint.py`` and ``trtllm-build`` since 0.8, before that
``examples/<model>/build.py``. Which options a release takes is the release's business: they are passed on as they are.
"""

import difflib
import hashlib
import itertools
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.errors import BuildError, ScenarioError
from enginebench.plan.yaml_file import Document, Location, read_document

LAYOUTS = ("trtllm-build", "build.py")
PARTIAL = ".partial"
"""Suffix of a directory that is being written."""

_REQUIRED = ("model", "out", "script", "engines")
_TEXTS = ("model", "out", "script", "layout", "container", "python", "trtllm_build")
_KEYS = (*_TEXTS, "convert", "build", "matrix", "engines")
_ENGINE_KEYS = ("convert", "build")
_NAME_BREAKERS = "/\\ "


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine to build: its name, and the options of both steps as they stand in the file."""

    name: str
    convert: Mapping[str, Any]
    build: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """What one SPEC.yaml asks for."""

    file: Path
    model: str  # the checkpoint, as the commands are given it
    out: Path  # engines land in ``out``/name
    script: str  # convert_checkpoint.py, or build.py of the old layout
    engines: tuple[Engine, ...]
    layout: str = "trtllm-build"
    container: tuple[str, ...] = ()
    python: str = "python3"
    trtllm_build: str = "trtllm-build"

    @property
    def launcher(self) -> tuple[str, ...]:
        """The command that starts the interpreter that builds."""
        return (*self.container, self.python)

    def directory(self, engine: Engine) -> Path:
        """Where ``engine`` lies when it is complete."""
        return self.out / engine.name

    def checkpoint(self, engine: Engine) -> Path | None:
        """Where its converted checkpoint lies, shared by engines with the same options; None for the old layout."""
        if self.layout == "build.py":
            return None
        return self.out / "checkpoints" / _digest([self.model, self.script, self.launcher, engine.convert])[:8]

    def request(self, engine: Engine) -> dict[str, Any]:
        """All that decides what ``engine`` becomes, as JSON: an engine with another request is another engine."""
        return {
            "model": self.model,
            "layout": self.layout,
            "script": self.script,
            "container": list(self.container),
            "python": self.python,
            "trtllm_build": self.trtllm_build,
            "convert": dict(engine.convert),
            "build": dict(engine.build),
        }


def partial(directory: Path) -> Path:
    """Where ``directory`` is written before it is complete: beside it, hidden."""
    return directory.with_name(f".{directory.name}{PARTIAL}")


def convert_command(spec: Spec, engine: Engine, output: Path) -> tuple[str, ...]:
    """The command that converts the model into a TensorRT-LLM checkpoint in ``output``."""
    places = ("--model_dir", spec.model, "--output_dir", str(output))
    return (*spec.launcher, spec.script, *places, *flags(engine.convert))


def build_command(spec: Spec, engine: Engine, output: Path) -> tuple[str, ...]:
    """The command that builds the engine in ``output``."""
    checkpoint = spec.checkpoint(engine)
    if checkpoint is None:
        places = ("--model_dir", spec.model, "--output_dir", str(output))
        return (*spec.launcher, spec.script, *places, *flags(engine.build))
    places = ("--checkpoint_dir", str(checkpoint), "--output_dir", str(output))
    return (*spec.container, *shlex.split(spec.trtllm_build), *places, *flags(engine.build))


def flags(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Options as a command line: true is a bare flag, false and null are left out, a list is several values."""
    found: list[str] = []
    for key, value in options.items():
        if value is True:
            found.append(f"--{key}")
        elif value is not None and value is not False:
            values = value if isinstance(value, list) else [value]
            found += [f"--{key}", *map(str, values)]
    return tuple(found)


def read_spec(file: Path) -> Spec:
    """Read a SPEC.yaml. Raises BuildError that names file, line and fix."""
    try:
        return _Reader(read_document(file)).spec()
    except ScenarioError as error:
        raise BuildError(str(error)) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks one document while it takes it apart; its errors carry the line."""

    document: Document

    def spec(self) -> Spec:
        data = self._mapping(self.document.data, (), _KEYS)
        for key in _REQUIRED:
            if not data.get(key):
                raise self.document.error((), f"{key} is missing; write e.g. {_EXAMPLES[key]}")
        texts = {key: self._text(data[key], (key,)) for key in _TEXTS if key in data}
        layout = texts.get("layout", LAYOUTS[0])
        if layout not in LAYOUTS:
            raise self.document.error(("layout",), f"layout {layout!r} is unknown; use {' or '.join(LAYOUTS)}")
        engines = tuple(self._engines(data, layout))
        self._check_unique([engine.name for engine in engines])
        return Spec(
            file=self.document.path,
            model=texts["model"],
            out=Path(texts["out"]).expanduser().absolute(),
            script=texts["script"],
            engines=engines,
            layout=layout,
            container=self._words(texts.get("container", "")),
            python=texts.get("python", "python3"),
            trtllm_build=texts.get("trtllm_build", "trtllm-build"),
        )

    def _engines(self, data: Mapping[str, Any], layout: str) -> Iterator[Engine]:
        convert, build = (self._options(data.get(key), (key,)) for key in _ENGINE_KEYS)
        points = list(self._points(data.get("matrix") or {}))
        for name, own in self._mapping(data["engines"], ("engines",)).items():
            here: Location = ("engines", str(name))
            self._check_name(str(name), here)
            own_keys = self._mapping(own or {}, here, _ENGINE_KEYS)
            both = {key: self._options(own_keys.get(key), (*here, key)) for key in _ENGINE_KEYS}
            if layout == "build.py" and (convert or both["convert"]):
                at: Location = (*here, "convert") if both["convert"] else ("convert",)
                raise self.document.error(at, "layout build.py has no step of its own for converting; use build")
            for point in points:
                suffix = "".join(f"-{key}{value}" for key, value in point.items())
                yield Engine(f"{name}{suffix}", {**convert, **both["convert"]}, {**build, **both["build"], **point})

    def _points(self, matrix: Any) -> Iterator[dict[str, Any]]:
        axes = self._mapping(matrix, ("matrix",))
        for key, values in axes.items():
            if not isinstance(values, list) or not values:
                raise self.document.error(("matrix", key), f"matrix.{key} must be a list, e.g. [8, 64]")
            for value in values:
                self._check_name(str(value), ("matrix", key))
        for combination in itertools.product(*axes.values()):
            yield dict(zip(axes, combination, strict=True))

    def _mapping(self, value: Any, at: Location, keys: tuple[str, ...] | None = None) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise self.document.error(at, f"{'.'.join(map(str, at)) or 'the file'} must hold keys and values")
        for key in value:
            if keys is not None and key not in keys:
                close = difflib.get_close_matches(str(key), keys, 1)
                hint = f"did you mean {close[0]}?" if close else f"use {', '.join(keys)}"
                raise self.document.error((*at, str(key)), f"the key {key!r} is unknown; {hint}")
        return value

    def _options(self, value: Any, at: Location) -> Mapping[str, Any]:
        options = self._mapping(value or {}, at)
        for key, each in options.items():
            values = each if isinstance(each, list) else [each]
            plain = all(value is None or isinstance(value, str | int | float) for value in values)
            if not plain or str(key).startswith("-"):
                raise self.document.error((*at, str(key)), f"{key} must be an option's name with a plain value")
        return options

    def _text(self, value: Any, at: Location) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.document.error(at, f"{at[0]} must be text, e.g. {_EXAMPLES.get(str(at[0]), 'python3')}")
        return value

    def _words(self, command: str) -> tuple[str, ...]:
        try:
            return tuple(shlex.split(command))
        except ValueError as error:
            raise self.document.error(("container",), f"container is no shell command ({error}); quote it") from None

    def _check_unique(self, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self.document.error(("engines",), f"two engines are called {name!r}; change one of the names")

    def _check_name(self, name: str, at: Location) -> None:
        if name.startswith((".", "-")) or name == "checkpoints" or any(each in name for each in _NAME_BREAKERS):
            raise self.document.error(at, f"{name!r} cannot be part of a directory's name; use letters and digits")


_EXAMPLES = {
    "model": "model: /models/chatglm3-6b",
    "out": "out: /engines/chatglm3_6b",
    "script": "script: /models/tensorrtllm_backend/tensorrt_llm/examples/chatglm/convert_checkpoint.py",
    "engines": "engines: {fp16: {}}",
}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
