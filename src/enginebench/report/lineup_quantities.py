"""The numbers that runs are put side by side by: what a cell has of each, and why it may have none."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from enginebench.measure.metrics import BY_NAME
from enginebench.report.cells import CellView
from enginebench.report.compare import E2E, OUTPUT_RATE, TPOT, TTFT, Shown
from enginebench.report.summary import MEMORY_TITLES

OutsideBytes = Mapping[str, float]
"""GPU memory of loaded engines outside their KV pools, by path."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One of them. ``name``: with its unit; ``short``: over its ratios; ``metric``: of the cell; empty for memory."""

    name: str
    title: str
    short: str
    unit: str  # as stored
    metric: str
    of: Callable[[OutsideBytes, CellView], float | None]


def _metric(name: str, shown: Shown, short: str) -> Quantity:
    return Quantity(name, shown.title, short, shown.unit, shown.metric, lambda _, cell: shown.of(cell))


def _peak(kind: str) -> Quantity:
    return Quantity(
        f"{kind}_peak_bytes", MEMORY_TITLES[kind], "peak", "bytes", "", lambda _, cell: cell.peak_bytes(kind)
    )


def _shown(name: str) -> Shown:
    metric = BY_NAME[name]
    return Shown(name, metric.title, metric.unit, metric.better)


PER_USER, PER_GPU = _shown("tokens_per_s_per_user"), _shown("output_tokens_per_s_per_gpu")
ENERGY = _shown("energy_per_output_token")
LATENCY = _metric("e2e_latency_p50_s", E2E, "E2E")
RATE = _metric("output_tokens_per_s", OUTPUT_RATE, "tokens/s")
RATE_PER_GPU = _metric("output_tokens_per_s_per_gpu", PER_GPU, "per GPU")
OUTSIDE = Quantity(
    "gpu_outside_pool_bytes",
    "GPU outside KV pool",
    "outside",
    "bytes",
    "",
    lambda outside, cell: outside.get(cell.path),
)
PEAK, HOST = _peak("gpu"), _peak("host")
QUANTITIES = (
    _metric("ttft_p50_s", TTFT, "TTFT"),
    _metric("tpot_p50_s", TPOT, "TPOT"),
    LATENCY,
    RATE,
    RATE_PER_GPU,
    OUTSIDE,
    PEAK,
    HOST,
    _metric("energy_per_output_token_j", ENERGY, "energy"),
)


def chosen(cells: Iterable[tuple[OutsideBytes, CellView]]) -> tuple[tuple[Quantity, ...], tuple[Quantity, ...]]:
    """Which of them say something of measured ``cells``, and which of the others no cell has a value of."""
    measured = [(outside, cell) for outside, cell in cells if cell.measured]
    known = [each for each in QUANTITIES if any(each.of(*one) is not None for one in measured)]
    rates = [(RATE_PER_GPU.of(*one), RATE.of(*one)) for one in measured]
    one_gpu = all(each is None or each == whole for each, whole in rates)
    needless = {HOST: PEAK in known, RATE_PER_GPU: one_gpu, LATENCY: all(cell.streaming for _, cell in measured)}
    absent = [each for each in QUANTITIES if each not in (*known, *needless)]
    return tuple(each for each in known if not needless.get(each)), tuple(absent)
