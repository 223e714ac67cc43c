"""What an engine directory is: its identity, its limits and its fingerprint.

Reads the layout of TensorRT-LLM 0.8 and later (``version``, ``pretrained_config``, ``build_config``, ``rank*.engine``),
which the reference engine shares. It loads no engine and imports no runtime. Standard library only.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from enginebench.errors import BuildError

REFERENCE_VERSION = "reference-1"
"""The ``version`` of a reference build's config.json; TensorRT-LLM's are numbers such as ``0.16.0``."""

BuildKind = Literal["reference", "tensorrt_llm"]

_READ_BYTES = 1 << 22
_SECTIONS = ("pretrained_config", "build_config", "mapping")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine was built for, in requests and tokens."""

    max_batch_size: int
    max_input_len: int
    max_seq_len: int  # prompt and output together


@dataclass(frozen=True, slots=True)
class Build:
    """An engine directory that was read, not loaded."""

    name: str
    directory: Path
    kind: BuildKind
    version: str | None
    architecture: str
    dtype: str
    limits: Limits
    fingerprint: str  # "sha256:…" over config.json and every engine file
    engine_bytes: int
    python: str  # the interpreter that can load it
    config: Mapping[str, Any]


def read_build(name: str, directory: Path, python: str | None = None) -> Build:
    """Read the engine directory ``directory`` as the build ``name``; ``python`` defaults to the running interpreter.

    Raises BuildError when there is no such directory, no config.json, bad JSON, a missing key or a missing engine file.
    """
    config = read_config(directory)
    version = str(_value(config, directory, "version"))
    engines = _engine_files(directory, config)
    return Build(
        name=name,
        directory=directory,
        kind="reference" if version.startswith("reference-") else "tensorrt_llm",
        version=version,
        architecture=str(_value(config, directory, "pretrained_config", "architecture")),
        dtype=str(_value(config, directory, "pretrained_config", "dtype")),
        limits=_limits(config, directory),
        fingerprint=_fingerprint([directory / "config.json", *engines]),
        engine_bytes=sum(file.stat().st_size for file in engines),
        python=python or sys.executable,
        config=config,
    )


def not_applicable_reason(build: Build, prompt_tokens: int, output_tokens: int, batch_size: int) -> str | None:
    """Say which limit of ``build`` such a request exceeds, or None.

    A ``batch_size`` above the build's is no reason: the requests beyond it wait in the queue of an in-flight batcher.
    """
    if batch_size < 1 or output_tokens < 1:
        return f"batch size {batch_size} and output {output_tokens} must both be at least 1"
    return limit_exceeded(build.limits, prompt_tokens, output_tokens)


def limit_exceeded(limits: Limits, prompt_tokens: int, output_tokens: int) -> str | None:
    """Say which of ``limits`` one request exceeds, or None."""
    if prompt_tokens > limits.max_input_len:
        return f"prompt {prompt_tokens} tokens exceed the build's max_input_len {limits.max_input_len}"
    if prompt_tokens + output_tokens > limits.max_seq_len:
        asked = f"prompt {prompt_tokens} + output {output_tokens} tokens"
        return f"{asked} exceed the build's max_seq_len {limits.max_seq_len}"
    return None


def read_config(directory: Path) -> Mapping[str, Any]:
    """Read ``config.json`` of an engine directory. Raises BuildError unless it is there and of that layout."""
    file = directory / "config.json"
    if not directory.is_dir():
        raise BuildError(f"{directory} is no directory: a build is a directory with config.json and rank0.engine.")
    if not file.is_file():
        raise BuildError(
            f"{directory} has no config.json: give the directory that trtllm-build or `enginebench build` wrote."
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BuildError(f"{file} cannot be read as JSON ({error}): build the engine again.") from error
    if isinstance(config, dict) and "builder_config" in config:
        raise BuildError(
            f"{file} is of TensorRT-LLM before 0.8, which is not read: build the engine with 0.8 or later."
        )
    if not isinstance(config, dict):
        raise BuildError(f"{file} holds no JSON object: build the engine again.")
    return config


def _value(config: Mapping[str, Any], directory: Path, *keys: str) -> Any:
    value: Any = config
    for key in keys:
        if value.get(key) is None:
            raise BuildError(
                f"{directory / 'config.json'} has no {'.'.join(keys)}: it is no complete engine build of 0.8 or later."
            )
        value = value[key]
        if key in _SECTIONS and not isinstance(value, Mapping):
            raise BuildError(f"{directory / 'config.json'} says {'.'.join(keys)} is no object: build the engine again.")
    return value


def _number(config: Mapping[str, Any], directory: Path, *keys: str) -> int:
    value = _value(config, directory, *keys)
    if not isinstance(value, int) or value < 1:
        raise BuildError(
            f"{directory / 'config.json'} says {'.'.join(keys)} = {value!r}: it must be a whole number above 0."
        )
    return value


def _limits(config: Mapping[str, Any], directory: Path) -> Limits:
    max_input_len = _number(config, directory, "build_config", "max_input_len")
    return Limits(
        max_batch_size=_number(config, directory, "build_config", "max_batch_size"),
        max_input_len=max_input_len,
        max_seq_len=_max_seq_len(config, directory, max_input_len),
    )


def _max_seq_len(config: Mapping[str, Any], directory: Path, max_input_len: int) -> int:
    build_config = config["build_config"]
    if build_config.get("max_seq_len") is None and build_config.get("max_output_len") is not None:  # 0.8 to 0.10
        return max_input_len + _number(config, directory, "build_config", "max_output_len")
    return _number(config, directory, "build_config", "max_seq_len")


def _engine_files(directory: Path, config: Mapping[str, Any]) -> list[Path]:
    has_mapping = bool(_value(config, directory, "pretrained_config").get("mapping"))
    world_size = _number(config, directory, "pretrained_config", "mapping", "world_size") if has_mapping else 1
    files = [directory / f"rank{rank}.engine" for rank in range(world_size)]
    for file in files:
        if not file.is_file():
            raise BuildError(
                f"{directory} has no {file.name}, though its config.json has world_size {world_size}: build it again."
            )
    return files


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    try:
        for file in files:
            _digest_file(file, digest.update)
    except OSError as error:  # its text names the file
        raise BuildError(f"The build cannot be read ({error}): check its permissions.") from error
    return f"sha256:{digest.hexdigest()}"


def _digest_file(file: Path, update: Callable[[bytes], None]) -> None:
    update(f"{file.name}\0{file.stat().st_size}\0".encode())
    with file.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            update(block)
