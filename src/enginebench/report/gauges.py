"""The gauges of servers over time, in the measured rounds of a cell: batch and KV cache.

A gauge that a server does not offer is not drawn, and never as zero.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.report.cells import CellView, Json
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule
from enginebench.report.units import count
from enginebench.report.view import Column, Table, Text
from enginebench.server.metrics_page import INSTANCE, KV_MAX, KV_USED, PAUSED, SCHEDULED, WAITING, Gauge
from enginebench.store import Run
from enginebench.store_tables import read_columns

IN_BATCH = (
    ("scheduled", SCHEDULED, "in the batch"),
    ("waiting", WAITING, "waiting"),
    ("paused", PAUSED, "paused"),
)
OF_EACH = (
    ("In the batch", "requests", SCHEDULED),
    ("Waiting", "requests", WAITING),
    ("Paused", "requests", PAUSED),
    ("KV cache", "blocks", KV_USED),
)
"""What is drawn of several servers: title, unit and gauge."""
MOST_LINES = 8
"""Of several servers that are drawn."""

Steps = tuple[tuple[float, ...], tuple[float, ...]]
Pages = Mapping[str, Any]
"""The columns of telemetry/server.parquet, with the labels as mappings."""


def read_pages(directory: Path) -> Pages:
    """What was read of the servers' pages in a run; empty: nothing. Raises RunError for a file that cannot be read."""
    pages = read_columns(directory / "telemetry" / "server.parquet")
    if not pages:
        return pages
    known = {text: json.loads(text) for text in set(pages["labels"])}
    return {**pages, "labels": [known[text] for text in pages["labels"]]}


def gauge_figure(number: int, cell: CellView, pages: Pages, run: Json, directory: Path | None) -> Figure | None:
    """What the gauges of a cell's servers showed in its measured rounds; None where nothing is known."""
    drawn = (_plots_of_each if len(cell.servers) > 1 else _plots)(cell, pages, run, directory)
    if drawn is None:
        return None
    finding, plots = drawn
    title = f"{cell.path}, {cell.scenario}, {cell.output_words} tokens out, {cell.load.words}"
    table = _gauge_table(title, cell.servers)
    return Figure(id=f"server-{number}", title=title, finding=finding, plots=plots, table=table, columns=False)


def _plots(cell: CellView, pages: Pages, run: Json, directory: Path | None) -> tuple[str, tuple[Plot, ...]] | None:
    """Of one server: what they show, and the plots; None: nothing is known."""
    server = cell.record["server"]
    span = (server["started_ns"], server["ended_ns"])
    batch = {name: _steps(pages, gauge, *span) for name, gauge, _ in IN_BATCH}
    used, most = (_steps(pages, gauge, *span) for gauge in (KV_USED, KV_MAX))
    if not any(steps[0] for steps in batch.values()):
        return None
    plots = [_batch_plot(batch, _client_steps(cell, run, directory, span[0]))]
    if used[0]:
        plots.append(_kv_plot(used, most))
    return _finding(batch["scheduled"], used, most), tuple(plots)


def _plots_of_each(cell: CellView, pages: Pages, *_: object) -> tuple[str, tuple[Plot, ...]] | None:
    """The same of several servers, a line for each. Not added up: their pages are not read at the same moment."""
    server, urls = cell.record["server"], [part["server"] for part in cell.servers]
    plots = []
    for title, unit, gauge in OF_EACH:
        steps = {url: _steps(pages, gauge, server["started_ns"], server["ended_ns"], url) for url in urls}
        marks = tuple(Marks(url, "steps", *each) for url, each in steps.items() if each[0])
        if any(any(each[1]) for each in steps.values()):
            plots.append(Plot(title, Axis("time", "s", from_zero=False), Axis(unit), marks[:MOST_LINES]))
    if not plots:
        return None
    drawn = f" The first {MOST_LINES} of {len(urls)} servers are drawn." if len(urls) > MOST_LINES else ""
    return f"{_finding_of_each(cell.servers)}{drawn}", tuple(plots)


def _finding_of_each(parts: Sequence[Json]) -> str:
    def most(part: Json, name: str) -> float:
        return float(((part["gauges"] or {"values": {}})["values"].get(name) or {"max": 0.0})["max"])

    fullest = max(parts, key=lambda part: most(part, "scheduled"))
    batch, blocks, limit = (most(fullest, name) for name in ("scheduled", "kv_used", "kv_max"))
    sentence = f"Of {len(parts)} servers, {fullest['server']} had the largest batch, of up to {batch:,.0f} requests"
    return f"{sentence}{_held(', and its KV cache held', blocks, limit)}"


