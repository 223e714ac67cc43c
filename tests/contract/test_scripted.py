"""The scripted runtime meets the contract, and does what its script says."""

from collections.abc import Iterator

import pytest

from enginebench.errors import SessionError
from enginebench.runtimes.base import Session
from enginebench.runtimes.open import open_session
from tests.contract.suite import MakeRequest, RuntimeContract, collect, requests_with

FAST = {"first_s": 0.002, "gap_s": 0.001}


@pytest.fixture
def session() -> Iterator[Session]:
    opened = open_session("scripted", FAST)
    yield opened
    opened.close()


make = requests_with(lambda prompt: tuple(map(ord, prompt)))


@pytest.fixture
def make_request() -> MakeRequest:
    return make


class TestScripted(RuntimeContract):
    """Every test of the suite."""


def test_stamps_are_those_of_the_script() -> None:
    session = open_session("scripted", {"first_s": 0.004, "gap_s": 0.001, "chunk_tokens": 3})
    (sent_ns,) = session.submit([make(0)])
    arrivals = collect(session, 1)
    assert [(each.stamp_ns - sent_ns) / 1e6 for each in arrivals] == [4, 5, 6]
    assert [len(each.payload) for each in arrivals] == [3, 3, 2]


def test_without_streaming_all_arrives_when_the_last_token_would() -> None:
    session = open_session("scripted", FAST)
    (sent_ns,) = session.submit([make(0, streaming=False)])
    (arrival,) = collect(session, 1)
    assert (arrival.stamp_ns - sent_ns) / 1e6 == 2 + 7


def test_a_break_is_a_session_error() -> None:
    session = open_session("scripted", FAST | {"faults": {"0": "break"}})
    session.submit([make(0)])
    with pytest.raises(SessionError, match="breaks"):
        session.poll(1)


@pytest.mark.parametrize("options", [{"gap": 1}, {"faults": {"0": "hiccup"}}])
def test_an_option_that_is_not_understood_is_named(options: dict[str, object]) -> None:
    with pytest.raises(SessionError, match=r"gap|hiccup"):
        open_session("scripted", options)  # type: ignore[arg-type]
