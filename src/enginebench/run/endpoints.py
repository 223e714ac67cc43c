"""Which numbers of a run decide, which are only watched, and what its blocks say of them. Reads run.json, no file."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from enginebench.decide.decisions import MOST_GATED
from enginebench.decide.model import Endpoint, Sample
from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME, METRICS, OF_THE_CLIENT, PERCENTILE_FLOORS
from enginebench.plan.cells import PATHS
from enginebench.plan.messages import did_you_mean
from enginebench.plan.scenario import GATE_METRICS, MEMORY

Json = Mapping[str, Any]

DEFAULT_MARGIN = 0.05
"""Of numbers that are watched, and of those that are gated when nobody says which."""
MEMORY_MARGIN = 0.02
_WATCHED = ("p50", "p90", "p95", "p99")


def endpoint(cell_id: str, name: str, margin: float, *, gated: bool = False) -> Endpoint:
    """The endpoint of a metric as a gate names it: ``tpot_p50``, ``goodput``, ``gpu_memory``."""
    kind = "gated" if gated else "watch"
    if name == MEMORY:
        return Endpoint(cell_id, MEMORY, "value", margin, kind=kind, exact=True)  # type: ignore[arg-type]
    metric, _, statistic = name.rpartition("_")
    if name in BY_NAME:
        metric, statistic = name, "value"
    return Endpoint(cell_id, metric, statistic, margin, BY_NAME[metric].better, kind)  # type: ignore[arg-type]


def read_gates(texts: Sequence[str], cells: Json) -> tuple[Endpoint, ...]:
    """Read the values of ``--gate``, each CELL:METRIC:MARGIN, for the ``cells`` of a run or plan (id → head).

    Raises RunError for a cell, a metric or a margin that is none, two margins of one number, and more than four.
    """
    return _few_and_clear([_read_gate(text, cells) for text in texts])


def scenario_gates(scenarios: Mapping[str, Json], cells: Json) -> tuple[Endpoint, ...]:
    """The endpoints that the ``scenarios`` of run.json's plan gate, as far as their cells are among ``cells``."""
    found = [
        endpoint(_gated_cell(name, gate), gate["metric"], gate["margin"], gated=True)
        for name, scenario in scenarios.items()
        for gate in scenario.get("gate", ())
    ]
    known = {*cells, *(head["path"] for head in cells.values())}
    return _few_and_clear([each for each in found if each.cell_id in known])


def default_gates(cells: Json) -> tuple[Endpoint, ...]:
    """What is gated when nobody says: TPOT and tokens/s of the first streaming cell, else E2E latency and tokens/s."""
    streaming = [cell_id for cell_id, cell in cells.items() if cell["streaming"]]
    chosen = next(iter(streaming or cells), None)
    if chosen is None:
        return ()
    latency = "tpot_p50" if streaming else "e2e_latency_p50"
    return tuple(endpoint(chosen, name, DEFAULT_MARGIN, gated=True) for name in (latency, "output_tokens_per_s"))


def watched(gated: Iterable[Endpoint], runs: Sequence[Json]) -> tuple[Endpoint, ...]:
    """Every other number of the cells that all ``runs`` have, with the memory of engines as a gated one where known."""
    taken = {each.key for each in gated}
    found = [
        endpoint(cell_id, name, DEFAULT_MARGIN)
        for cell_id in _shared([run["cells"] for run in runs])
        for name in _names([run["cells"][cell_id] for run in runs])
    ]
    paths = [path for path in PATHS if all(memory_samples(run, path) for run in runs)]
    found += [endpoint(path, MEMORY, MEMORY_MARGIN, gated=True) for path in paths]
    return tuple(each for each in found if each.key not in taken)


def samples_of(run: Json, wanted: Endpoint) -> tuple[Sample, ...]:
    """What the blocks of ``run`` say of an endpoint; none where it has no such cell."""
    if wanted.metric == MEMORY:
        return memory_samples(run, wanted.cell_id)
    cell = run["cells"].get(wanted.cell_id)
    return tuple(_sample(entry, wanted) for entry in blocks_of(cell)) if cell else ()


def blocks_of(cell: Json) -> Sequence[Json]:
    """The ``per_block`` of a cell; of a run that was measured before there were any, its one block."""
    if "per_block" in cell or cell["status"] != "measured":
        return list(cell.get("per_block", ()))
    metrics = {name: found["summary"] for name, found in cell["metrics"].items()}
    counts = {key: cell.get(key, 0) for key in ("requests", "failed_requests")}
    return [{"block": 0, "pair": None, "broken": None, "metrics": metrics, **counts}]


def memory_samples(run: Json, path: str) -> tuple[Sample, ...]:
    """GPU memory of each loaded engine of ``path`` less its KV pool, bytes; none where either is not known."""
    pairs = {entry["block"]: entry["pair"] for cell in run["cells"].values() for entry in blocks_of(cell)}
    found: dict[int, Sample] = {}
    for session in run.get("sessions", ()):
        used_bytes = _outside_pool(session) if session["path"] == path else None
        if used_bytes is not None:
            block = session.get("block", 0)
            found.setdefault(block, Sample(block, pairs.get(block), float(used_bytes)))
    return tuple(found.values())


