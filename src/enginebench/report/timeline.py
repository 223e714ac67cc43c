"""Where single requests spent their time: waiting, up to the first token, decoding, stalled.

The slowest requests and a seeded sample of the others, of the cells of the run's reference load.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from enginebench.report.aggregates import SAMPLED, SLOWEST, CellAggregates, RequestRow
from enginebench.report.cells import CellView
from enginebench.report.detail import Detail
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.units import DASH, Scale, count, scale_for, times
from enginebench.report.view import Column, Table, Text

MAX_STALLS = 3
"""Of a request, the longest."""
WAITING, UNTIL_FIRST, UNTIL_LAST = "waiting in the client", "until the first token", "until the answer"
QUEUE, PREFILL = "waiting for a batch slot", "prefill"
DECODING, STALL = "decoding", "stalled"
ROLES = {WAITING: "muted", DECODING: "good", STALL: "bad"}
Part: TypeAlias = tuple[str, float | None]  # what, and seconds; None: not known of this request
LEAD = (
    f"The {SLOWEST} slowest requests of each path and a seeded sample of {SAMPLED} of all others, or all where there "
    "are fewer, in the order of release. Zero is the moment at which the load wanted a request to leave. The first "
    "part is the client's own delay, the next lasts until the first token, the last until the last token. Where the "
    "engine tells when it took a request up, its queue and the prefill are apart. A stall is a gap between arrivals "
    "of more than five medians."
)


def timeline_section(detail: Detail) -> Section | None:
    """A figure for each path at the reference load."""
    figures = tuple(_figure(number, cell, found) for number, (cell, found) in enumerate(detail.reference(), 1))
    return Section("timeline", "Request by request", LEAD, figures) if figures else None


def _figure(number: int, cell: CellView, found: CellAggregates) -> Figure:
    rows = _marked(found.rows)
    scale = scale_for("s", [max((row.last_s or 0.0 for row in rows), default=0.0)])
    title = f"{cell.path}, {cell.scenario}, {cell.output_words} tokens out, {cell.load.words}"
    return Figure(
        id=f"timeline-{number}",
        title=title,
        finding=_finding(found),
        plots=(_plot(cell, rows, scale),),
        table=_table(title, rows, scale),
    )


def _marked(rows: Sequence[RequestRow]) -> Sequence[RequestRow]:
    """All rows; where they are nothing but the slowest, none stands out."""
    return [replace(row, slow=False) for row in rows] if all(row.slow for row in rows) else rows


def _plot(cell: CellView, rows: Sequence[RequestRow], scale: Scale) -> Plot:
    apart = any(row.scheduled_s is not None for row in rows)
    parts = [list(_parts(row, streaming=cell.streaming, apart=apart)) for row in rows]
    marks = [_marks(place, parts, [_name(row) for row in rows], scale) for place in range(max(map(len, parts)))]
    across = Axis("since the release", scale.symbol)
    return Plot("Requests", across, Axis(""), tuple(mark for mark in marks if mark.x), stacked=True, horizontal=True)


def _parts(row: RequestRow, *, streaming: bool, apart: bool) -> Iterator[Part]:
    """What a request spent its time with, in order: every second part after the first token is a stall.

    ``apart``: the queue and prefill of some request of the figure are known, and have places in all of them.
    """
    sent = max(0.0, row.sent_s or 0.0)
    first = row.first_s if streaming and row.first_s is not None else row.last_s
    at = sent if first is None else first
    yield WAITING, sent
    yield from _until_first(row, sent, at, streaming=streaming, apart=apart)
    longest = sorted(row.stalls_s, key=lambda stall: stall[0] - stall[1])[:MAX_STALLS]
    for start, end in sorted(longest):
        yield DECODING, max(0.0, start - at)
        yield STALL, end - max(start, at)
        at = end
    if streaming and row.last_s is not None:
        yield DECODING, max(0.0, row.last_s - at)


def _until_first(row: RequestRow, sent: float, at: float, *, streaming: bool, apart: bool) -> Iterator[Part]:
    """From when a request was sent ``at`` its first token; of an answer in one piece, at its end."""
    whole = UNTIL_FIRST if streaming else UNTIL_LAST
    if not apart:
        yield whole, at - sent
        return
    taken = None if row.scheduled_s is None else min(max(row.scheduled_s, sent), at)
    yield QUEUE, None if taken is None else taken - sent
    if streaming:
        yield PREFILL, None if taken is None else at - taken
    yield whole, at - sent if taken is None else (None if streaming else at - taken)


def _marks(place: int, parts: Sequence[Sequence[Part]], names: Sequence[str], scale: Scale) -> Marks:
    """The bars at one place of the order; requests with fewer parts have none there."""
    at_place = [(name, *each[place]) for name, each in zip(names, parts, strict=True) if place < len(each)]
    (what,) = {what for _, what, _ in at_place}
    there = [(name, length) for name, _, length in at_place if length is not None]
    return Marks(
        name=what,
        kind="bars",
        x=tuple(length * scale.factor for _, length in there),
        y=tuple(name for name, _ in there),
        texts=tuple(f"{name}: {what}, {scale.text(length)}" for name, length in there),
        role=ROLES.get(what, ""),
    )


def _name(row: RequestRow) -> str:
    """One line that tells a request from any other of the cell."""
    ended = "" if row.outcome == "ok" else f", {row.outcome}"
    slow = "slow · " if row.slow else ""
    return f"{slow}round {row.round_index + 1}, no. {row.request}{ended}"


def _finding(found: CellAggregates) -> str:
    latency = found.quantiles.get("e2e_latency")
    ended = [row for row in found.rows if row.slow and row.last_s is not None]
    if latency is None or not ended or not latency.at(0.5):
        return f"{count(found.failed, 'request')} of {found.requests:,} failed."
    worst = max(ended, key=lambda row: row.last_s or 0.0)
    scale = scale_for("s", [latency.at(0.5)])
    ratio = (worst.last_s or 0.0) / latency.at(0.5)
    stalled = sum(bool(row.stalls_s) for row in found.rows)
    shown = f"{len(found.rows)} of {count(found.requests, 'request')} shown"
    slowest = f"The slowest took {scale.text(worst.last_s or 0.0)}, {times(ratio)} the median."
    if found.stall_s is None:
        return f"{slowest} {shown}."
    limit = scale_for("s", [found.stall_s]).text(found.stall_s)
    return f"{slowest} {shown}, of which {stalled} stalled for {limit} or more."


def _table(caption: str, rows: Sequence[RequestRow], scale: Scale) -> Table:
    columns = (
        Column("Request", numeric=False),
        Column("Released", "s"),
        Column("Prompt", "tokens"),
        Column("Answer", "tokens"),
        *(Column(title, scale.symbol) for title in ("Sent", "Taken up", "First token", "Last token")),
        Column("Stalls"),
        Column("Ended", numeric=False),
    )
    return Table(caption, columns, tuple(_table_row(row, scale) for row in rows))


def _table_row(row: RequestRow, scale: Scale) -> tuple[Text, ...]:
    tokens = Text(DASH, "the path does not tell") if row.tokens < 0 else Text(f"{row.tokens:,}")
    taken = Text(DASH, "the engine does not tell") if row.scheduled_s is None else Text(scale.number(row.scheduled_s))
    sent, first, last = (
        Text(DASH, "it never came") if one is None else Text(scale.number(one))
        for one in (row.sent_s, row.first_s, row.last_s)
    )
    return (
        Text(_name(row)),
        Text(f"{row.intended_s:,.3f}"),
        Text(f"{row.prompt_tokens:,}"),
        tokens,
        sent,
        taken,
        first,
        last,
        Text(f"{len(row.stalls_s):,}"),
        Text(row.outcome),
    )
