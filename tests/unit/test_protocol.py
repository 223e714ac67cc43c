"""Messages between harness and worker: whole, or one sentence."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.errors import BuildError, EnginebenchError, SessionError, WorkerError
from enginebench.measure.protocol import (
    error_body,
    read_message,
    requests_from_json,
    requests_to_json,
    to_error,
    write_message,
)
from enginebench.plan.requests import Request, Sampling

json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(st.dictionaries(st.text().filter(lambda key: key not in ("op", "blobs")), json_values), st.lists(st.binary()))
def test_messages_are_a_round_trip(body: dict[str, object], blobs: list[bytes]) -> None:
    pipe = io.BytesIO()
    write_message(pipe.write, "record", body, blobs)
    write_message(pipe.write, "done", {})
    pipe.seek(0)
    first, second, third = (read_message(pipe.read) for _ in range(3))
    assert first is not None
    assert (first.op, first.body, first.blobs) == ("record", body, blobs)
    assert second is not None
    assert second.op == "done"
    assert third is None


def written(op: str = "record") -> bytes:
    pipe = io.BytesIO()
    write_message(pipe.write, op, {"a": 1}, [b"12345"])
    return pipe.getvalue()


@given(st.integers(1, len(written()) - 1))
def test_half_a_message_is_an_error(length: int) -> None:
    with pytest.raises(WorkerError, match="ended in the middle"):
        read_message(io.BytesIO(written()[:length]).read)


@pytest.mark.parametrize(
    "noise", [b"Loading engine 1/2 ...\n" * 3, b"\x05\0\0\0hello", b"\x02\0\0\0{}", b"\x02\0\0\0[]"]
)
def test_noise_is_not_taken_for_a_message(noise: bytes) -> None:
    with pytest.raises(WorkerError, match="not the protocol"):
        read_message(io.BytesIO(noise).read)


@given(st.text(), st.lists(st.integers(0, 2**31 - 1)), st.floats(0, 2), st.integers(0, 99), st.integers(0, 2**63))
def test_requests_are_a_round_trip(text: str, ids: list[int], temperature: float, top_k: int, seed: int) -> None:
    request = Request(3, text, tuple(ids), 7, True, Sampling(temperature, top_k, seed))
    assert requests_from_json(requests_to_json([request])) == [request]


@pytest.mark.parametrize("error", [SessionError("a."), BuildError("b."), WorkerError("c.")])
def test_an_error_keeps_its_kind_and_sentence(error: EnginebenchError) -> None:
    same = to_error(error_body(error))
    assert type(same) is type(error)
    assert str(same) == str(error)


def test_a_foreign_error_becomes_a_broken_session() -> None:
    error = to_error(error_body(ZeroDivisionError("division by zero")))
    assert isinstance(error, SessionError)
    assert str(error) == "The runtime broke with ZeroDivisionError: division by zero."


def test_an_error_of_an_unknown_kind_is_a_worker_error() -> None:
    assert type(to_error({"kind": "NoveltyError", "message": "x"})) is WorkerError
    assert type(to_error({"kind": "EnginebenchError", "message": "x"})) is EnginebenchError
