"""Answers out of what arrived: raw bytes become chunks, after the round. Pure; the same for every HTTP path.

What the JSON objects of an answer mean is the path's (``triton_messages``, ``openai_messages``): it makes a piece of
each. How tokens are counted: by ids; else by what the server counts; else not at all. Text that does not identify its
ids is never tokenised again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from enginebench.builds.tokenizer import Tokenizer
from enginebench.plan.requests import Request
from enginebench.runtimes import sse
from enginebench.runtimes.base import UNKNOWN, Arrival
from enginebench.runtimes.columns import ArrivalLog, ChunkLog

JSON = "application/json"
EVENT_STREAM = "text/event-stream"

EXCERPT = 300
"""So many characters of an answer that was not understood are repeated."""

Stamps: TypeAlias = NDArray[np.int64]

_DONE = sse.DONE.encode()
_BLOCK = 4096  # objects parsed at once: quick, and small in memory


class Piece(NamedTuple):
    """What one JSON object of an answer says; a tuple, because there is one for each chunk. -1 is unknown."""

    text: str = ""
    token_ids: Sequence[int] = ()
    error: str | None = None
    prompt_tokens: int = UNKNOWN
    tokens: int = UNKNOWN  # in this piece, as the server counts
    total_tokens: int = UNKNOWN  # in the answer so far, as the server counts


@dataclass(frozen=True, slots=True)
class Reader:
    """How the answers of a path are read."""

    who: str  # for messages, e.g. "Model ensemble"
    piece: Callable[[Mapping[str, Any], Request], Piece]
    gives_ids: bool
    may_accumulate: bool  # events may carry the whole text so far: to be found out


class _Answer(NamedTuple):
    request: Request
    pieces: list[Piece]
    stamps: list[int]
    reads: list[int]


def decode(
    arrivals: Sequence[Arrival], requests: Mapping[int, Request], reader: Reader, tokenizer: Tokenizer | None
) -> ChunkLog:
    """Turn a round's arrivals into chunks, in the order of their stamps. An ``ArrivalLog`` loses its bytes on the way.

    ``tokenizer`` turns text into ids: None unless text identifies ids.
    """
    kept = arrivals if isinstance(arrivals, ArrivalLog) else ArrivalLog(arrivals)
    log = ChunkLog()
    whole_so_far = (
        tokenizer is not None and reader.may_accumulate and _accumulates(_answers(kept, requests, reader), tokenizer)
    )
    for answer in _answers(kept, requests, reader, forget=True):
        if not reader.gives_ids and tokenizer is not None:
            answer = _identified(answer, whole_so_far, tokenizer)  # noqa: PLW2901
        _keep(answer, log)
    for row, error in kept.errors.items():
        failed = kept[row]
        log.add(failed.request_index, failed.stamp_ns, failed.read_ns, 0, error=error)
    log.sort()
    return log


def explain(model: str, status: int, content_type: str, body: bytes) -> str:
    """Say in one sentence why a response was not what it should be."""
    if status == 200:
        return f"Model {model} answered with content type {content_type!r}: {excerpt(body)}."
    data = sse.split(body)[0] if content_type.startswith(EVENT_STREAM) else ()
    text = data[0].decode("utf-8", "replace") if data else excerpt(body)
    return f"Model {model} refused the request (HTTP {status}): {error_of(text).rstrip('. ')}."


def error_of(text: str) -> str:
    """The message in a JSON error object, or the text itself, on one line."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    return " ".join((error_in(answer) or _detail(answer) or text).split())


