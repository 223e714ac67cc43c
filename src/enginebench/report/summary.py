"""The top of the page: title, verdict and cards."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from enginebench.decide.comparable import attached_urls
from enginebench.report import trust
from enginebench.report.cells import STATUS_WORDS, CellView, Json
from enginebench.report.compare import HEADLINES, Shown, change, metric_scale, reference_load, spread
from enginebench.report.units import DASH, count, scale_for, size, span
from enginebench.report.view import Card, CardLine, Text, Verdict

REFERENCE_LABEL = "reference engine, not TensorRT-LLM"
MEMORY_TITLES = {"gpu": "Peak on GPU", "host": "Peak host RSS"}
PATH_WORDS = {
    "direct": "engine in process",
    "core": "Triton, the engine's model alone",
    "ensemble": "Triton, tokenise → engine → detokenise",
    "bls": "Triton, a BLS script around the engine",
    "llmapi": "Triton, the LLM API model",
    "openai-completions": "OpenAI-compatible completions",
    "openai-chat": "OpenAI-compatible chat",
}


def is_reference(run: Json) -> bool:
    """Whether the numbers come from the engine that only exercises the flow."""
    return bool(run["build"]["kind"] == "reference")


def title(run: Json) -> str:
    """One line that names the file: build, what it is, where and when it ran."""
    label = f" ({REFERENCE_LABEL})" if is_reference(run) else ""
    where = hardware(run["environment"])
    return f"{run['build']['name']}{label}{f' on {where}' if where else ''}, {date(run['created'])[:10]}"


def subtitle(run: Json) -> tuple[str, ...]:
    """What was measured, where, when, for how long."""
    build = run["build"]
    engine = REFERENCE_LABEL if is_reference(run) else f"TensorRT-LLM {build.get('version') or 'of unknown version'}"
    took = f"{span(_duration_s(run))} long" if run["finished"] else "not finished"
    parts = [
        engine,
        f"{build['architecture']}, {build['dtype']}",
        hardware(run["environment"]),
        date(run["created"]),
        took,
    ]
    return tuple(part for part in parts if part)


def hardware(environment: Json) -> str:
    """The name of the GPU, else of the CPU, else nothing."""
    names = [gpu.get("name") for gpu in environment.get("gpus") or ()]
    names.append((environment.get("cpu") or {}).get("model"))
    return next((name for name in names if name), "")


def date(stamp: str) -> str:
    """``2026-11-22T21:14:47Z`` as ``2026-11-22 21:14 UTC``."""
    return f"{_moment(stamp):%Y-%m-%d %H:%M} UTC"


def verdict(run: Json, cells: Sequence[CellView]) -> Verdict:
    """What was measured and what not, bad news first, and what bounds the trust in the numbers."""
    found = Counter(cell.status for cell in cells)
    shown = Counter(trust.status_of(cell.record, cell.status) for cell in cells)
    order = ("failed", "missing", "invalid", "degraded", "measured", "not_applicable", "skipped")
    counts = tuple((status, STATUS_WORDS.get(status, status), shown[status]) for status in order if shown[status])
    return Verdict(
        _level(run, cells, found),
        f"{_headline(found).removesuffix('.')}{_doubts(shown)}.",
        counts,
        tuple(_notes(run, cells)),
    )


def cards(cells: Sequence[CellView]) -> tuple[str, tuple[Card, ...]]:
    """The title of the cards, which names the load, and a card a path."""
    at_load = reference_load(cells)
    if not at_load:
        return "No cell was measured", ()
    first = at_load[0]
    mode = "streaming" if first.streaming else "without streaming"
    load = f"{first.scenario}, {first.output_words} tokens out, {mode}, {first.load.words}"
    return load, tuple(_card(cell, at_load) for cell in at_load)


def memory_kind(cells: Sequence[CellView]) -> str:
    """``gpu`` where any cell has GPU memory, else ``host``."""
    return "gpu" if any(cell.peak_bytes("gpu") is not None for cell in cells) else "host"


def _level(run: Json, cells: Sequence[CellView], found: Counter[str]) -> str:
    if found["failed"] or not found["measured"]:
        return "bad"
    partial = found["missing"] or run["interrupted"] or not run["finished"]
    doubtful = any(cell.measured and trust.reasons_of(cell.record) for cell in cells)
    return "warn" if partial or doubtful or _failed_requests(cells) else "good"


def _headline(found: Counter[str]) -> str:
    planned = sum(found.values()) - found["left_out"]
    if not planned:
        return "No cell was planned, nothing was measured."
    if found["measured"] == planned:
        return "The one cell was measured." if planned == 1 else f"All {planned} cells measured."
    bad = [f"{found[status]} {STATUS_WORDS[status]}" for status in ("failed", "missing") if found[status]]
    rest = [f"{found[status]} {STATUS_WORDS[status]}" for status in ("not_applicable", "skipped") if found[status]]
    parts = [*bad, f"{found['measured']} of {count(planned, 'cell')} measured", *rest]
    return ", ".join(parts) + "."


def _doubts(shown: Counter[str]) -> str:
    """How many of the measured cells are not to be trusted."""
    return "".join(f", {shown[level]} {level.upper()}" for level in trust.DOUBTFUL if shown[level])


def _notes(run: Json, cells: Sequence[CellView]) -> list[str]:
    notes = []
    if failed := _failed_requests(cells):
        notes.append(f"{count(failed, 'failed request')} among {_requests(cells):,} in measured cells.")
    if run["interrupted"]:
        notes.append("Interrupted: the run was stopped before its end.")
    elif not run["finished"]:
        notes.append("The run never finished: it crashed, or is still under way.")
    notes += _caveats(run, cells)
    if _requests(cells) and not failed:
        notes.append(f"No failed request among {_requests(cells):,} in measured cells.")
    return notes


def _caveats(run: Json, cells: Sequence[CellView]) -> Iterator[str]:
    if is_reference(run):
        yield f"R{REFERENCE_LABEL[1:]}: its numbers exercise the flow and stand for no other engine."
    if measured := [cell.record for cell in cells if cell.measured]:
        yield from trust.caveats(measured)
    if noisy := sum(len(cell.makespans_s) > 1 and spread(cell.makespans_s) > 0.1 for cell in cells):
        yield f"Noise: in {count(noisy, 'cell')}, rounds lie more than 10% apart."
    if len(urls := attached_urls(run)) == 1:
        yield f"Attached to a server at {urls[0]}, which may serve others at the same time."
    elif urls:
        yield f"Attached to servers at {' and '.join(urls)}, which may serve others at the same time."


def _failed_requests(cells: Sequence[CellView]) -> int:
    return sum(int(cell.record.get("failed_requests") or 0) for cell in cells if cell.measured)


def _requests(cells: Sequence[CellView]) -> int:
    return sum(int(cell.record.get("requests") or 0) for cell in cells if cell.measured)


def _card(cell: CellView, at_load: Sequence[CellView]) -> Card:
    lines = [_card_line(cell, at_load, shown) for shown in HEADLINES]
    return Card(
        path=cell.path,
        subtitle=PATH_WORDS.get(cell.path, ""),
        status=trust.status_of(cell.record, ""),
        status_words=trust.mark(cell.record),
        lines=(*lines, _memory_line(cell, at_load)),
    )


def _card_line(cell: CellView, at_load: Sequence[CellView], shown: Shown) -> CardLine:
    scale = metric_scale(shown, at_load)
    value = cell.value(shown.metric)
    if value is None:
        return CardLine(shown.title, Text(DASH, cell.why_none(shown.metric)), "", "")
    base = at_load[0]
    note = change(base, cell, shown, scale) if cell is not base else None
    if cell is base:
        rounds = cell.per_round(shown.metric)
        note = f"{scale.number(min(rounds))}–{scale.number(max(rounds))}" if rounds else ""
    return CardLine(shown.title, Text(scale.number(value)), scale.symbol, note or "", shown.better)


def _memory_line(cell: CellView, at_load: Sequence[CellView]) -> CardLine:
    kind = memory_kind(at_load)
    name = MEMORY_TITLES[kind]
    scale = scale_for("bytes", [other.peak_bytes(kind) for other in at_load])
    peak = cell.peak_bytes(kind)
    if peak is None:
        return CardLine(name, Text(DASH, cell.why_none("memory")), "", "")
    roles = [(role, cell.peak_bytes(role)) for role in ("engine", "server")] if kind == "host" else []
    note = " + ".join(f"{role} {size(value)}" for role, value in roles if value is not None)
    return CardLine(name, Text(scale.number(peak)), scale.symbol, note, "lower")


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp.replace("Z", "+00:00"))


def _duration_s(run: Json) -> float:
    return (_moment(run["finished"]) - _moment(run["created"])).total_seconds()
