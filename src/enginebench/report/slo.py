"""What a scenario's limits (SLOs) say of its cells: which keep them, and up to which load.

A cell keeps its limits when at least 99% of its requests kept every one of them; a failed request keeps none.
"""

from collections.abc import Iterable, Mapping
from itertools import groupby

from enginebench.measure.metrics import BY_NAME
from enginebench.report.cells import CellView, Json, path_rank
from enginebench.report.units import scale_for

GOAL = 0.99
ATTAINMENT = "slo_attainment"


def limits_of(run: Json, scenario: str) -> Mapping[str, float]:
    """Metric name → limit in seconds; empty where the scenario sets none."""
    spec = run["plan"]["scenarios"].get(scenario) or {}
    limits = spec.get("slo") or {}
    return {key.removesuffix("_ms"): value / 1000 for key, value in limits.items() if value is not None}


def keeps(cell: CellView) -> bool | None:
    """Whether a cell keeps its limits; None where that is not known."""
    attainment = cell.value(ATTAINMENT)
    return None if attainment is None else attainment >= GOAL


def last_kept(cells: Iterable[CellView]) -> Mapping[str, CellView | None]:
    """By path: its cell of the heaviest load that keeps the limits; None where none does."""
    judged = sorted((cell for cell in cells if keeps(cell) is not None), key=lambda cell: path_rank(cell.path))
    paths = {path: list(members) for path, members in groupby(judged, key=lambda cell: cell.path)}
    return {
        path: max((cell for cell in members if keeps(cell)), key=lambda cell: cell.load.level, default=None)
        for path, members in paths.items()
    }


def limits_words(limits: Mapping[str, float]) -> str:
    """``TTFT 500 ms and TPOT 50 ms``."""
    return " and ".join(f"{BY_NAME[name].title} {limit_words(value)}" for name, value in limits.items())


def limit_words(limit_s: float) -> str:
    """``500 ms``, ``2 s``."""
    scale = scale_for("s", [limit_s if limit_s >= 1 else 0.01])
    return f"{limit_s * scale.factor:,.6g} {scale.symbol}"


def sentence(limits: Mapping[str, float], cells: Iterable[CellView]) -> str:
    """Up to which load each path keeps the limits; empty where nothing is judged."""
    found = last_kept(cells)
    if not found:
        return ""
    parts = [f"{path} {'at no load' if cell is None else f'up to {cell.load.words}'}" for path, cell in found.items()]
    return f"{GOAL:.0%} of requests within {limits_words(limits)}: {', '.join(parts)}."
