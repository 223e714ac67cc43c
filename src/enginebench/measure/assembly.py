"""The tables of a round, put together from what was released and what was decoded: pure, no loop over chunks.

Judges how each request ended; computes no metrics.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import UNKNOWN, ChunkTable, Ints, RequestTable, Stamps, int_array, stamp_array
from enginebench.plan.requests import Request
from enginebench.runtimes.columns import ArrivalLog, ChunkLog


def chunk_table(log: ChunkLog) -> ChunkTable:
    """The chunks that carried tokens. Ids are kept when every counted chunk has its own, else none are."""
    tokens = _column(log.tokens)
    rows = tokens != 0
    ids = _column(log.token_ids)
    return ChunkTable(
        request=_column(log.request_index)[rows],
        stamp_ns=_column(log.stamp_ns)[rows],
        read_ns=_column(log.read_ns)[rows],
        tokens=tokens[rows],
        token_ids=ids.copy() if len(ids) == np.maximum(tokens, 0).sum() else int_array([]),
    )


def request_table(
    requests: Sequence[Request],
    intended_ns: Mapping[int, int],
    sent_ns: Mapping[int, int],
    given_up: Mapping[int, tuple[str, str]],
    arrivals: ArrivalLog,
    log: ChunkLog,
) -> RequestTable:
    """A row per request. ``intended_ns``, ``sent_ns`` and ``given_up`` (outcome, why) are by request index."""
    indexes = [request.index for request in requests]
    answers = _Answers(indexes, log)
    errors = {log.request_index[row]: error for row, error in reversed(log.errors.items())}
    errors |= {arrivals[row].request_index: error for row, error in arrivals.errors.items()}
    outcomes = [
        given_up.get(request.index) or _outcome(request, errors.get(request.index), int(tokens), int(prompt_tokens))
        for request, tokens, prompt_tokens in zip(requests, answers.tokens, answers.prompt_tokens, strict=True)
    ]
    return RequestTable(
        index=int_array(indexes),
        prompt_tokens=int_array([len(request.prompt_ids) for request in requests]),
        reported_prompt_tokens=answers.prompt_tokens,
        requested_tokens=int_array([request.output_tokens for request in requests]),
        intended_ns=stamp_array([intended_ns.get(index, 0) for index in indexes]),
        sent_ns=stamp_array([sent_ns.get(index, 0) for index in indexes]),
        first_ns=answers.first_ns,
        last_ns=answers.last_ns,
        tokens=answers.tokens,
        first_tokens=answers.first_tokens,
        outcome=tuple(outcome for outcome, _ in outcomes),
        error=tuple(why for _, why in outcomes),
    )


class _Answers:
    """What came for each request, added up; every column has shape (requests,)."""

    def __init__(self, indexes: Sequence[int], log: ChunkLog) -> None:
        count = len(indexes)
        place = np.zeros(max(indexes, default=0) + 1, dtype=np.intp)
        place[indexes] = np.arange(count)
        every = place[_column(log.request_index)]  # the row of the request, for each chunk
        tokens, stamps = _column(log.tokens), _column(log.stamp_ns)
        carrying = tokens != 0
        rows, tokens, stamps = every[carrying], tokens[carrying], stamps[carrying]
        self.first_ns: Stamps = _last(rows[::-1], stamps[::-1], count, 0)
        self.last_ns: Stamps = _last(rows, stamps, count, 0)
        first = stamps == self.first_ns[rows]  # several chunks where one read brought them
        self.first_tokens: Ints = _sum(rows[first], tokens[first], count)
        self.prompt_tokens: Ints = _last_known(every, _column(log.prompt_tokens), count)
        told = _last_known(every, _column(log.total_tokens), count)
        added = _sum(rows, tokens, count)
        self.tokens: Ints = np.where(added == UNKNOWN, told, added)


def _column(values: Any) -> NDArray[Any]:
    return np.frombuffer(values, dtype=values.typecode) if len(values) else np.array([], dtype=values.typecode)


def _last(rows: NDArray[np.intp], values: NDArray[Any], count: int, empty: int) -> NDArray[Any]:
    """For each of ``count`` rows the last of its values; ``empty`` where there is none."""
    found = np.full(count, empty, dtype=values.dtype)
    found[rows] = values  # of several values for one row, numpy keeps the last
    return found


def _sum(rows: NDArray[np.intp], tokens: Ints, count: int) -> Ints:
    """For each of ``count`` rows the sum of its tokens; UNKNOWN where one of them is."""
    uncounted = np.bincount(rows, weights=tokens == UNKNOWN, minlength=count) > 0
    added = np.bincount(rows, weights=tokens, minlength=count).astype(np.int32)
    return np.where(uncounted, np.int32(UNKNOWN), added)


def _last_known(rows: NDArray[np.intp], values: NDArray[Any], count: int) -> NDArray[Any]:
    known = values != UNKNOWN
    return _last(rows[known], values[known], count, UNKNOWN)


def _outcome(request: Request, error: str | None, tokens: int, prompt_tokens: int) -> tuple[str, str]:
    """How a request ended, and why when it is known; the gravest first."""
    if error:
        return "error", error
    if prompt_tokens not in (UNKNOWN, len(request.prompt_ids)):
        return "wrong_input", ""
    if tokens in (UNKNOWN, request.output_tokens):
        return "ok", ""
    return ("short" if tokens < request.output_tokens else "long"), ""
