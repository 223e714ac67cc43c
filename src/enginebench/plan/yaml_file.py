"""YAML files that remember the line of every key, and refuse what PyYAML lets pass (a key given twice).

Knows YAML and text files; knows nothing of scenarios.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from enginebench.errors import ScenarioError

Location: TypeAlias = "tuple[str | int, ...]"
"""Keys and list positions from the top of a file, e.g. ``("gate", 0, "margin")``."""


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML file: what it says, and where."""

    path: Path
    data: object
    lines: Mapping[Location, int]  # of a key, or of a list's entry; from 1

    def known(self, location: Location) -> Location:
        """As much of ``location`` as stands in the file, where the only entry of a list may stand without its list."""
        found: Location = ()
        for step in location:
            if (*found, step) in self.lines:
                found = (*found, step)
            elif step != 0:
                break
        return found

    def error(self, location: Location, message: str) -> ScenarioError:
        """``message`` with the file and the line of ``location`` before it."""
        return ScenarioError(f"{self.path}:{self.lines[self.known(location)]}: {message}")


def read_document(path: Path) -> Document:
    """Read one YAML file. Raises ScenarioError when it cannot be read, is empty or is not YAML."""
    text = read_utf8(path)
    try:
        return _parse(path, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise _not_yaml(path, line, error.problem or "unknown problem") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _not_yaml(path, line, "it holds a control character") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_yaml(path, 1, str(error)) from None


def read_utf8(path: Path) -> str:
    """Text of a file. Raises ScenarioError when it cannot be read, or is not UTF-8 (with the first bad byte's line)."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ScenarioError(f"{path}: there is no such file; check the name") from None
    except OSError as error:
        raise ScenarioError(f"{path}: the file cannot be read ({error.strerror})") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x}"
        raise ScenarioError(f"{path}:{line}: {found} is not UTF-8; save the file with UTF-8 encoding") from None


def _not_yaml(path: Path, line: int, problem: str) -> ScenarioError:
    return ScenarioError(f"{path}:{line}: not valid YAML, {problem}; check indentation, colons and quotes there")


def _parse(path: Path, text: str) -> Document:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ScenarioError(f"{path}:1: the file is empty; write its keys, as scenarios/README.md shows")
        lines: dict[Location, int] = {(): node.start_mark.line + 1}
        _note_lines(path, node, (), lines, set())
        return Document(path, loader.construct_document(node), lines)
    finally:
        loader.dispose()


def _note_lines(path: Path, node: yaml.Node, at: Location, lines: dict[Location, int], seen: set[int]) -> None:
    if id(node) in seen:  # an alias: its lines are those of its anchor
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _note_key(path, key, at, lines)
            _note_lines(path, value, (*at, str(key.value)), lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*at, index)] = value.start_mark.line + 1
            _note_lines(path, value, (*at, index), lines, seen)


def _note_key(path: Path, key: yaml.Node, at: Location, lines: dict[Location, int]) -> None:
    here, line = (*at, str(key.value)), key.start_mark.line + 1
    if here in lines:
        raise ScenarioError(
            f"{path}:{line}: the key '{key.value}' is given twice (first on line {lines[here]}); remove one of them"
        )
    lines[here] = line
