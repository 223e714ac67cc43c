"""A calibration as a person reads it in a terminal."""

import io

from rich.console import Console
from rich.table import Table

from enginebench.measure.calibration import Calibration, Pair, Point, Spread

_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e_latency": "E2E latency"}


def calibration_text(calibration: Calibration, flat_out: Calibration | None, *, width: int, colour: bool) -> str:
    """The table of errors, and what bounds the trust in it. ``flat_out``: the same streams without pauses."""
    target = io.StringIO()
    console = Console(file=target, width=max(width, 120), force_terminal=colour, no_color=not colour, highlight=False)
    console.print(
        f"client {calibration.point.runtime}, {load_text(calibration.point)}, {calibration.stamp_kind} stamps"
    )
    console.print(_errors(calibration))
    for line in _facts(calibration, flat_out):
        console.print(line, soft_wrap=True)
    return target.getvalue()


def load_text(point: Point) -> str:
    """A point in words."""
    if not point.gap_s:
        return f"{point.streams} streams flat out"
    pace = ", in step" if point.together else ""
    return f"{point.streams} streams × {1 / point.gap_s:.4g} tokens/s{pace}, {point.requests} requests ({point.kind})"


def _errors(calibration: Calibration) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("client − truth, ms", no_wrap=True)
    names = next(iter(calibration.errors.values()))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("truth p50", justify="right", no_wrap=True)
    for metric, pairs in calibration.errors.items():
        if pairs:
            truth = f"{pairs['p50'].truth_s * 1e3:,.3f}"
            table.add_row(_TITLES[metric], *(_error(pair) for pair in pairs.values()), truth)
    return table


def _error(pair: Pair) -> str:
    relative = "" if pair.relative is None else f" ({pair.relative:+.1%})"
    return f"{pair.error_s * 1e3:+.3f}{relative}"


def _facts(calibration: Calibration, flat_out: Calibration | None) -> list[str]:
    cost = calibration.cost
    running_us, decoding_us = cost.cpu_s_per_token * 1e6, cost.decode_cpu_s_per_token * 1e6
    lines = [
        f"stamp − departure: {_spread(calibration.stamp_lateness)}",
        f"process − stamp: {_spread(calibration.process_lateness)}",
        f"slip (sent − intended): {_spread(calibration.slip)}",
        f"CPU: {running_us:.1f} µs a token, {decoding_us:.1f} µs after the round; {cost.cpu_share:.0%} of a core",
    ]
    if calibration.sustained is not None:
        lines.append(f"load: {calibration.sustained:.1%} of the token rate asked for")
    if calibration.server_lateness and calibration.server_doubt:
        lines.append(
            f"of the truth itself: tokens left late by {_spread(calibration.server_lateness)}; "
            f"in calls of {_spread(calibration.server_doubt)}"
        )
    if calibration.clock_stepped:
        lines.append("the clock was set meanwhile: calibrate again")
    if flat_out is not None:
        rate, busy = flat_out.cost.tokens_per_s, flat_out.cost.cpu_share
        lines.append(f"flat out: {rate:,.0f} events/s with {busy:.0%} of a core")
    return lines


def _spread(values: Spread | None) -> str:
    if values is None:
        return "not recorded"
    return f"p50 {values.p50 * 1e6:,.0f} µs, p99 {values.p99 * 1e6:,.0f} µs, at most {values.max * 1e6:,.0f} µs"
