"""The page of all runs and comparisons in ``reports/``: one row each, the latest first, with a link to its page.

Written from the runs' records as they are now; a record that cannot be read has a row that says so.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.errors import RunError
from enginebench.files import write_text
from enginebench.report.cells import Json, cells_of
from enginebench.report.comparison import COMPARISONS, FILE, comparison_from_json
from enginebench.report.comparison_words import headline, level_of
from enginebench.report.lineup import FILE as LINEUP_FILE
from enginebench.report.page import render
from enginebench.report.summary import REFERENCE_LABEL, date, hardware, is_reference, verdict
from enginebench.report.units import DASH, count
from enginebench.run_lookup import all_runs, runs_directory
from enginebench.store import load_run

INDEX = Path("reports") / "index.html"


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One run. ``link``: its page relative to the index, or None without one."""

    run_id: str
    link: str | None
    date: str
    build: str
    engine: str  # what made the numbers, and on what
    chosen: str  # the set, or the scenarios
    cells: str
    level: str  # of the verdict: good, warn or bad
    verdict: str
    notes: tuple[str, ...]  # what stands behind a verdict that is not good


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One comparison. ``link``: its page relative to the index, or None without one."""

    name: str  # old → new, or all that stand side by side
    link: str | None
    date: str
    numbers: str  # how many decide, and how they came out
    level: str  # as of a run, or plain: no verdict
    verdict: str


@dataclass(frozen=True, slots=True)
class IndexPage:
    """The page of all runs and comparisons."""

    title: str
    subtitle: str
    rows: tuple[IndexRow, ...]
    comparisons: tuple[ComparisonRow, ...]

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part."""
        comparisons = (("comparisons", "Comparisons"),) if self.comparisons else ()
        return (("runs", "Runs"), *comparisons)

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""
        return False


def write_index(root: Path) -> Path:
    """Write ``root``/reports/index.html from the runs in ``root``/reports/runs, and return its path.

    Raises:
        RunError: there is nothing to list, or the page cannot be written.
    """
    target = root / INDEX
    rows = tuple(_row(run, target.parent) for run in reversed(all_runs(root)))
    compared = tuple(comparison_rows(root))
    if not rows and not compared:
        raise RunError(f"There is no run in {runs_directory(root)}: measure some, or go where they are.")
    more = f" and {count(len(compared), 'comparison')}" if compared else ""
    page = IndexPage("enginebench runs", f"{count(len(rows), 'run')}{more}, the latest first", rows, compared)
    write_text(target, render("index.html.j2", page, {"runs": [row.run_id for row in rows]}))
    return target


def comparison_rows(root: Path) -> list[ComparisonRow]:
    """The comparisons in ``root``/reports/comparisons, the latest first; a damaged one has a row that says so."""
    base = (root / INDEX).parent
    rows = [_comparison_row(file, base, _compared) for file in (root / COMPARISONS).glob(f"*/{FILE}")]
    rows += [_comparison_row(file, base, _lined_up) for file in (root / COMPARISONS).glob(f"*/{LINEUP_FILE}")]
    return sorted(rows, key=lambda row: (row.date, row.name), reverse=True)


def _comparison_row(file: Path, base: Path, read: Callable[[Json, str | None], ComparisonRow]) -> ComparisonRow:
    page = file.parent / "report.html"
    link = page.relative_to(base).as_posix() if page.is_file() else None
    try:
        return read(json.loads(file.read_text(encoding="utf-8")), link)
    except (OSError, RunError, AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"{file} is damaged ({type(error).__name__}: {error})."
        return ComparisonRow(file.parent.name, link, DASH, DASH, "bad", why)


def _compared(data: Json, link: str | None) -> ComparisonRow:
    found = comparison_from_json(data)
    outcomes = Counter(each.outcome for each in found.gated)
    return ComparisonRow(
        name=f"{found.old.build} → {found.new.build}",
        link=link,
        date=date(found.created),
        numbers=", ".join(f"{number} {outcome}" for outcome, number in outcomes.items()) or DASH,
        level=level_of(found),
        verdict=headline(found).split(":", 1)[0],
    )


def _lined_up(data: Json, link: str | None) -> ComparisonRow:
    said = f"{count(len(data['runs']), 'build')} side by side over {count(len(data['cells']), 'cell')}: decides nothing"
    return ComparisonRow(
        name=", ".join(run["label"] for run in data["runs"]),
        link=link,
        date=date(data["created"]),
        numbers=DASH,
        level="warn" if any(data["problems"].values()) else "plain",
        verdict=said,
    )


def _row(directory: Path, base: Path) -> IndexRow:
    page = directory / "report.html"
    link = Path(os.path.relpath(page, base)).as_posix() if page.is_file() else None
    try:
        return _read_row(directory, link)
    except RunError as error:
        why = str(error)
    except (KeyError, TypeError, ValueError) as error:  # a stranger's record must not cost the index
        why = f"{directory / 'run.json'} is damaged ({type(error).__name__}: {error})."
    return IndexRow(directory.name, link, DASH, DASH, "", DASH, DASH, "bad", why, ())


def _read_row(directory: Path, link: str | None) -> IndexRow:
    run = load_run(directory).data
    cells = cells_of(run)
    said = verdict(run, cells)
    planned = run["plan"]["cells"]
    measured = sum(cell.measured for cell in cells)
    return IndexRow(
        run_id=run["id"],
        link=link,
        date=date(run["created"]),
        build=run["build"]["name"],
        engine=", ".join(_engine(run)),
        chosen=_chosen(run),
        cells=f"{measured:,} of {len(planned):,}",
        level=said.level,
        verdict=said.headline,
        notes=tuple(note for note in said.notes if REFERENCE_LABEL[1:] not in note) if said.level != "good" else (),
    )


def _engine(run: Json) -> Iterator[str]:
    yield REFERENCE_LABEL if is_reference(run) else f"TensorRT-LLM {run['build'].get('version') or ''}".strip()
    if where := hardware(run["environment"]):
        yield where


def _chosen(run: Json) -> str:
    if run["plan"].get("set"):
        return f"set {run['plan']['set']}"
    return ", ".join(run["plan"].get("scenarios") or ()) or DASH
