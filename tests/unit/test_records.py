"""Records survive the pipe, byte for byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.errors import WorkerError
from enginebench.measure.records import from_frames, to_frames
from tests.support.rounds import Row, assert_same_record, round_of

RECORD = round_of(
    Row([(10, 2), (20, 1)], reported=10),
    Row([], asked=3, outcome="error", error="服务器说：太长了"),
    round_index=3,
    warmup=True,
    clock_stepped=True,
)

rows = st.builds(
    Row,
    chunks=st.lists(st.tuples(st.floats(1, 1e6), st.integers(-1, 5).filter(bool)), max_size=5).map(sorted),
    asked=st.integers(1, 9),
    outcome=st.sampled_from(["ok", "short"]),
    error=st.text(),
)


@given(st.lists(rows, max_size=5))
def test_frames_are_a_round_trip(rows: list[Row]) -> None:
    record = round_of(*rows)
    header, blobs = to_frames(record)
    assert_same_record(record, from_frames(header, [bytes(blob) for blob in blobs]))


def test_texts_and_flags_survive() -> None:
    assert_same_record(RECORD, from_frames(*to_frames(RECORD)))


def test_ids_are_split_by_chunk() -> None:
    record = round_of(Row([(10, 2), (20, -1), (30, 3)]))
    assert [list(ids) for ids in record.chunks.ids()] == [[0, 1], [], [2, 3, 4]]
    assert round_of(Row([])).chunks.ids() == []


def test_a_record_knows_its_window_and_whether_its_stamps_hold() -> None:
    assert round_of(Row([(10, 1)]), ended=250).window_s == 0.25
    assert RECORD.valid
    assert not round_of(Row([(10, 1)]), clock_stepped=True, stamp_kind="kernel").valid
    assert RECORD.requests.ok.tolist() == [True, False]


@pytest.mark.parametrize("spoil", ["head", "requests", "chunks"])
def test_frames_of_another_version_are_refused(spoil: str) -> None:
    header, blobs = to_frames(RECORD)
    header[spoil] = {**header[spoil], "surprise": {"dtype": "<i4", "blob": 0}}
    with pytest.raises(WorkerError, match="same enginebench version"):
        from_frames(header, blobs)


def test_a_missing_buffer_is_refused() -> None:
    header, blobs = to_frames(RECORD)
    with pytest.raises(WorkerError, match="cannot be read"):
        from_frames(header, blobs[:-1])


def test_buffers_are_little_endian_wherever_they_come_from() -> None:
    header, blobs = to_frames(RECORD)
    spec = header["requests"]["intended_ns"]
    assert spec["dtype"] == "<i8"
    assert np.frombuffer(blobs[spec["blob"]], "<i8").tolist() == RECORD.requests.intended_ns.tolist()
