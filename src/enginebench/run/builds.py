"""The build that a command line names, or the reference build that stands in when it names none."""

import hashlib
import sys
from pathlib import Path

from enginebench.builds.build import Build, read_build
from enginebench.errors import BuildError
from enginebench.reference.build import ReferenceOptions, write_build

DEFAULT_BUILDS = Path("reports") / "builds"


def build_from_option(text: str | None, root: Path) -> Build:
    """Read the build of ``--build NAME=DIR[,python=PATH]``; None: the default reference build, made when it is missing.

    Raises:
        BuildError: the text is not of that form, or the directory is no build.
    """
    if text is None:
        return _default_build(root / DEFAULT_BUILDS)
    place, _, python = text.partition(",python=")
    name, separator, directory_text = place.partition("=")
    if not (separator and name and directory_text):
        raise BuildError(
            f"--build {text!r} is not of the form NAME=DIR, e.g. --build fp16=/engines/chatglm3_6b/fp16/1-gpu."
        )
    return _runnable(read_build(name, Path(directory_text).expanduser(), python or sys.executable))


def _runnable(build: Build) -> Build:
    if build.kind != "reference":
        raise BuildError(
            f"Build {build.name} ({build.directory}) is a TensorRT-LLM {build.version} engine, and this version of "
            "enginebench has no adapter for its runtime yet: give a reference build."
        )
    return build


def _default_build(directory: Path) -> Build:
    """Other options are another build, so its directory is named after them: one that is there already can be taken."""
    options = ReferenceOptions()
    place = directory / f"reference-{hashlib.sha256(repr(options).encode()).hexdigest()[:8]}"
    write_build(options, place)
    return read_build("reference", place)
