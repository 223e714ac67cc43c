"""Findings: what went wrong in a cell's rounds, one sentence each. Pure; it decides nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import Ints, RoundRecord


def findings(rounds: Sequence[RoundRecord]) -> list[str]:
    """One sentence per kind of failure and round, warm-ups included, in order; empty when all is well."""
    sentences = []
    for record in rounds:
        sentences += _failures(record)
        if not record.valid:
            sentences.append(
                f"{_where(record)}, the system clock was set: the round is left out, its stamps are wrong."
            )
    return sentences


def failure(record: RoundRecord) -> str | None:
    """Why the requests of a round give no result, as one sentence; None when every one got what it asked for."""
    return next(iter(_failures(record)), None)


def _failures(record: RoundRecord) -> list[str]:
    sentences = []
    for outcome in dict.fromkeys(record.requests.outcome):
        if outcome != "ok":
            rows = np.flatnonzero([each == outcome for each in record.requests.outcome])
            sentences.append(
                f"{_where(record)}, {_share(len(rows), len(record.requests))} {_what(record, outcome, rows)}."
            )
    return sentences


def _where(record: RoundRecord) -> str:
    if record.warmup:
        return "In a warm-up round"
    return f"In round {record.round_index + 1}"


def _share(failed: int, total: int) -> str:
    return f"{failed} of {total} request{'s' if total != 1 else ''}"


def _what(record: RoundRecord, outcome: str, rows: NDArray[np.int64]) -> str:
    requests = record.requests
    if outcome in ("short", "long"):
        return f"gave {_span(requests.tokens[rows])} tokens instead of {_span(requests.requested_tokens[rows])}"
    if outcome == "wrong_input":
        reported, asked = _span(requests.reported_prompt_tokens[rows]), _span(requests.prompt_tokens[rows])
        return f"reached the engine with {reported} input tokens instead of {asked}: not the build's tokenizer"
    reason = next((requests.error[row] for row in rows if requests.error[row]), "").rstrip(".")
    verb = {"stall": "stalled", "cancelled": "were given up"}.get(outcome, "failed")
    return f"{verb} ({reason})" if reason else verb


def _span(values: Ints) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
