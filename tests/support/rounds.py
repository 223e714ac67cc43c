"""Records of rounds, written down by hand in a few words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.measure.records import ChunkTable, RequestTable, RoundRecord, int_array, stamp_array
from enginebench.plan.load import Batch, load_to_json

MS = 1_000_000  # ns
START_NS = 5_000 * MS  # no stamp of CLOCK_MONOTONIC is 0


@dataclass(frozen=True)
class Row:
    """One request; times in ms after the start of its round. ``chunks``: (time, tokens), tokens -1 unknown."""

    chunks: Sequence[tuple[float, int]]
    intended: float = 0.0
    sent: float = 0.0
    asked: int | None = None  # output tokens; default: those that came
    prompt: int = 10
    reported: int = -1
    outcome: str = "ok"
    error: str = ""
    told: int = -1  # the total that the server gives, where chunks are not counted

    @property
    def tokens(self) -> int:
        counts = [tokens for _, tokens in self.chunks]
        return self.told if -1 in counts else sum(counts)


def round_of(
    *rows: Row, ended: float | None = None, start_ns: int = START_NS, streaming: bool = True, **head: Any
) -> RoundRecord:
    """A round with these requests; it ends with the last chunk, or ``ended`` ms after its start."""

    def at(time_ms: float) -> int:
        return start_ns + round(time_ms * MS)

    chunks = sorted((at(time), index, tokens) for index, row in enumerate(rows) for time, tokens in row.chunks)
    last = max((stamp for stamp, _, _ in chunks), default=start_ns)
    known = sum(max(tokens, 0) for _, _, tokens in chunks)
    facts: dict[str, Any] = {
        "round_index": 0,
        "warmup": False,
        "block": 0,
        "load": load_to_json(Batch(max(1, len(rows)))),
        "stamp_kind": "engine",
        "clock_stepped": False,
    }
    return RoundRecord(
        **(facts | head),
        streaming=streaming,
        started_ns=start_ns,
        ended_ns=last if ended is None else at(ended),
        requests=RequestTable(
            index=int_array(range(len(rows))),
            prompt_tokens=int_array([row.prompt for row in rows]),
            reported_prompt_tokens=int_array([row.reported for row in rows]),
            requested_tokens=int_array([row.tokens if row.asked is None else row.asked for row in rows]),
            intended_ns=stamp_array([at(row.intended) for row in rows]),
            sent_ns=stamp_array([at(row.sent) for row in rows]),
            first_ns=stamp_array([at(row.chunks[0][0]) if row.chunks else 0 for row in rows]),
            last_ns=stamp_array([at(row.chunks[-1][0]) if row.chunks else 0 for row in rows]),
            tokens=int_array([row.tokens for row in rows]),
            first_tokens=int_array([row.chunks[0][1] if row.chunks else 0 for row in rows]),
            outcome=tuple(row.outcome for row in rows),
            error=tuple(row.error for row in rows),
        ),
        chunks=ChunkTable(
            request=int_array([index for _, index, _ in chunks]),
            stamp_ns=stamp_array([stamp for stamp, _, _ in chunks]),
            read_ns=stamp_array([stamp + 1_000 for stamp, _, _ in chunks]),
            tokens=int_array([tokens for _, _, tokens in chunks]),
            token_ids=int_array(range(known)),
        ),
    )


def assert_same_record(one: RoundRecord, other: RoundRecord) -> None:
    """Every field, column and dtype is the same."""
    from enginebench.measure.records import columns, head

    assert head(one) == head(other)
    for mine, theirs in ((one.requests, other.requests), (one.chunks, other.chunks)):
        for name, values in columns(mine).items():
            found = columns(theirs)[name]
            assert list(found) == list(values), name
            assert getattr(found, "dtype", None) == getattr(values, "dtype", None), name
