"""Reading ``config.json`` with errors that name the file and the key. Knows no era. Standard library only."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.errors import BuildError


@dataclass(frozen=True, slots=True)
class Config:
    """A JSON object and the file that it stands in."""

    file: Path
    values: Mapping[str, Any]

    @property
    def directory(self) -> Path:
        """The build's directory."""
        return self.file.parent

    def get(self, *keys: str) -> Any:
        """The value at ``keys``; None when it, or a section on the way, is missing or null. Raises BuildError."""
        value: Any = self.values
        for depth, key in enumerate(keys):
            if not isinstance(value, Mapping):
                raise BuildError(f"{self.file} says {'.'.join(keys[:depth])} is no object: build the engine again.")
            value = value.get(key)
            if value is None:
                return None
        return value

    def section(self, *keys: str) -> Mapping[str, Any]:
        """The object at ``keys``; empty when it is missing. Raises BuildError for anything else."""
        value = self.get(*keys)
        if value is not None and not isinstance(value, Mapping):
            raise BuildError(f"{self.file} says {'.'.join(keys)} is no object: build the engine again.")
        return value or {}

    def text(self, *keys: str) -> str:
        """The value at ``keys`` as text. Raises BuildError when it is missing."""
        return str(self._required(*keys))

    def number(self, *keys: str) -> int:
        """The whole number above 0 at ``keys``. Raises BuildError when it is missing or anything else."""
        self._required(*keys)
        value = self.count(*keys)
        assert value is not None
        return value

    def count(self, *keys: str) -> int | None:
        """The whole number above 0 at ``keys``; None when it is missing or null. Raises BuildError."""
        value = self.get(*keys)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BuildError(f"{self.file} says {'.'.join(keys)} = {value!r}: it must be a whole number above 0.")
        return value

    def _required(self, *keys: str) -> Any:
        for depth in range(1, len(keys) + 1):
            if self.get(*keys[:depth]) is None:
                raise BuildError(f"{self.file} has no {'.'.join(keys[:depth])}: it is no complete engine build.")
        return self.get(*keys)


def read_config(directory: Path) -> Mapping[str, Any]:
    """Read ``config.json`` of a build's directory. Raises BuildError unless it is there and a JSON object."""
    if not directory.is_dir():
        raise BuildError(f"{directory} is no directory: a build is a directory with config.json and rank0.engine.")
    file = directory / "config.json"
    if not file.is_file():
        raise BuildError(_no_config(directory))
    return read_object(file)


def read_object(file: Path) -> Mapping[str, Any]:
    """Read a JSON file that holds an object. Raises BuildError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{file} cannot be read as JSON ({error}): build the engine again.") from error
    if not isinstance(values, dict):
        raise BuildError(f"{file} holds no JSON object: build the engine again.")
    return values


def _no_config(directory: Path) -> str:
    if (directory / "encoder").is_dir() and (directory / "decoder").is_dir():
        return (
            f"{directory} holds an encoder and a decoder engine: encoder-decoder models are not measured here; "
            "give a decoder-only build."
        )
    return f"{directory} has no config.json: give the directory that trtllm-build or `enginebench build` wrote."
