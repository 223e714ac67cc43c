"""``enginebench calibrate`` and ``enginebench selftest``: measure the client itself, print, and keep as JSON."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from enginebench.environment import environment
from enginebench.errors import EnginebenchError
from enginebench.files import write_text
from enginebench.measure.calibration import Point
from enginebench.measure.calibrator import Calibrator
from enginebench.report.calibration import calibration_text
from enginebench.run.selftest import ROWS, Effort, Outcome, markdown, run_row

SCHEMA = "enginebench/calibration/1"
_FLAT_OUT_TOKENS = 100_000  # of all streams together
MOST_TOKENS, MOST_S = 5_000_000, 3600.0
"""Of one measurement: more is a slip, and would be waited for until memory or patience ends."""


def calibrate(point: Point, out: Path | None, *, width: int, colour: bool) -> str:
    """Calibrate at ``point`` and flat out with as many streams; keep it in ``out``; return what to print.

    Raises:
        EnginebenchError: it would not end, something did not start or broke, or ``out`` cannot be written.
    """
    _refuse_endless(point)
    with tempfile.TemporaryDirectory(prefix="enginebench-calibrate-") as logs, Calibrator(Path(logs)) as calibrator:
        found = calibrator.measure(point)
        flat_out = None if point.runtime == "null" else calibrator.measure(_flat_out(point))
    text = calibration_text(found, flat_out, width=width, colour=colour)
    if out is not None:
        _write(out, {"calibration": found.as_json(), "flat_out": flat_out and flat_out.as_json()})
        text += f"stored: {out}\n"
    return text


def selftest(
    names: Sequence[str], effort: Effort, out: Path | None, say: Callable[[str], object]
) -> Mapping[str, Outcome]:
    """Measure the rows with these names (none: all), say each when it is there, then the table; keep it in ``out``.

    Raises:
        EnginebenchError: there is no such row, or ``out`` cannot be written.
    """
    known = {row.name for row in ROWS}
    if unknown := [name for name in names if name not in known]:
        raise EnginebenchError(f"There is no row {unknown[0]!r}: name some of {', '.join(row.name for row in ROWS)}.")
    outcomes: dict[str, Outcome] = {}
    facts, load_before = environment(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="enginebench-selftest-") as logs, Calibrator(Path(logs)) as calibrator:
        for row in (row for row in ROWS if not names or row.name in names):
            outcomes[row.name] = run_row(row, calibrator, effort)
            say(f"{row.name}: {outcomes[row.name].text}")
    say("\n" + markdown(outcomes))
    say(f"\n{_machine(facts)}; load average before: {load_before:.2f}")
    if out is not None:
        rows = {name: asdict(outcome) for name, outcome in outcomes.items()}
        _write(out, {"load_average_before": load_before, "effort": asdict(effort), "rows": rows})
        say(f"stored: {out}")
    return outcomes


def _refuse_endless(point: Point) -> None:
    tokens, answer_s = point.requests * point.tokens, point.ttft_s + point.gap_s * point.tokens
    if tokens > MOST_TOKENS:
        raise EnginebenchError(
            f"A calibration of {tokens:.3g} tokens has no end: lower --tokens, --streams, --rate or --seconds, "
            f"{MOST_TOKENS:,} are the most."
        )
    if answer_s > MOST_S:
        raise EnginebenchError(
            f"An answer of {answer_s:.3g} s has no end: lower --tokens or --ttft-ms, or raise --rate, "
            f"{MOST_S:,.0f} s are the most."
        )


def _flat_out(point: Point) -> Point:
    tokens = max(100, _FLAT_OUT_TOKENS // point.streams)
    return replace(point, gap_s=0.0, ttft_s=0.0, tokens=tokens, requests=point.streams, kind="batch", varied=False)


def _machine(facts: Mapping[str, object]) -> str:
    cpu = facts.get("cpu")
    model = (cpu.get("model") if isinstance(cpu, Mapping) else cpu) or "unknown processor"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {facts.get('python')}"


def _write(out: Path, content: Mapping[str, object]) -> None:
    whole = {"schema": SCHEMA, "environment": environment(), **content}
    write_text(out, json.dumps(whole, indent=1, ensure_ascii=False))
