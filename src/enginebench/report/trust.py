"""How far a cell can be trusted: what the client's calibration found, and what the machine did, in a few words.

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
RINGS = {"invalid": "bad", "degraded": "warn"}
"""How points of doubtful cells are ringed in charts, by level."""

_WORDS = {
    ("invalid", "client"): "the client could not resolve {}; see the findings. Stop other programs and measure again",
    ("invalid", "machine"): "the machine or its server was not fit to measure {}; see the findings",
    ("degraded", "client"): "the client is close to what is to be told apart in {}; see the findings",
    ("degraded", "machine"): "the machine or its server was not at its best in {}; see the findings",
}


def level_of(record: Mapping[str, Any]) -> str:
    """``valid``, ``uncalibrated``, ``degraded`` or ``invalid``, for the record of a measured cell."""
    return str((record.get("validity") or {}).get("level", UNCALIBRATED))


def reasons_of(record: Mapping[str, Any]) -> Sequence[str]:
    """Why a measured cell is degraded or invalid; nothing for others."""
    return tuple(record["validity"]["reasons"]) if level_of(record) in DOUBTFUL else ()


def doubts_of(record: Mapping[str, Any]) -> Mapping[str, str]:
    """The level by whose doubt it is: the ``client``'s, or that of the ``machine`` and its server."""
    told = (record.get("validity") or {}).get("levels")  # older runs lack it: they judged the client alone
    return told or {"client": level_of(record), "machine": "valid"}


def error_of(record: Mapping[str, Any]) -> float | None:
    """The greatest error of any of the cell's medians, a fraction of it; None: uncalibrated."""
    error = (record.get("validity") or {}).get("client_error")
    return None if error is None else float(error)


def error_words(record: Mapping[str, Any]) -> str:
    """The client's error in percent, and the level where it is not valid, with what made it where that is another."""
    error, level = error_of(record), level_of(record)
    parts = [] if error is None else [_percent(error)]
    if level in DOUBTFUL:
        parts.append(f"{level.upper()}{f' ({cause})' if (cause := cause_of(record)) else ''}")
    elif level != "valid":
        parts.append(level)
    return " ".join(parts)


def cause_of(record: Mapping[str, Any]) -> str:
    """What made a doubtful level, in a word or two; nothing for the client's error, which stands beside it."""
    if not mark(record):
        return ""
    if doubts_of(record)["client"] != level_of(record):
        return "machine"
    cause = (record.get("validity") or {}).get("cause") or ""  # older runs lack it
    return "" if cause == "client error" else cause


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


def mark(record: Mapping[str, Any]) -> str:
    """``INVALID`` or ``DEGRADED``, to stand beside the numbers of a measured cell; nothing where it can be trusted."""
    return status_words(record, "")


def caveats(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What to know of client and machine before any number; ``records``: of measured cells."""
    found = Counter(
        (level, who)
        for record in records
        for who, level in doubts_of(record).items()
        if level == level_of(record)  # a lesser doubt of the other says nothing more
    )
    for (level, who), words in _WORDS.items():
        if number := found[level, who]:
            yield f"{level.upper()}: {words.format(count(number, 'cell'))}."
    errors = [error for record in records if (error := error_of(record)) is not None]
    if not errors:
        yield "Client error: uncalibrated."
        return
    unknown = len(records) - len(errors)
    rest = f"; {count(unknown, 'cell')} uncalibrated" if unknown else ""
    yield f"Client error, against known truth: at most {max(errors) * 100:.1f}% of any median{rest}."
