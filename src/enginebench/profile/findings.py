"""What a rerun says, once the engine has gone: reads what was taken, writes profile.json and the tables beside it."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from enginebench.clock import measure_offset
from enginebench.errors import EnginebenchError, RunError
from enginebench.measure.gpu_trace import gpu_columns
from enginebench.measure.profilers import ROUND
from enginebench.measure.telemetry import Sample
from enginebench.profile import nsys
from enginebench.profile.gaps import worst_gaps
from enginebench.profile.iterations import Iterations, from_observed, from_pages
from enginebench.profile.nsys_tables import Recorded
from enginebench.profile.shares import engine_shares, request_shares
from enginebench.profile.taking import Taken
from enginebench.profile.torch_trace import read_trace, summary
from enginebench.store_profiles import write_json, write_profile, write_records, write_table


def keep(taken: Taken, samples: list[Sample]) -> str | None:
    """Write the profile; ``samples``: telemetry of the rerun. Returns why there is none, or None.

    Raises:
        RunError: nothing can be written.
    """
    data, record = taken.data, taken.record
    if record is not None:
        write_records(taken.directory, [record])
        try:
            data |= LOOKS[taken.kind](taken, samples)
        except RunError as error:
            data["reason"] = str(error)
    cell = taken.planned.cell
    head = {"kind": taken.kind, "cell": cell.id, "path": cell.path, "profiled": True}
    write_profile(taken.directory, {**head, "status": "failed" if data["reason"] else "taken", **data})
    reason: str | None = data["reason"]
    return reason


def failed(taken: Taken, error: EnginebenchError) -> None:
    """Keep why a rerun broke."""
    taken.data["reason"] = str(error)


def _iterations(taken: Taken, samples: list[Sample]) -> dict[str, Any]:
    record = taken.record
    assert record is not None
    columns, source = _columns(taken)
    write_table(taken.directory, "iterations", columns)
    gpu = _gpu(taken, samples)
    if taken.spans:
        write_json(taken.directory / "spans.json", taken.spans)
    iterations = Iterations.of({name: _known(values) for name, values in columns.items()})
    if not len(iterations):
        taken.data["notes"].append("The engine told of no iteration, so that gaps have no known cause.")
    scheduled = scheduled_ns(taken)
    return {
        "source": source,
        "iterations": len(iterations),
        "requests": request_shares(record, scheduled),
        "engine": engine_shares(record, iterations),
        "gaps": [gap.as_json() for gap in worst_gaps(record, iterations, gpu)] if record.streaming else [],
        "scheduled_ns": {str(index): stamp for index, stamp in scheduled.items()},
        "stamp_kind": record.stamp_kind,
        "started_ns": record.started_ns,
    }


def _columns(taken: Taken) -> tuple[dict[str, list[Any]], str]:
    """Of the engine's own record, or else of the server's gauges."""
    rows = taken.observed.get("iterations") or []
    if rows:
        offset = measure_offset()
        return from_observed(rows, offset.to_monotonic), "every iteration, as the engine recorded it"
    assert taken.record is not None
    pages = from_pages(taken.pages, taken.record.started_ns, taken.record.ended_ns)
    return pages, "gauges of the server, read about ten times a second" if pages else "nothing"


def _known(values: list[Any]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def scheduled_ns(taken: Taken) -> dict[int, int]:
    """By request, when the engine took it up, where it tells: a stamp, or seconds after the request arrived."""
    assert taken.record is not None
    table = taken.record.requests
    sent = dict(zip(table.index.tolist(), table.sent_ns.tolist(), strict=True))
    found: dict[int, int] = {}
    for each in taken.observed.get("requests") or []:
        index = each.get("request")
        if "scheduled_ns" in each:
            found[index] = each["scheduled_ns"]
        elif index in sent and each.get("first_scheduled_s") is not None:
            found[index] = sent[index] + round(each["first_scheduled_s"] * 1e9)
    return found


def _gpu(taken: Taken, samples: list[Sample]) -> Mapping[str, Any]:
    """The samples of the rerun as columns, kept beside it; empty without a GPU."""
    assert taken.record is not None
    within = [each for each in samples if taken.record.started_ns <= each.stamp_ns <= taken.record.ended_ns]
    if not any(sample.gpu for sample in within):
        return {}
    columns = gpu_columns(within)
    write_table(taken.directory, "gpu", columns)
    return _arrays(columns)


def _arrays(columns: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    stamps = np.asarray(columns["stamp_ns"], dtype=np.int64)
    return {"stamp_ns": stamps, "sm_clock_mhz": np.asarray(_known(list(columns["sm_clock_mhz"])), dtype=np.float64)}


def _torch(taken: Taken, _: list[Sample]) -> dict[str, Any]:
    """Of our own trace, or of those that TensorRT-LLM wrote itself, of which the first rank's is looked into."""
    traces = sorted(taken.directory.glob("torch-trace*"))
    if not traces:
        why = taken.data["reason"] or (
            "No trace was written: the engine did not get through the iterations that TLLM_PROFILE_START_STOP names; "
            "set it, or profile a longer cell."
        )
        return {"reason": why}
    return {"reason": None, "files": [path.name for path in traces], **summary(read_trace(traces[0]), ROUND)}


def _nsys(taken: Taken, _: list[Sample]) -> dict[str, Any]:
    program, reports = nsys.find_nsys(), nsys.find_reports(taken.directory)
    if program is None or not reports:
        return {"reason": taken.data["reason"] or nsys.why_no_report(taken.directory)}
    notes = list(taken.data["notes"])
    recorded = [found for report in reports if (found := _recorded(program, report, notes))]
    files = [*reports, *sorted(taken.directory.glob("report*.csv"))]
    data = {"files": [path.name for path in files], "notes": notes}
    if not recorded:
        return data
    notes += nsys.missing(recorded[0], taken.data.get("round"))
    return {**data, **recorded[0].summary(ROUND)}


def _recorded(program: str, report: Path, notes: list[str]) -> Recorded | None:
    """What ``report`` holds; where it cannot be read, ``notes`` say why."""
    try:
        return nsys.read_report(program, report)
    except RunError as error:
        notes.append(str(error))
        return None


def _python(taken: Taken, _: list[Sample]) -> dict[str, Any]:
    if not taken.data["files"] and not taken.data["reason"]:
        return {"reason": " ".join(taken.data["notes"]) or "No Python process could be sampled."}
    return {}


LOOKS: Mapping[str, Callable[[Taken, list[Sample]], dict[str, Any]]] = {
    "iterations": _iterations,
    "torch": _torch,
    "nsys": _nsys,
    "python": _python,
}


def clear(taken: Taken) -> None:
    """Make an empty directory for the profile."""
    shutil.rmtree(taken.directory, ignore_errors=True)
    taken.directory.mkdir(parents=True)