def _detail(answer: Any) -> str | None:
    """The message in FastAPI's form, which Triton's OpenAI frontend and others have; None: there is none."""
    detail = answer.get("detail") if isinstance(answer, dict) else None
    if not isinstance(detail, list):
        return None if detail is None else str(detail)
    found = [fault for fault in detail if isinstance(fault, dict)]
    return "; ".join(f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg')}" for fault in found)


def error_in(answer: Any) -> str | None:
    """The message of an object that tells of an error, in Triton's, OpenAI's or trtllm-serve's form; None: of none."""
    if not isinstance(answer, dict):
        return None
    error = answer if answer.get("object") == "error" else answer.get("error")
    if isinstance(error, dict):
        error = error.get("message", error)
    return None if error is None else str(error)


def excerpt(body: bytes) -> str:
    """The beginning of a body, to be repeated in a message."""
    return body.decode("utf-8", "replace").strip()[:EXCERPT] or "an empty body"


def _answers(
    kept: ArrivalLog, requests: Mapping[int, Request], reader: Reader, *, forget: bool = False
) -> Iterator[_Answer]:
    """Each answer; with ``forget``, its bytes are freed first: parsed, they take as much room again."""
    for index, rows in kept.by_request():
        body, row_ends, stamps, reads = kept.reads(rows)
        if forget:
            kept.forget(index)
        yield _answer(body, (row_ends, stamps, reads), requests[index], reader)


def _answer(body: bytes, rows: tuple[Stamps, Stamps, Stamps], request: Request, reader: Reader) -> _Answer:
    """``rows``: of each read, where its bytes end in ``body``, its stamp, and when it was read."""
    row_ends, stamps, reads = rows
    data, ends = sse.split(body) if request.streaming else ([body], [len(body)])
    if b"" in data or _DONE in data:
        told = [(value, end) for value, end in zip(data, ends, strict=True) if value not in (b"", _DONE)]
        data, ends = [value for value, _ in told], [end for _, end in told]
    pieces = [_piece(each, request, reader) for each in _objects(data)]
    places = row_ends.searchsorted(np.array(ends, dtype=np.int64))  # of the read that completed each
    return _Answer(request, pieces, stamps[places].tolist(), reads[places].tolist())


def _objects(data: Sequence[bytes]) -> Iterator[Any]:
    """Parse each of ``data``; what is not JSON is given back as it is, in bytes."""
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        try:
            found = json.loads(b"[" + b",".join(block) + b"]")  # one call for many
        except ValueError:
            found = ()
        yield from found if len(found) == len(block) else map(_object, block)


def _object(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except ValueError:
        return data


def _piece(answer: Any, request: Request, reader: Reader) -> Piece:
    if isinstance(answer, bytes):
        return Piece(error=f"{reader.who} sent what is not JSON: {excerpt(answer)}")
    error = error_in(answer)
    if error is not None or not isinstance(answer, dict):
        return Piece(error=f"{reader.who} failed: {error or json.dumps(answer, ensure_ascii=False)[:EXCERPT]}")
    return reader.piece(answer, request)


def _keep(answer: _Answer, log: ChunkLog) -> None:
    """Append the chunks of an answer; one without a token makes none unless it has an error or a number."""
    index = answer.request.index
    totals = _totals(answer)
    before = 0
    for piece, total, stamp_ns, read_ns in zip(answer.pieces, totals, answer.stamps, answer.reads, strict=True):
        text, ids, error, prompt_tokens, _, _ = piece
        tokens = len(ids)
        if not ids and UNKNOWN not in (total, before):
            tokens = max(0, total - before)
        elif not ids and text:
            tokens = UNKNOWN
        if total != UNKNOWN or tokens:
            before = total
        if tokens or error or total != UNKNOWN or prompt_tokens != UNKNOWN:
            log.add(index, stamp_ns, read_ns, tokens, ids, prompt_tokens, total, error)


def _totals(answer: _Answer) -> list[int]:
    """How many tokens had come with each piece, as the server counts; -1 where it does not tell."""
    counts = [piece.tokens for piece in answer.pieces]
    if not counts or UNKNOWN in counts:
        return [piece.total_tokens for piece in answer.pieces]
    asked = answer.request.output_tokens
    rising = all(earlier <= later for earlier, later in pairwise(counts))
    if rising and abs(asked - counts[-1]) < abs(asked - sum(counts)):
        return counts  # they were totals all along
    return list(accumulate(counts))


def _accumulates(answers: Iterator[_Answer], tokenizer: Tokenizer) -> bool:
    """Whether events carry the whole text so far, not what is new.

    Then in every answer each event begins with the one before. A stream that says the same again and again does that
    too: of the two readings, the one that comes nearer to the number of tokens asked for is right.
    """
    if_whole, if_deltas = 0, 0
    for answer in answers:
        texts = [piece.text for piece in answer.pieces if piece.text]
        if not all(later.startswith(earlier) for earlier, later in pairwise(texts)):
            return False
        asked = answer.request.output_tokens
        if_whole += abs(asked - len(tokenizer.encode(texts[-1]))) if texts else 0
        if_deltas += abs(asked - len(tokenizer.encode("".join(texts)))) if texts else 0
    return if_whole < if_deltas


def _identified(answer: _Answer, whole_so_far: bool, tokenizer: Tokenizer) -> _Answer:
    """Give each piece the ids that its text stands for."""
    texts = _deltas(answer.pieces, whole_so_far)
    ids = [tokenizer.encode(text) for text in texts]
    pieces = [
        piece._replace(token_ids=each, tokens=UNKNOWN, total_tokens=UNKNOWN)  # ids are counted, and nothing beside
        for piece, each in zip(answer.pieces, ids, strict=True)
    ]
    if tuple(chain.from_iterable(ids)) != tokenizer.encode("".join(texts)):
        split = (
            "The stream splits its text inside a token, so that its ids are not known: measure the core path instead."
        )
        pieces[-1] = pieces[-1]._replace(error=pieces[-1].error or split)
    return answer._replace(pieces=pieces)


def _deltas(pieces: Sequence[Piece], whole_so_far: bool) -> list[str]:
    if not whole_so_far:
        return [piece.text for piece in pieces]
    deltas, known = [], ""
    for piece in pieces:
        deltas.append(piece.text[len(known) :])
        known = piece.text or known
    return deltas
