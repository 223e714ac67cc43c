"""Gathers the parts of a page: each maker says what it has to say of a run, or nothing.

What a part says is its maker's business; where it stands on the page is that of the list in ``model``.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeAlias

from enginebench.errors import RunError
from enginebench.report.cells import Json
from enginebench.report.figures import Section

Maker: TypeAlias = Callable[[Json, Path | None], Section | None]
"""From run.json and the run's directory (None: there are no tables to read) to a part, or None: nothing to say."""


def gather(run: Json, directory: Path | None, makers: Iterable[Maker]) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """The parts that have something to say, and a sentence for each whose tables cannot be read."""
    said = [_said(maker, run, directory) for maker in makers]
    troubles = dict.fromkeys(str(one) for one in said if isinstance(one, RunError))
    return tuple(one for one in said if isinstance(one, Section)), tuple(troubles)


def _said(maker: Maker, run: Json, directory: Path | None) -> Section | RunError | None:
    try:
        return maker(run, directory)
    except RunError as error:
        return error
