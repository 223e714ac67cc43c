"""Server-sent events: the same whatever the reads were, each stamped with the read that completed it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.runtimes.sse import DONE, Event, Read, _split_any, events, split

EVENTS = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12),
        st.sampled_from(["我是一个", "🐉 emoji", '{"text_output": "写"}', DONE, "", ":not a comment", "data: nested"]),
    ),
    max_size=8,
)
BETWEEN = st.sampled_from([b"", b": keep-alive\n", b":\n\n", b"event: token\n", b"id: 7\n", b"retry\n"])
LINE_END = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, int]]]:
    """A stream, and the data of each event with the number of bytes that complete it."""
    body, expected = b"", []
    for data in draw(EVENTS):
        newline = draw(LINE_END)
        body += draw(BETWEEN) + b"data: " + data.encode() + newline + newline
        expected.append((data, len(body)))
    return body + draw(st.sampled_from([b"", b"data: unfinished", b"data: unfinished\n"])), expected


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[Read], list[tuple[str, int]]]:
    """A stream cut anywhere, empty reads included."""
    body, expected = draw(streams())
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    pieces = [body[start:end] for start, end in pairwise([0, *cuts, len(body)])]
    return [Read(1_000 + 10 * number, data) for number, data in enumerate(pieces)], expected


@given(splits())
def test_any_split_gives_the_same_events_stamped_when_complete(
    case: tuple[list[Read], list[tuple[str, int]]],
) -> None:
    reads, expected = case
    found = list(events(reads))
    assert [event.data for event in found] == [data for data, _ in expected]
    for event, (_, complete_at) in zip(found, expected, strict=True):
        arrived = 0
        for read in reads:
            arrived += len(read.data)
            if arrived >= complete_at:
                break
        assert event.stamp_ns == read.stamp_ns


PLAIN = st.lists(
    st.sampled_from([b"data: a\n\n", b"data: \n\n", b"data: data: x\n\n", b"data: [DONE]\n\n", b"\n"]), max_size=6
)


@given(PLAIN.map(b"".join))
def test_the_short_way_and_the_long_way_agree(body: bytes) -> None:
    assert split(body) == _split_any(body)


def one_read(body: bytes) -> list[str]:
    return [event.data for event in events([Read(1, body)])]


def test_glued_events_share_the_stamp_of_their_read() -> None:
    assert list(events([Read(5, b"data: a\n\ndata: b\n\n")])) == [Event(5, "a"), Event(5, "b")]


def test_a_character_split_between_reads_is_whole() -> None:
    body = "data: 龙\n\n".encode()
    assert list(events([Read(1, body[:7]), Read(2, body[7:])])) == [Event(2, "龙")]


def test_an_event_is_stamped_by_its_end_not_by_its_text() -> None:
    assert list(events([Read(1, b"data: a\n"), Read(2, b"\ndata: b"), Read(3, b"\n\n")])) == [
        Event(2, "a"),
        Event(3, "b"),
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", []),
        (b": comment\n\n", []),
        (b"event: ping\n\n", []),
        (b"\n\n\ndata: a\n\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"data:no space\n\n", ["no space"]),
        (b"data:  two spaces\n\n", [" two spaces"]),
        (b"data\n\n", [""]),
        (b"dataset: x\n\n", []),
        (b"data: [DONE]\n\n", [DONE]),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", ["after a byte order mark"]),
        (b"data: \xff\n\n", ["\ufffd"]),
        (b"data: never finished", []),
        (b"data: never finished\n", []),
    ],
)
def test_the_grammar(body: bytes, expected: list[str]) -> None:
    assert one_read(body) == expected
