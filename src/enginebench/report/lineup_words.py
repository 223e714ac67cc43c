"""What is said of several runs side by side, in words that the page and the terminal share."""

import shlex
from collections.abc import Iterator
from itertools import chain

from enginebench.report.cells import CellView
from enginebench.report.lineup import Entrant, Lineup
from enginebench.report.lineup_differences import warnings_of
from enginebench.report.summary import REFERENCE_LABEL
from enginebench.report.trust import DOUBTFUL
from enginebench.report.units import count

DESCRIBES = (
    "This describes and decides nothing: verdicts with intervals come from two builds at a time, measured in turns by "
    "enginebench ab, or stored ones by enginebench compare, which is inconclusive until enginebench noise has measured "
    "this machine."
)


def headline(lineup: Lineup) -> str:
    """What there is, in one line, bad news first."""
    builds, cells = count(len(lineup.entrants), "build"), count(len(lineup.rows), "cell")
    common = sum(row.measured == len(row.entries) for row in lineup.rows)
    said = f"{builds} over {cells}: {'all' if common == len(lineup.rows) else common} measured by every run"
    return f"{'Not comparable as they are. ' if any(lineup.problems.values()) else ''}{said}{_doubts(lineup)}."


def level_of(lineup: Lineup) -> str:
    """``plain``, ``warn`` or ``bad``: how a page marks the headline."""
    if any(lineup.problems.values()):
        return "bad"
    lacking = any(row.measured < len(row.entries) for row in lineup.rows)
    return "warn" if lacking or _doubts(lineup) else "plain"


def notes(lineup: Lineup) -> tuple[str, ...]:
    """What to know before any number."""
    return (*warnings_of(lineup), *_of_reference(lineup), DESCRIBES)


def commands(lineup: Lineup) -> tuple[tuple[str, str], ...]:
    """What decides between the reference and each of the others, as a user types it: in turns, and from these runs."""
    first, *others = lineup.entrants
    return tuple(
        (
            _command("ab", _build(first), _build(each), *_what_both_measured(first, each)),
            _command("compare", first.given.named, each.given.named),
        )
        for each in others
    )


def _build(entrant: Entrant) -> str:
    return f"{entrant.run['build']['name']}={entrant.run['build']['directory']}"


def _what_both_measured(old: Entrant, new: Entrant) -> Iterator[str]:
    """As options, each once; the answers only where a set left some of them out."""
    cells = [cell for cell in old.cells.values() if cell.measured and _measured(new, cell.id)]
    scenarios = dict.fromkeys(cell.scenario for cell in cells)
    options = [("--scenario", each) for each in scenarios]
    options += [("--path", cell.path) for cell in cells]
    if any(cell.status == "left_out" and cell.scenario in scenarios for cell in old.cells.values()):
        options += [("--cell", _with_such_answers(cell)) for cell in cells]
    yield from chain.from_iterable(dict.fromkeys(options))


def _measured(entrant: Entrant, cell_id: str) -> bool:
    return cell_id in entrant.cells and entrant.cells[cell_id].measured


def _with_such_answers(cell: CellView) -> str:
    """A pattern, such as ``*-stream-out0128-*``."""
    return f"*{cell.id.removeprefix(f'{cell.scenario}-{cell.path}').removesuffix(cell.load.label)}*"


def _command(name: str, *words: str) -> str:
    return shlex.join(("enginebench", name, *words))


def _doubts(lineup: Lineup) -> str:
    found = [entry.status for row in lineup.rows for entry in row.entries]
    return "".join(f", {count(found.count(level), 'result')} {level.upper()}" for level in DOUBTFUL if level in found)


def _of_reference(lineup: Lineup) -> Iterator[str]:
    labels = lineup.of_reference_engine
    if labels:
        whose = "All runs" if len(labels) == len(lineup.entrants) else ", ".join(labels)
        yield f"{whose}: {REFERENCE_LABEL}. Its numbers exercise the flow and stand for no other engine."
