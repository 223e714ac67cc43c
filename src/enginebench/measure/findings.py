"""Findings: what went wrong in a cell's rounds, or is not known of them, one sentence each. Pure; decides nothing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import UNKNOWN, Ints, RoundRecord
from enginebench.plan.requests import server_of


def findings(rounds: Sequence[RoundRecord]) -> list[str]:
    """One sentence per kind of failure and round, warm-ups included, in order, and one for lengths that nobody told."""
    sentences = []
    for record in rounds:
        sentences += _failures(record)
        if not record.valid:
            sentences.append(
                f"{_where(record)}, the system clock was set: the round is left out, its stamps are wrong."
            )
    if untold := sum(int((record.requests.tokens[_ended_well(record)] == UNKNOWN).sum()) for record in rounds):
        answers = _share(untold, sum(len(record.requests) for record in rounds), "answer")
        sentences.append(f"Nobody told how many tokens {answers} had: that they are as long as asked is not verified.")
    return sentences


def failure(record: RoundRecord, servers: Sequence[str] = ()) -> str | None:
    """Why the requests of a round give no result, as one sentence; None when every one got what it asked for.

    ``servers``: to which the requests went in turn; of several it is said where those were that failed.
    """
    return next(iter(_failures(record, servers)), None)


def _failures(record: RoundRecord, servers: Sequence[str] = ()) -> list[str]:
    sentences = []
    for outcome in dict.fromkeys(record.requests.outcome):
        if outcome != "ok":
            rows = np.flatnonzero([each == outcome for each in record.requests.outcome])
            sentences.append(
                f"{_where(record)}, {_share(len(rows), len(record.requests))} {_what(record, outcome, rows)}"
                f"{_at(record, rows, servers)}."
            )
    return sentences


def _ended_well(record: RoundRecord) -> NDArray[np.bool_]:
    return np.array([outcome == "ok" for outcome in record.requests.outcome], dtype=np.bool_)


def _where(record: RoundRecord) -> str:
    if record.warmup:
        return "In a warm-up round"
    return f"In round {record.round_index + 1}"


def _share(failed: int, total: int, what: str = "request") -> str:
    return f"{failed} of {total} {what}{'s' if total != 1 else ''}"


def _at(record: RoundRecord, rows: NDArray[np.int64], servers: Sequence[str]) -> str:
    if len(servers) < 2:
        return ""
    taken = server_of(record.requests.index[rows], record.round_index, len(servers))
    failed = {url: int((taken == place).sum()) for place, url in enumerate(servers)}
    if len(rows) in failed.values():
        return f", at {next(url for url, count in failed.items() if count)}"
    return f", {' and '.join(f'{count} at {url}' for url, count in failed.items() if count)}"


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
