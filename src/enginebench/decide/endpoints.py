"""Which numbers of two runs are compared, and what their blocks say of them. Reads run.json as it stands."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from enginebench.decide.model import Endpoint, Kind, Sample, Samples
from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME, METRICS, PERCENTILE_FLOORS
from enginebench.plan.messages import did_you_mean

Json = Mapping[str, Any]

GPU_MEMORY = "gpu_memory"
"""GPU memory that an engine takes outside its KV pool: after load − KV pool, in bytes."""

WATCH_MARGIN = 0.05
"""Of endpoints that no gate names."""

_OF_THE_CLIENT = ("slip", "lateness")


def endpoint_of(cell_id: str, name: str, margin: float, kind: Kind = "gated") -> Endpoint:
    """The endpoint that ``name`` (``tpot_p50``, ``output_tokens_per_s``, ``gpu_memory``) means in a cell.

    Raises:
        RunError: no metric has that name, or the margin is not at least 0 (for a metric with noise: above it).
    """
    metric, statistic, better = _parsed(name)
    exact = metric == GPU_MEMORY
    if not (margin > 0 or (exact and margin == 0)) or not math.isfinite(margin):
        raise RunError(f"{cell_id}: {name} has the margin {margin:g}; give a share above 0, such as 5%.")
    return Endpoint(cell_id, metric, statistic, margin, better, kind, exact)


def _parsed(name: str) -> tuple[str, str, Any]:
    if name == GPU_MEMORY:
        return name, "value", "lower"
    if name in BY_NAME and BY_NAME[name].kind == "scalar":
        return name, "value", BY_NAME[name].better
    metric, _, statistic = name.rpartition("_")
    if metric in BY_NAME and BY_NAME[metric].kind == "distribution" and statistic in _percentiles():
        return metric, statistic, BY_NAME[metric].better
    raise RunError(f"{name!r} is no metric that can be compared; {did_you_mean(name, _names())}.")


def _percentiles() -> tuple[str, ...]:
    return tuple(f"p{percent}" for percent in PERCENTILE_FLOORS)


def _names() -> Iterator[str]:
    for metric in METRICS:
        yield from [metric.name] if metric.kind == "scalar" else [f"{metric.name}_{each}" for each in _percentiles()]
    yield GPU_MEMORY


def gated_endpoints(run: Json, more: Mapping[tuple[str, str], float] | None = None) -> tuple[Endpoint, ...]:
    """What the scenarios of ``run`` gate, and ``more``: (cell id, metric) → margin, which overrides them.

    Raises:
        RunError: a name is none.
    """
    margins: dict[tuple[str, str], float] = {}
    for scenario, facts in run["plan"]["scenarios"].items():
        for entry in facts.get("gate") or ():
            cell_id = f"{scenario}-{entry['cell'].removeprefix(f'{scenario}-')}"
            margins[cell_id, entry["metric"]] = float(entry["margin"])
    margins |= more or {}
    return tuple(endpoint_of(cell_id, name, margin) for (cell_id, name), margin in margins.items())


def watched_endpoints(old: Json, new: Json, gated: Sequence[Endpoint] = ()) -> tuple[Endpoint, ...]:
    """Every other number that both runs have: the percentiles and rates of cells that both measured."""
    taken = {endpoint.key for endpoint in gated}
    found = [
        Endpoint(cell_id, metric.name, statistic, WATCH_MARGIN, metric.better, "watch")
        for cell_id, cell in old["cells"].items()
        for metric in METRICS
        if metric.name not in _OF_THE_CLIENT
        for statistic in (["value"] if metric.kind == "scalar" else _percentiles())
        if _has(cell, metric.name, statistic) and _has(new["cells"].get(cell_id, {}), metric.name, statistic)
    ]
    return tuple(endpoint for endpoint in found if endpoint.key not in taken)


def _has(cell: Json, metric: str, statistic: str) -> bool:
    """Whether any block of a cell has a value, bounded or not."""
    return any(_value(block["metrics"].get(metric), statistic, block) is not None for block in _blocks(cell))


def samples_of(old: Json, new: Json, endpoints: Sequence[Endpoint]) -> dict[Endpoint, Samples]:
    """What the blocks of both runs say of each endpoint; pairs that the runs say to discard are left out."""
    return {each: Samples(_samples(old, each), _samples(new, each)) for each in endpoints}


def _samples(run: Json, endpoint: Endpoint) -> tuple[Sample, ...]:
    discarded = {entry["pair"] for entry in (run.get("ab") or {}).get("discarded") or ()}
    blocks = [block for block in _blocks(run["cells"].get(endpoint.cell_id, {})) if block["pair"] not in discarded]
    return tuple(_sample(block, endpoint) for block in blocks or _memory_alone(run, endpoint))


def _blocks(cell: Json) -> Sequence[Json]:
    """The blocks of a cell; a run that was written before there were any is one."""
    if "per_block" in cell:
        blocks: Sequence[Json] = cell["per_block"]
        return blocks
    if cell.get("status") != "measured":
        return ()
    metrics = {name: metric["summary"] for name, metric in cell["metrics"].items()}
    counts = {key: cell.get(key, 0) for key in ("requests", "failed_requests")}
    return ({"block": 0, "pair": None, "metrics": metrics, "validity": cell.get("validity"), **counts},)


def _sample(block: Json, endpoint: Endpoint) -> Sample:
    """A block that broke failed whole; one that the client could not resolve has no value."""
    failed, requests = block["failed_requests"], block["requests"]
    if block.get("broken") and not failed:
        failed = requests = max(1, requests)
    usable = (block.get("validity") or {}).get("level") != "invalid"
    value = _value(block["metrics"].get(endpoint.metric), endpoint.statistic, block) if usable else None
    if value is not None and math.isinf(value) and endpoint.better == "higher":
        value = 0.0
    return Sample(block["block"], block["pair"], value, failed, requests)


def _value(summary: Json | None, statistic: str, block: Json) -> float | None:
    """The number; +∞ where there were requests enough for it, and only failures keep it from a bound."""
    if summary is None:
        return None
    value = summary.get(statistic)
    if value is not None:
        return float(value)
    if statistic == "value":
        return math.inf if block["requests"] and block["failed_requests"] == block["requests"] else None
    enough = summary["count"] >= PERCENTILE_FLOORS[int(statistic[1:])]
    return math.inf if enough and summary["failed"] else None
