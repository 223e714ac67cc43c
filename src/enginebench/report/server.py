"""What the server itself says: its gauges over time, its counts against the client's, what it was checked for.

Of several replicas counters are sums where no server is named, and gauges are each server's own.
A family of metrics that a server does not offer is named as such; it is never drawn as zero.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from enginebench.report.cells import CellView, Json, cells_of
from enginebench.report.compare import reference_load
from enginebench.report.figures import Section
from enginebench.report.gauges import gauge_figure, read_pages
from enginebench.report.summary import is_reference
from enginebench.report.units import DASH
from enginebench.report.view import Column, Table, Text

LEAD = (
    "The server's metrics page, read about ten times a second while requests were under way, and Triton's statistics "
    "before and after the measured rounds. Zero on the time axis is the start of the first measured round."
)
STATUS_WORDS = {"verified": "yes", "failed": "NO", "unverified": "unverified", "not applicable": "not asked"}
CHECK_TITLES = {
    "canary": "Canary",
    "streaming": "Streams",
    "order": "In order",
    "output_length": "Exact length",
    "prompt_tokens": "Prompt length",
    "prefix_cache": "No prefix reused",
    "replicas": "Replicas alike",
}


def server_section(run: Json, directory: Path | None) -> Section | None:
    """The server's numbers; None where no path led to a Triton server."""
    cells = [cell for cell in cells_of(run) if cell.measured and cell.record.get("server")]
    checked = [session for session in run["sessions"] if session.get("preflight")]
    if not cells and not checked:
        return None
    shown = [cell for cell in reference_load(cells_of(run)) if cell.record.get("server")]
    pages = read_pages(directory) if directory else {}
    figures = [
        found for number, cell in enumerate(shown, 1) if (found := gauge_figure(number, cell, pages, run, directory))
    ]
    tables = [_checks(checked), _counts(cells), _statistics(shown)]
    return Section(
        "server",
        "What the server says",
        LEAD,
        tuple(figures),
        tuple(table for table in tables if table.rows),
        tuple(_notes(run, cells)),
    )


def _checks(sessions: Sequence[Json]) -> Table:
    """A row for each server of each session; what was asked of all servers together stands in each of their rows."""
    asked_for = {check["name"] for session in sessions for check in session["preflight"]}
    names = [name for name in CHECK_TITLES if name in asked_for]
    asked = [(session["path"], *each) for session in sessions for each in _by_server(session["preflight"])]
    several = len({server for _, server, _ in asked}) > 1
    columns = [Column("Path", numeric=False), *([Column("Server", numeric=False)] if several else [])]
    columns += [Column(CHECK_TITLES[name], numeric=False) for name in names]
    rows = []
    for path, server, found in asked:
        texts = [
            Text(STATUS_WORDS[found[name]["status"]], found[name]["detail"])
            if name in found
            else Text(DASH, "not asked")
            for name in names
        ]
        rows.append((Text(path, path=path), *([Text(server)] if several else []), *texts))
    return Table("Preflight: what a canary showed before the first cell", tuple(columns), tuple(rows))


def _by_server(checks: Sequence[Json]) -> Iterator[tuple[str, dict[str, Json]]]:
    """The checks of each server by name, with those of all; a run from before there could be several names none."""
    servers = [server for each in checks if (server := each.get("server"))]
    for server in dict.fromkeys(servers or [""]):
        yield server, {each["name"]: each for each in checks if each.get("server") in (server, "", None)}


def _counts(cells: Sequence[CellView]) -> Table:
    """Sums over the cells of a path, and how many of them the two do not agree on."""
    several = any(len(cell.servers) > 1 for cell in cells)
    columns = (
        Column("Path", numeric=False),
        *([Column("URL", numeric=False)] if several else []),
        Column("What", numeric=False),
        Column("Client"),
        Column("Server"),
        Column("Cells"),
        Column("of them differ"),
        Column("Source", numeric=False),
    )
    groups: dict[tuple[str, str, str, str], list[Json]] = {}
    for cell in cells:
        for url, each in ((part["server"], each) for part in cell.servers for each in part.get("counted") or ()):
            groups.setdefault((cell.path, url, each["what"], each["source"]), []).append(each)
    rows = tuple(
        (Text(path, path=path), *([Text(url)] if several else []), Text(what), *_count_texts(counted), Text(source))
        for (path, url, what, source), counted in groups.items()
    )
    return Table("Counted by the client and by the server, in the measured rounds", columns, rows)


def _count_texts(counted: Sequence[Json]) -> Iterator[Text]:
    for side, why in (("client", "no answer tells"), ("server", "not offered by this server")):
        told = [each[side] for each in counted if each[side] is not None]
        yield Text(f"{sum(told):,}") if len(told) == len(counted) else Text(DASH, why)
    yield Text(f"{len(counted):,}")
    pairs = [(each["client"], each["server"]) for each in counted]
    yield Text(f"{sum(None not in pair and pair[0] != pair[1] for pair in pairs):,}")


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
    parts = [part for cell in cells for part in cell.servers]
    if silent := dict.fromkeys(part["server"] or "this server" for part in parts if part.get("gauges") is None):
        yield f"No metrics page was found for {' and '.join(silent)}, so its gauges are not known."
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
