"""The logs give back what they were given, however much that was."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.runtimes import columns
from enginebench.runtimes.base import Arrival, Chunk
from enginebench.runtimes.columns import ArrivalLog, ChunkLog

STAMPS = st.integers(1, 2**62)
INDEXES = st.integers(0, 5)
ERRORS = st.none() | st.text(min_size=1, max_size=5)


def arrivals(
    payloads: st.SearchStrategy[bytes] | st.SearchStrategy[tuple[int, ...]],
) -> st.SearchStrategy[list[Arrival]]:
    return st.lists(st.builds(Arrival, INDEXES, STAMPS, payloads, st.booleans(), ERRORS, STAMPS), max_size=12)


IDS = st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple)
LOGS = arrivals(st.binary(max_size=6)) | arrivals(IDS)
CHUNKS = st.builds(
    Chunk,
    INDEXES,
    STAMPS,
    IDS,
    ERRORS,
    prompt_tokens=st.none() | st.integers(0, 9),
    total_tokens=st.none() | st.integers(0, 9),
    read_ns=STAMPS,
)


@given(LOGS)
def test_arrivals_come_back(given: list[Arrival]) -> None:
    log = ArrivalLog(given)
    assert len(log) == len(given)
    found = list(log)
    assert [each._replace(payload=()) for each in found] == [each._replace(payload=()) for each in given]
    assert [tuple(each.payload) for each in found] == [tuple(each.payload) for each in given]
    assert log[-2:] == found[-2:]
    assert log.last_stamp_ns == max((each.stamp_ns for each in given), default=None)
    assert log.errors == {row: each.error for row, each in enumerate(given) if each.error}


def test_arrivals_beyond_what_waits_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_FOLD", 3)
    given = [Arrival(at % 2, at, b"x" * at, at == 9, None, at + 1) for at in range(10)]
    log = ArrivalLog(given)
    assert list(log) == given
    assert log.tokens == 10


@given(arrivals(st.binary(max_size=6)))
def test_reads_of_a_request_are_one_piece_with_its_ends(given: list[Arrival]) -> None:
    log = ArrivalLog(given)
    seen = []
    for index, rows in log.by_request():
        mine = [each for each in given if each.request_index == index]
        body, ends, stamps, reads = log.reads(rows)
        assert body == b"".join(bytes(each.payload) for each in mine)
        assert [body[: int(end)] for end in ends][-1] == body
        assert (stamps.tolist(), reads.tolist()) == ([e.stamp_ns for e in mine], [e.read_ns for e in mine])
        seen.append(index)
    assert seen == sorted({each.request_index for each in given})


def test_what_is_forgotten_leaves_the_rest() -> None:
    given = [Arrival(at % 2, at, b"x" * at, at == 4, None, at + 1) for at in range(1, 5)]
    log = ArrivalLog(given)
    log.forget(1)
    assert list(log) == [each._replace(payload=b"") if each.request_index else each for each in given]
    assert log.tokens == 4


def test_ids_are_counted_for_progress() -> None:
    assert ArrivalLog([Arrival(0, 1, (4, 5)), Arrival(0, 2, (6,))]).tokens == 3


@given(st.lists(CHUNKS, max_size=8))
def test_chunks_come_back_and_can_be_put_in_order(given: list[Chunk]) -> None:
    log = ChunkLog.of(given)
    assert list(log) == given
    assert ChunkLog.of(log) is log
    log.sort()
    assert list(log) == sorted(given, key=lambda chunk: chunk.stamp_ns)


def test_unknown_and_told_counts_come_back() -> None:
    chunk = Chunk(3, 10, (), read_ns=11)
    given = [replace(chunk, counted=False), replace(chunk, count=4), chunk]
    log = ChunkLog.of(given)
    assert list(log) == given
    assert log.tokens.tolist() == [-1, 4, 0]
    with pytest.raises(IndexError):
        log[3]
