"""What servers counted in the measured rounds of a cell, held against what the client did. Pure.

What a server does not count is None, never zero.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginebench.errors import ServerError
from enginebench.measure.records import RoundRecord
from enginebench.run.server_watch import Counters
from enginebench.server.metrics_page import OUTPUT_TOKENS
from enginebench.server.statistics import ModelCounts, between, together

_TOKENS = f"{OUTPUT_TOKENS}_sum"


@dataclass(frozen=True, slots=True)
class Counted:
    """By one server, or by all of them together. None: not known; ``reason`` says why."""

    counts: Mapping[str, ModelCounts] | None
    output_tokens: int | None
    reason: str | None = None

    def statistics(self) -> dict[str, Any] | None:
        """The ``statistics`` in run.json, by model."""
        return {name: each.as_json() for name, each in (self.counts or {}).items()} or None

    def requests(self, model: str, elsewhere: Collection[str]) -> int | None:
        """Of ``model``; None: not known, or nobody counts it. What is counted ``elsewhere`` is zero here."""
        if self.counts is None:
            return None
        mine = self.counts.get(model)
        return mine.requests if mine else 0 if model in elsewhere else None


def counted_between(before: Counters, after: Counters) -> Counted:
    """What one server counted from one moment to the other."""
    was, now = before.totals, after.totals
    tokens = round(now[_TOKENS] - was.get(_TOKENS, 0.0)) if _TOKENS in now else None
    if before.counts is None or after.counts is None:
        return Counted(None, tokens, after.reason or before.reason)
    try:
        return Counted(between(before.counts, after.counts), tokens)
    except ServerError as error:
        return Counted(None, tokens, str(error))


def counted_together(each: Sequence[Counted]) -> Counted:
    """The sums; not known where one of the servers does not tell its part."""
    counts = [one.counts for one in each if one.counts is not None]
    tokens = [one.output_tokens for one in each if one.output_tokens is not None]
    return Counted(
        together(counts) if len(counts) == len(each) else None,
        sum(tokens) if tokens and len(tokens) == len(each) else None,
        next((one.reason for one in each if one.reason), None),
    )


def against_client(
    model: str, rounds: Sequence[RoundRecord], counted: Counted, elsewhere: Collection[str] = ()
) -> list[dict[str, Any]]:
    """The ``counted`` in run.json: the client's counts in ``rounds`` beside the server's, None where one has none.

    ``model``: that requests go to. ``elsewhere``: the models that other replicas count.
    """
    ok = [int(record.requests.ok.sum()) for record in rounds]
    tokens = np.concatenate([record.requests.tokens[record.requests.ok] for record in rounds])
    told = counted.requests(model, elsewhere)
    known = bool((tokens >= 0).all())
    rows: list[tuple[str, int | None, int | None, str, bool]] = [
        ("requests", sum(ok), told, f"Triton's statistics of {model}", True),
        ("output tokens", int(tokens.sum()) if known else None, counted.output_tokens, _TOKENS, known),
    ]
    if (posts := counted.requests("postprocessing", elsewhere)) is not None:
        chunks = sum(len(record.chunks) for record in rounds)
        rows.append(("answers, each of one event", chunks, posts, "statistics of postprocessing", False))
    keys = ("what", "client", "server", "source", "matters")
    return [dict(zip(keys, row, strict=True)) for row in rows]