def why_no_memory(run: Json, path: str) -> str:
    """Why ``memory_samples`` of ``path`` are none."""
    memories = [session.get("memory") or {} for session in run.get("sessions", ()) if session["path"] == path]
    if not any(memory.get("gpu") for memory in memories):
        return next((memory["gpu_reason"] for memory in memories if memory.get("gpu_reason")), "no GPU")
    return "the size of its KV pool is not known (set it with --engine kv_cache_tokens=N)"


def _outside_pool(session: Json) -> int | None:
    gpu = (session.get("memory") or {}).get("gpu") or {}
    before, after, pool = gpu.get("before_load"), gpu.get("after_load"), (session.get("kv_pool") or {}).get("bytes")
    return None if before is None or after is None or pool is None else int(after - before - pool)


def _sample(entry: Json, wanted: Endpoint) -> Sample:
    failed, requests = entry["failed_requests"], entry["requests"]
    if entry["broken"] is not None and not failed:  # the engine died: what it was asked last is lost
        failed, requests = requests or 1, requests or 1
    return Sample(entry["block"], entry["pair"], _value(entry, wanted), failed, requests)


def _value(entry: Json, wanted: Endpoint) -> float | None:
    """The number of a block; the worst one that there is where failed requests leave a percentile without bound."""
    summary = entry["metrics"].get(wanted.metric, {})
    value = summary.get(wanted.statistic)
    if value is None and summary.get("failed") and (summary.get("count") or 0) >= floor(wanted):
        return float("inf") if wanted.better == "lower" else 0.0
    return None if value is None else float(value)


def floor(wanted: Endpoint) -> int:
    """Requests that a block needs before it has the number."""
    return 1 if wanted.statistic == "value" else PERCENTILE_FLOORS[int(wanted.statistic[1:])]


def _gated_cell(scenario: str, gate: Json) -> str:
    if gate["metric"] == MEMORY:
        return str(gate["cell"])
    return f"{scenario}-{gate['cell'].removeprefix(f'{scenario}-')}"


def _read_gate(text: str, cells: Json) -> Endpoint:
    cell, _, rest = text.partition(":")
    name, _, margin_text = rest.partition(":")
    return endpoint(
        _cell_named(cell, name, text, cells), _metric_named(name, text), _margin(margin_text, text), gated=True
    )


def _cell_named(cell: str, name: str, text: str, cells: Json) -> str:
    known = {cell_id: cell_id for cell_id in cells} if name != MEMORY else {path: path for path in PATHS}
    for cell_id, head in cells.items():
        known.setdefault(cell_id.removeprefix(f"{head['scenario']}-"), cell_id)
    if cell not in known:
        raise RunError(f"--gate {text!r} names no cell that is measured; {did_you_mean(cell, known)}")
    return known[cell]


def _metric_named(name: str, text: str) -> str:
    names = (*GATE_METRICS, MEMORY)
    if name not in names:
        raise RunError(f"--gate {text!r} names no metric that can be gated; {did_you_mean(name, names)}")
    return name


def _margin(text: str, whole: str) -> float:
    try:
        margin = float(text.removesuffix("%")) / 100 if text.endswith("%") else 0.0
    except ValueError:
        margin = 0.0
    if not 0 < margin < 1:
        raise RunError(f"--gate {whole!r} has no margin such as 5%: write CELL:METRIC:5%.")
    return margin


def _few_and_clear(gates: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    unique: dict[str, Endpoint] = {}
    for each in gates:
        other = unique.setdefault(each.key, each)
        if other.margin != each.margin:
            margins = " and at ".join(f"{100 * one.margin:g}%" for one in (other, each))
            raise RunError(f"{each.key} is gated at {margins}: keep one of them.")
    noisy = [each for each in unique.values() if not each.exact]
    if len(noisy) > MOST_GATED:
        raise RunError(
            f"{len(noisy)} endpoints are gated, and {MOST_GATED} can be: name those that matter with --gate "
            "CELL:METRIC:MARGIN."
        )
    return tuple(unique.values())


def _shared(of_runs: Sequence[Json]) -> list[str]:
    first, *others = of_runs
    return [cell_id for cell_id in first if all(cell_id in other for other in others)]


def _names(cells: Sequence[Json]) -> list[str]:
    """The metrics as gates name them that a block of every one of ``cells`` has a number of."""
    names = []
    for metric in METRICS:
        keys = ("value",) if metric.kind == "scalar" else _WATCHED
        known = [key for key in keys if all(_has(cell, metric.name, key) for cell in cells)]
        if metric.name not in OF_THE_CLIENT:
            names += [metric.name if key == "value" else f"{metric.name}_{key}" for key in known]
    return names


def _has(cell: Json, metric: str, key: str) -> bool:
    return any(block["metrics"].get(metric, {}).get(key) is not None for block in blocks_of(cell))
