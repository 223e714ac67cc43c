"""Several stored runs side by side: what users name, read, lined up, and written as a page."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from enginebench.files import write_text
from enginebench.report.comparison import COMPARISONS
from enginebench.report.comparison_page import NAME
from enginebench.report.index import write_index
from enginebench.report.lineup import FILE, Given, Lineup, line_up, lineup_json
from enginebench.report.lineup_page import write_lineup
from enginebench.run.baselines import Stored, find_stored
from enginebench.run.endpoints import memory_samples, why_no_memory
from enginebench.run_lookup import runs_directory


def line_up_stored(texts: Sequence[str], root: Path) -> Lineup:
    """The runs or baselines that ``texts`` mean, the first as the reference.

    Raises:
        RunError: one of them is none, or they have no place on one page.
    """
    others = [find_stored(text, root) for text in texts[1:]]
    reference = find_stored(texts[0], root, others[0].data["environment"])
    return line_up([_given(each, root) for each in (reference, *others)])


def keep_lineup(lineup: Lineup, root: Path) -> Path:
    """Write the page and lineup.json among all comparisons, list them in the index of ``root``; return the page.

    Raises:
        RunError: one of them cannot be written.
    """
    page = COMPARISONS / lineup.id / NAME  # relative to where the user stands
    write_text(page.parent / FILE, lineup_json(lineup))
    write_lineup(lineup, page)
    write_index(root)
    return page


def _given(stored: Stored, root: Path) -> Given:
    run = stored.data
    held = {path: memory_samples(run, path) for path in {cell["path"] for cell in run["cells"].values()}}
    known = {path: [each.value for each in samples if each.value is not None] for path, samples in held.items()}
    return Given(
        run=run,
        named=_named(stored, root),
        outside_bytes={path: median(values) for path, values in known.items() if values},
        why_none={path: why_no_memory(run, path) for path, values in known.items() if not values},
    )


def _named(stored: Stored, root: Path) -> str:
    """What a command calls it, from where the user stands."""
    if stored.directory is None:
        return stored.source.removeprefix("baseline ")
    if stored.directory.resolve().parent == runs_directory(root).resolve():
        return stored.directory.name
    return str(stored.directory)
