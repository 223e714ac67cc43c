"""What is said of several runs side by side, in words that the page and the terminal share."""

import shlex
from collections.abc import Iterator

from enginebench.report.lineup import Entrant, Lineup
from enginebench.report.lineup_differences import warnings_of
from enginebench.report.summary import REFERENCE_LABEL
from enginebench.report.trust import DOUBTFUL
from enginebench.report.units import count

DESCRIBES = (
    "This describes and decides nothing: verdicts with intervals come from two builds at a time, measured in turns by "
    "enginebench ab, or stored ones by enginebench compare."
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
        (_command("ab", _build(first), _build(each)), _command("compare", first.given.named, each.given.named))
        for each in others
    )


def _build(entrant: Entrant) -> str:
    return f"{entrant.run['build']['name']}={entrant.run['build']['directory']}"


def _command(name: str, old: str, new: str) -> str:
    return shlex.join(("enginebench", name, old, new))


def _doubts(lineup: Lineup) -> str:
    found = [entry.status for row in lineup.rows for entry in row.entries]
    return "".join(f", {count(found.count(level), 'result')} {level.upper()}" for level in DOUBTFUL if level in found)


def _of_reference(lineup: Lineup) -> Iterator[str]:
    labels = lineup.of_reference_engine
    if labels:
        whose = "All runs" if len(labels) == len(lineup.entrants) else ", ".join(labels)
        yield f"{whose}: {REFERENCE_LABEL}. Its numbers exercise the flow and stand for no other engine."
