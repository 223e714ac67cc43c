"""How far the client itself can be trusted, cell by cell: what its calibration found, in a few words.

Reads what ``measure.validity`` judged; judges nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enginebench.report.units import DASH, count
from enginebench.report.view import Text

UNCALIBRATED = "uncalibrated"
DOUBTFUL = ("invalid", "degraded")
COLUMN = "Client error"


def level_of(record: Mapping[str, Any]) -> str:
    """``valid``, ``uncalibrated``, ``degraded`` or ``invalid``, for the record of a measured cell."""
    return str((record.get("validity") or {}).get("level", UNCALIBRATED))


def reasons_of(record: Mapping[str, Any]) -> Sequence[str]:
    """Why a measured cell is degraded or invalid; nothing for others."""
    return tuple(record["validity"]["reasons"]) if level_of(record) in DOUBTFUL else ()


def error_of(record: Mapping[str, Any]) -> float | None:
    """The greatest error of any of the cell's medians, a fraction of it; None: uncalibrated."""
    error = (record.get("validity") or {}).get("client_error")
    return None if error is None else float(error)


def error_words(record: Mapping[str, Any]) -> str:
    """The error in percent, and the level where it is not valid."""
    error, level = error_of(record), level_of(record)
    parts = [] if error is None else [_percent(error)]
    return " ".join([*parts, *([level.upper() if level in DOUBTFUL else level] if level != "valid" else [])])


def error_text(record: Mapping[str, Any]) -> Text:
    """The error alone, for a place of a table that shows the level elsewhere, with the reasons."""
    reasons = "; ".join((record.get("validity") or {}).get("reasons", ()))
    error = error_of(record)
    if error is None:
        return Text(DASH, reasons or "client error: uncalibrated")
    return Text(_percent(error), reasons or "the greatest client error of the cell's medians", number=error * 100)


def _percent(error: float) -> str:
    return f"{error * 100:.1f}%" if error >= 0.0005 else "<0.1%"


def status_of(record: Mapping[str, Any], status: str) -> str:
    """The level of a measured cell where it is doubtful, else ``status``."""
    level = level_of(record)
    return level if level in DOUBTFUL else status


def status_words(record: Mapping[str, Any], words: str) -> str:
    """The words for a status: the level of a measured cell where that is doubtful, else ``words``."""
    level = level_of(record)
    return level.upper() if level in DOUBTFUL else words


def caveats(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What to know of the client before any number; ``records``: of measured cells."""
    found = Counter(level_of(record) for record in records)
    for level, verb in (("invalid", "could not resolve"), ("degraded", "is close to what is to be told apart in")):
        if found[level]:
            yield f"{level.upper()}: the client {verb} {count(found[level], 'cell')}; see the findings."
    errors = [error for record in records if (error := error_of(record)) is not None]
    if not errors:
        yield "Client error: uncalibrated."
        return
    unknown = len(records) - len(errors)
    rest = f"; {count(unknown, 'cell')} uncalibrated" if unknown else ""
    yield f"Client error, against known truth: at most {max(errors) * 100:.1f}% of any median{rest}."
