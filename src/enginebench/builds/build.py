"""What an engine directory is: ``read_build`` tells its era from ``config.json`` and has it read.

It loads no engine and imports no runtime. Standard library only, but PyYAML for the arguments of a checkpoint.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.builds import era_checkpoint, era_current, era_old
from enginebench.builds.config import Config, read_config
from enginebench.builds.model import (
    REFERENCE_VERSION,
    Build,
    BuildKind,
    Layout,
    Limits,
    Shape,
    batch_exceeded,
    limit_exceeded,
)
from enginebench.errors import BuildError

__all__ = [
    "REFERENCE_VERSION",
    "Build",
    "BuildKind",
    "Layout",
    "Limits",
    "Shape",
    "batch_exceeded",
    "limit_exceeded",
    "read_build",
    "read_config",
]

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model")


def read_build(
    name: str,
    directory: Path,
    python: str | None = None,
    *,
    tokenizer: Path | None = None,
    trust_remote_code: bool = False,
    container: Sequence[str] = (),
    llm_args: Path | None = None,
) -> Build:
    """Read the engine directory ``directory`` as the build ``name``.

    Args:
        python: the interpreter that can load it; default: the running one, or ``python3`` in a container.
        tokenizer: a Hugging Face tokenizer's directory; default: the build's own, when it holds one.
        trust_remote_code: whether tokenizer and checkpoint may run Python of their own.
        container: the command that runs ``python`` elsewhere, e.g. ``docker run --rm -i … IMAGE``.
        llm_args: arguments of a checkpoint for the PyTorch backend; default: its ``llm_args.yaml``.

    Raises:
        BuildError: no directory, no or a broken config.json, a missing engine file, a model that is no decoder, or an
            argument that such a build has no use for.
    """
    config = Config(directory / "config.json", read_config(directory))
    build = _read(name, config, llm_args)
    if build.kind == "reference" and (tokenizer or trust_remote_code):
        option = "a tokenizer" if tokenizer else "--trust-remote-code"
        raise BuildError(f"{directory} is a reference build, whose tokenizer is its own: leave out {option}.")
    if build.kind != "pytorch" and llm_args:
        raise BuildError(f"{directory} is no checkpoint for the PyTorch backend: leave out llm_args={llm_args}.")
    return replace(
        build,
        python=python or ("python3" if container else sys.executable),
        tokenizer=tokenizer or (directory if _holds_tokenizer(directory) else None),
        trust_remote_code=trust_remote_code,
        container=tuple(container),
    )


def _read(name: str, config: Config, llm_args: Path | None) -> Build:
    if "version" in config.values and "pretrained_config" in config.values:
        return era_current.read(name, config)
    if "builder_config" in config.values:
        return era_old.read(name, config)
    if "architectures" in config.values or "model_type" in config.values:
        return era_checkpoint.read(name, config, llm_args)
    raise BuildError(_unknown(config.file, config.values))


def _unknown(file: Path, values: Mapping[str, Any]) -> str:
    if "architecture" in values and "mapping" in values:
        return f"{file} is of a TensorRT-LLM checkpoint, which is no engine yet: build one with trtllm-build."
    missing = "pretrained_config" if "version" in values else "version"
    return f"{file} has no {missing}: it is no engine build of any TensorRT-LLM release known here."


def _holds_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _TOKENIZER_FILES)
