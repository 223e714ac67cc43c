"""What the server itself says: batch and KV cache over time, its counts against the client's, what it was checked for.

A family of metrics that a server does not offer is named as such; it is never drawn as zero.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.report.cells import CellView, Json, cells_of
from enginebench.report.compare import reference_load
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.summary import is_reference
from enginebench.report.units import DASH, count
from enginebench.report.view import Column, Table, Text
from enginebench.server.metrics_page import IN_FLIGHT, KV_BLOCKS, REQUESTS
from enginebench.store import Run
from enginebench.store_tables import read_columns

LEAD = (
    "The server's metrics page, read about ten times a second while requests were under way, and Triton's statistics "
    "before and after the measured rounds. Zero on the time axis is the start of the first measured round."
)
IN_BATCH = (
    ("scheduled", REQUESTS, "scheduled", "in the batch"),
    ("waiting", REQUESTS, "waiting", "waiting"),
    ("paused", IN_FLIGHT, "paused_requests", "paused"),
)
STATUS_WORDS = {"verified": "yes", "failed": "NO", "unverified": "unverified", "not applicable": "not asked"}
CHECK_TITLES = {
    "canary": "Canary",
    "streaming": "Streams",
    "order": "In order",
    "output_length": "Exact length",
    "prompt_tokens": "Prompt length",
    "prefix_cache": "No prefix reused",
}

Steps = tuple[tuple[float, ...], tuple[float, ...]]


def server_section(run: Json, directory: Path | None) -> Section | None:
    """The server's numbers; None where no path led to a Triton server."""
    cells = [cell for cell in cells_of(run) if cell.measured and cell.record.get("server")]
    checked = [session for session in run["sessions"] if session.get("preflight")]
    if not cells and not checked:
        return None
    shown = [cell for cell in reference_load(cells_of(run)) if cell.record.get("server")]
    pages = read_columns(directory / "telemetry" / "server.parquet") if directory else {}
    figures = [found for number, cell in enumerate(shown, 1) if (found := _figure(number, cell, pages, run, directory))]
    tables = [_checks(checked), _counts(cells), _statistics(shown)]
    return Section(
        "server",
        "What the server says",
        LEAD,
        tuple(figures),
        tuple(table for table in tables if table.rows),
        tuple(_notes(run, cells)),
    )


def _figure(number: int, cell: CellView, pages: Mapping[str, Any], run: Json, directory: Path | None) -> Figure | None:
    server = cell.record["server"]
    start_ns, end_ns = server["started_ns"], server["ended_ns"]
    batch = {name: _steps(pages, family, kind, start_ns, end_ns) for name, family, kind, _ in IN_BATCH}
    used, most = (_steps(pages, KV_BLOCKS, kind, start_ns, end_ns) for kind in ("used", "max"))
    if not any(steps[0] for steps in batch.values()):
        return None
    plots = [_batch_plot(batch, _client_steps(cell, run, directory, start_ns))]
    if used[0]:
        plots.append(_kv_plot(used, most))
    title = f"{cell.path}, {cell.scenario}, {cell.output_words} tokens out, {cell.load.words}"
    return Figure(
        id=f"server-{number}",
        title=title,
        finding=_finding(batch["scheduled"], used, most),
        plots=tuple(plots),
        table=_gauge_table(title, server),
        columns=False,
    )


def _batch_plot(batch: Mapping[str, Steps], client: Steps) -> Plot:
    marks = [
        Marks(words, "steps", *batch[name], role="bad" if name == "paused" else "warn" if name == "waiting" else "")
        for name, _, _, words in IN_BATCH
        if any(batch[name][1]) or (name == "scheduled" and batch[name][0])
    ]
    if client[0]:
        marks.append(Marks("in flight, by the client", "steps", *client, role="muted", dashed=True))
    return Plot("Requests in the engine", Axis("time", "s", from_zero=False), Axis("requests"), tuple(marks))


def _kv_plot(used: Steps, most: Steps) -> Plot:
    rules = (Rule("y", max(most[1]), f"all {max(most[1]):,.0f} blocks"),) if most[1] else ()
    marks = (Marks("blocks in use", "steps", *used),)
    return Plot("KV cache", Axis("time", "s", from_zero=False), Axis("blocks"), marks, rules)


