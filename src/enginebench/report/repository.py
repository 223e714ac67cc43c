"""What the model repository of a run's own Triton server was filled with, from where, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.report.cells import Json
from enginebench.report.figures import Section
from enginebench.report.view import Column, Table, Text

_HEADS = ("Variable", "Value", "Why", "Models")


def repository_section(run: Json, _directory: Path | None) -> Section | None:
    """The repositories that the run's sessions were served from; None where none was filled."""
    found = _different([session["repository"] for session in run["sessions"] if session.get("repository")])
    if not found:
        return None
    tables = [_table(filled, number) for number, filled in enumerate(found, 1)]
    notes = [f"Warning: {warning}" for filled in found for warning in filled["warnings"]]
    notes += [_left(filled) for filled in found if filled["left"]]
    return Section(
        "repository", "Model repository", _lead(found), tables=tuple(tables), notes=tuple(dict.fromkeys(notes))
    )


def repository_text(filled: Mapping[str, Any]) -> str:
    """One filled repository as lines for a terminal, warnings last."""
    rows = [_HEADS, *_rows(filled)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = [f"Templates: {filled['templates']}", *lines]
    if filled["left"]:
        lines.append(_left(filled))
    return "\n".join([*lines, *(f"! {warning}" for warning in filled["warnings"])])


def _rows(filled: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """A row for every variable and value, with the models that have it."""
    models: dict[tuple[str, str, str], list[str]] = {}
    for one in filled["filled"]:
        models.setdefault((one["variable"], one["value"], one["source"]), []).append(one["model"])
    return [(*head, ", ".join(names)) for head, names in models.items()]


def _table(filled: Mapping[str, Any], number: int) -> Table:
    columns = tuple(Column(title, numeric=False) for title in _HEADS)
    rows = tuple(tuple(Text(text) for text in row) for row in _rows(filled))
    return Table(f"Repository {number}, from {filled['templates']}", columns, rows)


def _lead(found: Sequence[Mapping[str, Any]]) -> str:
    values = sum(len(filled["filled"]) for filled in found)
    warnings = sum(len(filled["warnings"]) for filled in found)
    said = (
        "nothing in it is known to distort a benchmark" if not warnings else "the warnings below may explain a result"
    )
    return f"Triton was started from {found[0]['kind']} templates, of which {values} variables were filled; {said}."


def _left(filled: Mapping[str, Any]) -> str:
    names = sorted({name for names in filled["left"].values() for name in names})
    return f"Left to the defaults of the version: {', '.join(names)}."


def _different(repositories: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for repository in repositories:
        if repository not in found:
            found.append(repository)
    return found
