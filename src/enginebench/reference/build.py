"""Write a reference build: a directory that looks like TensorRT-LLM's, with random weights from a seed.

Written aside and renamed: a build is there whole or not at all. Nothing is trained and nothing is compiled.
"""

import json
import shutil
import tempfile
from pathlib import Path

from enginebench.builds.build import read_config
from enginebench.errors import BuildError
from enginebench.reference.options import ReferenceOptions, config_from_options, options_from_config
from enginebench.reference.weights import random_weights, write_weights

__all__ = ["ReferenceOptions", "write_build"]


def write_build(options: ReferenceOptions, directory: Path) -> None:
    """Write the build to ``directory``, whole or not at all; does nothing when the same build is already there.

    Raises BuildError when ``directory`` holds anything else, or cannot be written.
    """
    if _holds_anything(directory):
        _require_same(options, directory)
        return
    try:
        _write_aside(options, directory)
    except OSError as error:
        if not _holds_anything(directory):
            raise BuildError(
                f"The reference build cannot be written to {directory} ({error}): choose another directory."
            ) from error
        _require_same(options, directory)  # another process was faster


def _holds_anything(directory: Path) -> bool:
    return directory.exists() and not (directory.is_dir() and not any(directory.iterdir()))


def _require_same(options: ReferenceOptions, directory: Path) -> None:
    try:
        same = options_from_config(read_config(directory)) == options
        same &= all((directory / file).is_file() for file in _engine_files(options))
    except BuildError:
        same = False
    if not same:
        raise BuildError(
            f"{directory} holds something other than this reference build: choose another directory or delete it."
        )


def _write_aside(options: ReferenceOptions, directory: Path) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        aside.chmod(0o755)
        (aside / "config.json").write_text(json.dumps(config_from_options(options), indent=2) + "\n", encoding="utf-8")
        weights = random_weights(options) if options.device == "cpu" else {}
        for file in _engine_files(options):
            write_weights(weights, aside / file)
        aside.rename(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _engine_files(options: ReferenceOptions) -> list[str]:
    """One for each stage."""
    return [f"rank{place}.engine" for place in range(options.pp_size)]
