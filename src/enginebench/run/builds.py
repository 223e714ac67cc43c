"""The build that a command line names, or the reference build that stands in when it names none."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginebench.builds.build import Build, read_build
from enginebench.errors import BuildError
from enginebench.reference.build import ReferenceOptions, write_build

DEFAULT_BUILDS = Path("reports") / "builds"

_KEYS = ("python", "tokenizer", "llm_args", "container")
_OPTION = re.compile(rf",({'|'.join(_KEYS)})=")


def only_build(texts: Sequence[str] | None) -> str | None:
    """The value of ``--build``, if there is one. Raises BuildError for several."""
    if len(texts or ()) > 1:
        raise BuildError("--build is given more than once, and a run measures one: compare two with `enginebench ab`.")
    return texts[0] if texts else None


def build_from_option(
    text: str | None, root: Path, tokenizer: Path | None = None, trust_remote_code: bool = False
) -> Build:
    """Read the build of ``--build``; None: the default reference build, made when it is missing.

    ``text``: what ``parse_build`` takes, with a name. ``tokenizer``: where ``text`` names none.

    Raises:
        BuildError: the text is not of that form, or the directory is no build.
    """
    if text is None:
        place = _default_build(root / DEFAULT_BUILDS)
        return read_build("reference", place, tokenizer=tokenizer, trust_remote_code=trust_remote_code)
    if not re.match(r"[^=/]+=", text):
        raise _malformed(text)
    return parse_build(text, tokenizer, trust_remote_code)


def parse_build(text: str, tokenizer: Path | None = None, trust_remote_code: bool = False) -> Build:
    """Read the build ``[NAME=]DIR[,python=PATH][,tokenizer=DIR][,llm_args=FILE][,container=COMMAND …]``.

    A build without NAME is called after its directory. ``container`` comes last, and takes all that follows.

    Raises:
        BuildError: the text is not of that form, or the directory is no build.
    """
    place, options = _split(text)
    name, separator, directory = place.partition("=")
    if not separator or "/" in name:
        name, directory = Path(place).resolve().name, place
    if not name or not directory:
        raise _malformed(text)
    return read_build(
        name,
        Path(directory).expanduser(),
        options.get("python"),
        tokenizer=_path(options.get("tokenizer")) or tokenizer,
        trust_remote_code=trust_remote_code,
        container=_command(text, options.get("container", "")),
        llm_args=_path(options.get("llm_args")),
    )


def _split(text: str) -> tuple[str, Mapping[str, str]]:
    head, separator, container = text.partition(",container=")
    place, *rest = _OPTION.split(head)
    options = dict(zip(rest[::2], rest[1::2], strict=True))
    if separator:
        options["container"] = container
    if len(options) < len(rest) // 2 + bool(separator) or not all(value.strip() for value in options.values()):
        raise _malformed(text)
    if (unknown := re.search(r",(\w+)=", place)) and not Path(place.partition("=")[2]).exists():
        raise BuildError(f"--build {text!r} has an unknown key {unknown[1]!r}: there are {', '.join(_KEYS)}.")
    return place, options


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _command(text: str, command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise BuildError(
            f"--build {text!r} has a container command that is no shell command ({error}): quote it."
        ) from error


def _malformed(text: str) -> BuildError:
    return BuildError(
        f"--build {text!r} is not of the form NAME=DIR[,python=PATH][,tokenizer=DIR][,llm_args=FILE]"
        "[,container=COMMAND], e.g. --build fp16=/engines/chatglm3_6b/fp16-max_batch_size8."
    )


def _default_build(directory: Path) -> Path:
    """Other options are another build, so its directory is named after them: one that is there already can be taken."""
    options = ReferenceOptions()
    place = directory / f"reference-{hashlib.sha256(repr(options).encode()).hexdigest()[:8]}"
    write_build(options, place)
    return place
