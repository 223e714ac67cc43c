"""The tables of a round: sums, firsts and lasts, whatever is known."""

from collections.abc import Sequence

from enginebench.measure.assembly import chunk_table, request_table
from enginebench.measure.records import RequestTable
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Chunk
from enginebench.runtimes.columns import ArrivalLog, ChunkLog


def table(chunks: Sequence[Chunk], asked: Sequence[int], arrivals: Sequence[Arrival] = ()) -> RequestTable:
    requests = [Request(10 * place, "x", (1, 2), length, True, Sampling()) for place, length in enumerate(asked)]
    stamps = {request.index: 5 for request in requests}
    return request_table(requests, stamps, stamps, {}, ArrivalLog(arrivals), ChunkLog.of(chunks))


def test_firsts_lasts_and_sums_are_per_request() -> None:
    chunks = [
        Chunk(10, 7, (1, 2)),
        Chunk(0, 8, (3,)),
        Chunk(10, 9, (4,)),
        Chunk(0, 10, (), "late"),
        Chunk(10, 11, (5,)),
    ]
    found = table(chunks, [1, 4, 3])
    assert found.index.tolist() == [0, 10, 20]
    assert (found.first_ns.tolist(), found.last_ns.tolist()) == ([8, 7, 0], [8, 11, 0])
    assert (found.tokens.tolist(), found.first_tokens.tolist()) == ([1, 4, 0], [1, 2, 0])
    assert found.outcome == ("error", "ok", "short")
    assert found.error == ("late", "", "")


def test_a_total_stands_for_chunks_that_are_not_counted() -> None:
    chunks = [Chunk(0, 7, (), counted=False), Chunk(0, 8, (), counted=False), Chunk(0, 9, (), total_tokens=6)]
    chunks += [Chunk(10, 9, (), counted=False)]
    found = table(chunks, [5, 5])
    assert found.tokens.tolist() == [6, -1]
    assert found.first_tokens.tolist() == [-1, -1]
    assert found.last_ns.tolist() == [8, 9]
    assert found.outcome == ("long", "ok")


def test_what_one_read_brought_is_one_first_arrival() -> None:
    found = table([Chunk(0, 7, (1,)), Chunk(0, 7, (2, 3)), Chunk(0, 9, (4,)), Chunk(10, 8, (5,))], [4, 1])
    assert found.first_tokens.tolist() == [3, 1]


def test_the_input_length_last_told_is_held_against_the_prompt() -> None:
    found = table([Chunk(0, 7, (1,), prompt_tokens=2), Chunk(10, 7, (1,), prompt_tokens=3)], [1, 1])
    assert found.reported_prompt_tokens.tolist() == [2, 3]
    assert found.outcome == ("ok", "wrong_input")


def test_the_first_error_counts_and_that_of_the_connection_most() -> None:
    chunks = [Chunk(0, 7, (), "first"), Chunk(0, 8, (), "second"), Chunk(10, 8, (), "inside")]
    found = table(chunks, [1, 1], [Arrival(10, 9, b"", True, "lost")])
    assert found.error == ("first", "lost")


def test_chunks_without_tokens_have_no_row_and_told_counts_no_ids() -> None:
    ids = chunk_table(ChunkLog.of([Chunk(0, 1, (4, 5), read_ns=3), Chunk(0, 2, (), "x"), Chunk(0, 3, (6,))]))
    assert (ids.tokens.tolist(), ids.token_ids.tolist(), ids.read_ns.tolist()) == ([2, 1], [4, 5, 6], [3, -1])
    told = chunk_table(ChunkLog.of([Chunk(0, 1, (), count=2), Chunk(0, 2, (), counted=False)]))
    assert (told.tokens.tolist(), len(told.token_ids)) == ([2, -1], 0)
    assert [len(each) for each in told.ids()] == [0, 0]


def test_a_round_without_requests_has_empty_tables() -> None:
    assert len(table([], [])) == 0
    assert len(chunk_table(ChunkLog())) == 0