def _batch_plot(batch: Mapping[str, Steps], client: Steps) -> Plot:
    marks = [
        Marks(words, "steps", *batch[name], role="bad" if name == "paused" else "warn" if name == "waiting" else "")
        for name, _, words in IN_BATCH
        if any(batch[name][1]) or (name == "scheduled" and batch[name][0])
    ]
    if client[0]:
        marks.append(Marks("in flight, by the client", "steps", *client, role="muted", dashed=True))
    return Plot("Requests in the engine", Axis("time", "s", from_zero=False), Axis("requests"), tuple(marks))


def _kv_plot(used: Steps, most: Steps) -> Plot:
    rules = (Rule("y", max(most[1]), f"all {max(most[1]):,.0f} blocks"),) if most[1] else ()
    marks = (Marks("blocks in use", "steps", *used),)
    return Plot("KV cache", Axis("time", "s", from_zero=False), Axis("blocks"), marks, rules)


def _steps(pages: Pages, gauge: Gauge, start_ns: int, end_ns: int, server: str | None = None) -> Steps:
    """A gauge from ``start_ns`` to ``end_ns``: seconds and values; empty: not offered, or never read.

    ``server``: of this one among several.
    """
    if not pages:
        return (), ()
    columns = (pages[name] for name in ("stamp_ns", "family", "labels", "value"))
    chosen = [
        (int(stamp), float(value))
        for stamp, family, labels, value in zip(*columns, strict=True)
        if (family, labels.get(gauge.label)) == (gauge.family, gauge.kind)
        and stamp <= end_ns
        and server in (None, labels.get(INSTANCE))
    ]
    before = [value for stamp, value in chosen if stamp <= start_ns]
    inside = [((stamp - start_ns) / 1e9, value) for stamp, value in chosen if stamp > start_ns]
    points = [*([(0.0, before[-1])] if before else []), *inside]
    if not points:
        return (), ()
    points.append(((end_ns - start_ns) / 1e9, points[-1][1]))
    times, values = zip(*points, strict=True)
    return times, values


def _client_steps(cell: CellView, run: Json, directory: Path | None, start_ns: int) -> Steps:
    """Requests between their send and their last token, by the client's stamps."""
    if directory is None:
        return (), ()
    changes: dict[int, int] = {}
    for record in Run(directory, run).requests(cell.id):
        if record.warmup:
            continue
        requests = record.requests
        for stamps, step in ((requests.sent_ns, 1), (requests.last_ns, -1)):
            for stamp in stamps[stamps >= start_ns].tolist():
                changes[stamp] = changes.get(stamp, 0) + step
    stamps_ns = sorted(changes)
    level = np.cumsum([changes[stamp] for stamp in stamps_ns])
    return tuple((stamp - start_ns) / 1e9 for stamp in stamps_ns), tuple(level.astype(float).tolist())


def _finding(scheduled: Steps, used: Steps, most: Steps) -> str:
    batch, blocks, limit = (max(values, default=0.0) for _, values in (scheduled, used, most))
    sentence = f"The batch held up to {batch:,.0f} requests" if batch else "No request was seen in the batch"
    return f"{sentence}{_held(', and the KV cache', blocks, limit)}"


def _held(what: str, blocks: float, limit: float) -> str:
    """How a finding ends; ``limit`` 0: the KV cache is not known."""
    held = f"{what} up to {blocks:,.0f} of {limit:,.0f} blocks ({blocks / limit:.0%})" if limit else ""
    return f"{held}; what happens between two readings is not seen."


def _gauge_table(caption: str, servers: Sequence[Json]) -> Table:
    """A row a gauge; of several servers, a row for each gauge of each."""
    several = len(servers) > 1
    known = [(part["server"], gauges) for part in servers if (gauges := part.get("gauges"))]
    rows = tuple(
        (
            Text(name.replace("_", " ").replace("kv", "KV blocks")),
            *([Text(url)] if several else []),
            Text(f"{seen['min']:,.0f}"),
            Text(f"{seen['max']:,.0f}"),
        )
        for url, gauges in known
        for name, seen in gauges["values"].items()
    )
    who = [Column("Server", numeric=False)] if several else []
    columns = (Column("Gauge", numeric=False), *who, Column("least"), Column("most"))
    pages = count(sum(gauges.get("pages", 0) for _, gauges in known), "reading")
    return Table(f"{caption}: gauges in the measured rounds, {pages}", columns, rows)