def _steps(pages: Mapping[str, Any], family: str, kind: str, start_ns: int, end_ns: int) -> Steps:
    """A gauge from ``start_ns`` to ``end_ns``: seconds and values; empty: not offered, or never read."""
    if not pages:
        return (), ()
    chosen = [
        (int(stamp), float(value))
        for stamp, name, labels, value in zip(
            pages["stamp_ns"], pages["family"], pages["labels"], pages["value"], strict=True
        )
        if name == family and stamp <= end_ns and kind in json.loads(labels).values()
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
    if limit:
        sentence += f", and the KV cache up to {blocks:,.0f} of {limit:,.0f} blocks ({blocks / limit:.0%})"
    return f"{sentence}; what happens between two readings is not seen."


def _gauge_table(caption: str, server: Json) -> Table:
    gauges = server.get("gauges") or {"values": {}}
    rows = tuple(
        (
            Text(name.replace("_", " ").replace("kv", "KV blocks")),
            Text(f"{seen['min']:,.0f}"),
            Text(f"{seen['max']:,.0f}"),
        )
        for name, seen in gauges["values"].items()
    )
    columns = (Column("Gauge", numeric=False), Column("least"), Column("most"))
    pages = count(gauges.get("pages", 0), "reading")
    return Table(f"{caption}: gauges in the measured rounds, {pages}", columns, rows)


def _checks(sessions: Sequence[Json]) -> Table:
    names = list(dict.fromkeys(check["name"] for session in sessions for check in session["preflight"]))
    names.sort(key=list(CHECK_TITLES).index)
    columns = [Column("Path", numeric=False), *(Column(CHECK_TITLES[name], numeric=False) for name in names)]
    rows = []
    for session in sessions:
        found = {check["name"]: check for check in session["preflight"]}
        texts = [
            Text(STATUS_WORDS[found[name]["status"]], found[name]["detail"])
            if name in found
            else Text(DASH, "not asked")
            for name in names
        ]
        rows.append((Text(session["path"], path=session["path"]), *texts))
    return Table("Preflight: what a canary showed before the first cell", tuple(columns), tuple(rows))


def _counts(cells: Sequence[CellView]) -> Table:
    """Sums over the cells of a path, and how many of them the two do not agree on."""
    columns = (
        Column("Path", numeric=False),
        Column("What", numeric=False),
        Column("Client"),
        Column("Server"),
        Column("Cells"),
        Column("of them differ"),
        Column("Source", numeric=False),
    )
    groups: dict[tuple[str, str, str], list[Json]] = {}
    for cell in cells:
        for each in cell.record["server"].get("counted") or ():
            groups.setdefault((cell.path, each["what"], each["source"]), []).append(each)
    rows = tuple(
        (Text(path, path=path), Text(what), *_count_texts(counted), Text(source))
        for (path, what, source), counted in groups.items()
    )
    return Table("Counted by the client and by the server, in the measured rounds", columns, rows)


def _count_texts(counted: Sequence[Json]) -> Iterator[Text]:
    told = [each["server"] for each in counted if each["server"] is not None]
    yield Text(f"{sum(each['client'] for each in counted):,}")
    yield Text(f"{sum(told):,}") if len(told) == len(counted) else Text(DASH, "not offered by this server")
    yield Text(f"{len(counted):,}")
    yield Text(f"{sum(each['server'] not in (None, each['client']) for each in counted):,}")


def _statistics(cells: Sequence[CellView]) -> Table:
    columns = (
        Column("Path", numeric=False),
        Column("Model", numeric=False),
        Column("Requests"),
        Column("Batched"),
        Column("Queue", "ms each"),
        Column("Compute", "ms each"),
    )
    rows = []
    for cell in cells:
        for model, counts in (cell.record["server"].get("statistics") or {}).items():
            rows.append((Text(cell.path, path=cell.path), Text(model), *_model_texts(counts)))
    return Table("Triton's statistics of each model, in the measured rounds of these cells", columns, tuple(rows))


def _model_texts(counts: Json) -> Iterator[Text]:
    requests = counts["requests"]
    yield Text(f"{requests:,}")
    batched = counts["inferences"] / counts["executions"] if counts["executions"] else None
    yield Text(DASH, "nothing was executed") if batched is None else Text(f"{batched:.2f}")
    compute_s = counts["compute_input_s"] + counts["compute_infer_s"] + counts["compute_output_s"]
    for spent_s in (counts["queue_s"], compute_s):
        yield Text(f"{spent_s / requests * 1e3:,.2f}") if requests else Text(DASH, "no request ended well")


def _notes(run: Json, cells: Sequence[CellView]) -> Iterator[str]:
    absent = dict.fromkeys(name for cell in cells for name in cell.record["server"].get("not_offered") or ())
    if absent:
        yield f"Not offered by this server: {', '.join(f'{name}*' if name.endswith('_') else name for name in absent)}."
    if any((cell.record["server"].get("gauges")) is None for cell in cells):
        yield "No metrics page was found for this server, so its gauges are not known."
    busy = [cell.id for cell in cells if (cell.record["server"].get("idle_before") or {}).get("status") == "unverified"]
    if busy:
        yield f"Whether the server was idle before {busy[0]} and others could not be seen: it does not show its work."
    yield (
        "Triton adds up times for each request. Of a decoupled model on the python backend, compute ends when the "
        "model took the request over, not with its last token."
    )
    if is_reference(run):
        yield (
            "The families named nv_trt_llm_* are the reference engine's here, under the names of TensorRT-LLM's: a "
            "block of its KV cache is a slot."
        )
