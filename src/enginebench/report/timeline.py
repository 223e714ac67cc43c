"""Where single requests spent their time: waiting, up to the first token, decoding, stalled.

The slowest requests and a seeded sample of the others, of the cells of the run's reference load.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from enginebench.report.aggregates import CellAggregates, RequestRow
from enginebench.report.cells import CellView
from enginebench.report.detail import Detail
from enginebench.report.figures import Axis, Figure, Marks, Plot, Section
from enginebench.report.units import DASH, Scale, count, scale_for, times
from enginebench.report.view import Column, Table, Text

SLOWEST = 8
SAMPLED = 12
LEAD = (
    f"The {SLOWEST} slowest requests and a seeded sample of {SAMPLED} others of each path, in the order of release. "
    "Zero is the moment at which the load wanted a request to leave. The first part is the client's own delay, the "
    "next lasts until the first token (queue and prefill), the last until the last token."
)


def timeline_section(detail: Detail) -> Section | None:
    """A figure for each path at the reference load."""
    figures = tuple(_figure(number, cell, found) for number, (cell, found) in enumerate(detail.reference(), 1))
    return Section("timeline", "Request by request", LEAD, figures) if figures else None


def _figure(number: int, cell: CellView, found: CellAggregates) -> Figure:
    rows = _chosen(found.rows)
    scale = scale_for("s", [max((row.last_s or 0.0 for row in rows), default=0.0)])
    title = f"{cell.path}, {cell.scenario}, {cell.output_words} tokens out, {cell.load.words}"
    return Figure(
        id=f"timeline-{number}",
        title=title,
        finding=_finding(cell, found),
        plots=(_plot(cell, rows, scale),),
        table=_table(title, rows, scale),
    )


def _chosen(rows: Sequence[RequestRow]) -> Sequence[RequestRow]:
    """Some of the slowest, and every n-th of the sample, by release."""
    slow = sorted((row for row in rows if row.slow), key=lambda row: -(row.last_s or 0.0))[:SLOWEST]
    others = [row for row in rows if not row.slow]
    if not others:  # nothing but the slowest: no request stands out
        return [replace(row, slow=False) for row in rows]
    step = max(1, -(-len(others) // SAMPLED))
    return sorted([*slow, *others[::step]], key=lambda row: row.intended_s)


def _plot(cell: CellView, rows: Sequence[RequestRow], scale: Scale) -> Plot:
    names = [_name(row) for row in rows]
    parts = [_parts(row) for row in rows]
    words = (
        ("waiting in the client", "until the first token", "decoding")
        if cell.streaming
        else (
            "waiting in the client",
            "until the answer",
            "",
        )
    )
    marks = [
        Marks(
            name=words[place],
            kind="bars",
            x=tuple(part[place] * scale.factor for part in parts),
            y=tuple(names),
            texts=tuple(
                f"{name}: {words[place]}, {scale.text(part[place])}" for name, part in zip(names, parts, strict=True)
            ),
            role="muted" if place == 0 else "",
        )
        for place in range(3 if cell.streaming else 2)
    ]
    marks += _stalls(rows, scale)
    return Plot(
        "Requests", Axis("since the release", scale.symbol), Axis(""), tuple(marks), stacked=True, horizontal=True
    )


def _parts(row: RequestRow) -> tuple[float, float, float]:
    """Seconds in the client, until the first token, and after it; zero where a request never got there."""
    sent = row.sent_s or 0.0
    first = row.first_s if row.first_s is not None else row.last_s
    last = row.last_s if row.last_s is not None else first
    return max(0.0, sent), max(0.0, (first or sent) - sent), max(0.0, (last or 0.0) - (first or 0.0))


def _stalls(rows: Sequence[RequestRow], scale: Scale) -> Iterator[Marks]:
    found = [(_name(row), stall) for row in rows for stall in row.stalls_s]
    if found:
        yield Marks(
            name="stall",
            kind="dots",
            x=tuple((start + end) / 2 * scale.factor for _, (start, end) in found),
            y=tuple(name for name, _ in found),
            texts=tuple(f"{name}: nothing came for {scale.text(end - start)}" for name, (start, end) in found),
            role="bad",
        )


def _name(row: RequestRow) -> str:
    """One line that tells a request from any other of the cell."""
    ended = "" if row.outcome == "ok" else f", {row.outcome}"
    slow = "slow · " if row.slow else ""
    return f"{slow}round {row.round_index + 1}, no. {row.request}{ended}"


def _finding(cell: CellView, found: CellAggregates) -> str:
    latency = found.quantiles.get("e2e_latency")
    ended = [row for row in found.rows if row.slow and row.last_s is not None]
    if latency is None or not ended or not latency.at(0.5):
        return f"{count(found.failed, 'request')} of {found.requests:,} failed."
    worst = max(ended, key=lambda row: row.last_s or 0.0)
    scale = scale_for("s", [latency.at(0.5)])
    ratio = (worst.last_s or 0.0) / latency.at(0.5)
    stalled = sum(bool(row.stalls_s) for row in found.rows)
    limit = "" if found.stall_s is None else f" (nothing for {scale_for('s', [found.stall_s]).text(found.stall_s)})"
    stalls = f"{stalled} of the {len(found.rows)} looked at stalled{limit}" if cell.streaming else ""
    slowest = f"The slowest took {scale.text(worst.last_s or 0.0)}, {times(ratio)} the median"
    return f"{slowest}; {stalls}." if stalls else f"{slowest}."


def _table(caption: str, rows: Sequence[RequestRow], scale: Scale) -> Table:
    columns = (
        Column("Request", numeric=False),
        Column("Released", "s"),
        Column("Prompt", "tokens"),
        Column("Answer", "tokens"),
        *(Column(title, scale.symbol) for title in ("Sent", "First token", "Last token")),
        Column("Stalls"),
        Column("Ended", numeric=False),
    )
    return Table(caption, columns, tuple(_table_row(row, scale) for row in rows))


def _table_row(row: RequestRow, scale: Scale) -> tuple[Text, ...]:
    tokens = Text(DASH, "the path does not tell") if row.tokens < 0 else Text(f"{row.tokens:,}")
    moments = (row.sent_s, row.first_s, row.last_s)
    return (
        Text(_name(row)),
        Text(f"{row.intended_s:,.3f}"),
        Text(f"{row.prompt_tokens:,}"),
        tokens,
        *(Text(DASH, "it never came") if one is None else Text(scale.number(one)) for one in moments),
        Text(f"{len(row.stalls_s):,}"),
        Text(row.outcome),
    )
