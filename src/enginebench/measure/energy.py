"""What the GPUs did during a round: energy, power, clocks, temperature, why the clocks were low, who else was there.

Pure: samples, states and edges in, sums out. Energy is the difference of the cards' counters between the edges around a
round; without a counter it is the integral of the sampled power over the round, and says so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np

from enginebench.measure.gpu_trace import Edge, GpuReading, GpuState
from enginebench.measure.nvml import REASONS
from enginebench.measure.telemetry import Sample

Source = Literal["counter", "power samples"]

_Value = TypeVar("_Value")

IDLE_BIT = 0x1

COUNTER_STEP_S = 0.1
"""The energy counter of an H100 moves every 100 ms: the energy of a round is known to about that much of its time."""


@dataclass(frozen=True, slots=True)
class RoundGpu:
    """The GPUs of a build during one measured round. Lists hold a value per sample in which a GPU computed."""

    window_s: float
    energy_j: float | None = None  # of all GPUs, over ``energy_s``
    energy_s: float | None = None
    energy_source: Source | None = None
    peak_bytes: int | None = None  # of all GPUs at once
    samples: int = 0  # of GPUs
    longest_gap_s: float = 0.0  # in which no sample was taken
    sm_clocks_mhz: tuple[int, ...] = ()
    temperatures_c: tuple[int, ...] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)  # samples of a GPU by reason
    foreign: tuple[int, ...] = ()  # process ids that computed and are not the build's
    events: tuple[tuple[str, int], ...] = ()
    ecc_errors: int | None = None  # uncorrected, during the round
    cpu_busy: float | None = None  # share of the cores
    swapped_bytes: int | None = None
    each: tuple["RoundGpu", ...] = ()  # what each of several GPUs did


@dataclass(frozen=True, slots=True)
class RoundEdges:
    """What was read before and after a round; None: the sampler did not answer."""

    begin: Edge | None
    end: Edge | None


def round_gpu(
    span_ns: tuple[int, int],
    samples: Sequence[Sample],
    states: Sequence[GpuState],
    edges: RoundEdges,
    *,
    gpus: Sequence[int],
    foreign: Iterable[int] = (),
) -> RoundGpu:
    """Sum up one round, from ``span_ns[0]`` to ``span_ns[1]``, on ``gpus``, given by their places.

    ``samples``: those of the round and, for the gap at its ends, the last before and the first after it. ``foreign``:
    processes that computed before the engine was loaded.
    """
    start_ns, end_ns = span_ns
    inside = [each for each in samples if start_ns <= each.stamp_ns <= end_ns]
    rows = [_of(gpus, each.gpu) for each in inside if each.gpu]
    alone = [[gpu] for gpu in gpus] if len(gpus) > 1 else []
    busy = [one for row in rows for one in row if not _idle(one)]
    used = [total for row in rows if (total := _total(row)) is not None]
    energy_j, energy_s, source = _energy(edges, samples, span_ns, gpus)
    return RoundGpu(
        window_s=(end_ns - start_ns) / 1e9,
        energy_j=energy_j,
        energy_s=energy_s,
        energy_source=source,
        peak_bytes=max(used, default=None),
        samples=sum(len(row) for row in rows),
        longest_gap_s=longest_gap_s(span_ns, [each.stamp_ns for each in samples]),
        sm_clocks_mhz=tuple(one.sm_clock_mhz for one in busy if one.sm_clock_mhz is not None),
        temperatures_c=tuple(one.temperature_c for row in rows for one in row if one.temperature_c is not None),
        reasons=_reasons(one for row in rows for one in row),
        foreign=_present(set(foreign), states, gpus),
        events=tuple((kind, code) for state in states for gpu, kind, code in state.events if gpu in gpus),
        ecc_errors=_ecc(edges, gpus),
        cpu_busy=_cpu(edges),
        swapped_bytes=_difference(edges, "swapped_bytes"),
        each=tuple(round_gpu(span_ns, samples, states, edges, gpus=gpu, foreign=foreign) for gpu in alone),
    )


def longest_gap_s(span_ns: tuple[int, int], stamps_ns: Sequence[int]) -> float:
    """The longest time within ``span_ns`` without a sample; the whole of it when there is none."""
    start_ns, end_ns = span_ns
    inside = [start_ns, *sorted(stamp for stamp in stamps_ns if start_ns <= stamp <= end_ns), end_ns]
    return max(later - earlier for earlier, later in pairwise(inside)) / 1e9


def energy_of_power_j(span_ns: tuple[int, int], stamps_ns: Sequence[int], power_w: Sequence[float]) -> float | None:
    """Trapezoids under ``power_w`` over ``span_ns``; the first and last sample count to its ends. None: no sample."""
    if not stamps_ns:
        return None
    start_ns, end_ns = span_ns
    times = np.array([start_ns, *np.clip(stamps_ns, start_ns, end_ns), end_ns], dtype=np.float64) / 1e9
    power = np.array([power_w[0], *power_w, power_w[-1]])
    return float(np.sum((power[1:] + power[:-1]) / 2 * np.diff(times)))


def _energy(
    edges: RoundEdges, samples: Sequence[Sample], span_ns: tuple[int, int], gpus: Sequence[int]
) -> tuple[float | None, float | None, Source | None]:
    counted = _counters_j(edges, gpus)
    if counted is not None and edges.begin and edges.end:
        return counted, (edges.end.stamp_ns - edges.begin.stamp_ns) / 1e9, "counter"
    known = [(each.stamp_ns, power) for each in samples if (power := _power_w(each, gpus)) is not None]
    known = [(stamp, power) for stamp, power in known if span_ns[0] <= stamp <= span_ns[1]]
    integral = energy_of_power_j(span_ns, [stamp for stamp, _ in known], [power for _, power in known])
    return (None, None, None) if integral is None else (integral, (span_ns[1] - span_ns[0]) / 1e9, "power samples")


def _counters_j(edges: RoundEdges, gpus: Sequence[int]) -> float | None:
    begin, end = edges.begin and edges.begin.energy_j, edges.end and edges.end.energy_j
    if not begin or not end:
        return None
    pairs = list(zip(_of(gpus, begin), _of(gpus, end), strict=True))
    passed = [after - before for before, after in pairs if before is not None and after is not None]
    return sum(passed) if len(passed) == len(pairs) and min(passed) >= 0 else None  # a driver loaded anew starts at 0


def _of(gpus: Sequence[int], values: Sequence[_Value]) -> list[_Value]:
    """The values of ``gpus``; none where nothing is told of any."""
    return [values[gpu] for gpu in gpus if gpu < len(values)]


def _power_w(sample: Sample, gpus: Sequence[int]) -> float | None:
    power = [one.power_w for one in _of(gpus, sample.gpu or ())]
    known = [each for each in power if each is not None]
    return sum(known) if known and len(known) == len(power) else None


def _total(row: Sequence[GpuReading]) -> int | None:
    used = [one.used_bytes for one in row if one.used_bytes is not None]
    return sum(used) if len(used) == len(row) else None


def _idle(reading: GpuReading) -> bool:
    return bool((reading.event_reasons or 0) & IDLE_BIT) or reading.sm_percent == 0


def _reasons(readings: Iterable[GpuReading]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in readings:
        found.update(name for bit, name in REASONS.items() if bit != IDLE_BIT and (one.event_reasons or 0) & bit)
    return dict(found)


def _present(foreign: set[int], states: Sequence[GpuState], gpus: Sequence[int]) -> tuple[int, ...]:
    seen = {pid for state in states for processes in _of(gpus, state.processes) for pid in processes or ()}
    return tuple(sorted(seen & foreign))


def _ecc(edges: RoundEdges, gpus: Sequence[int]) -> int | None:
    begin, end = edges.begin and edges.begin.ecc_uncorrected, edges.end and edges.end.ecc_uncorrected
    if not begin or not end:
        return None
    pairs = zip(_of(gpus, begin), _of(gpus, end), strict=True)
    known = [after - before for before, after in pairs if before is not None and after is not None]
    return sum(known) if known else None


def _cpu(edges: RoundEdges) -> float | None:
    busy_s, total_s = _difference(edges, "cpu_busy_s"), _difference(edges, "cpu_total_s")
    return busy_s / total_s if busy_s is not None and total_s else None


def _difference(edges: RoundEdges, name: str) -> Any:
    before, after = (getattr(edge, name) if edge else None for edge in (edges.begin, edges.end))
    return None if before is None or after is None else after - before


@dataclass(frozen=True, slots=True)
class CellEnergy:
    """Energy of a cell over its measured rounds; None where it is not known of every round."""

    energy_j: float | None
    average_power_w: float | None
    per_output_token_j: float | None
    per_request_j: float | None
    tokens_per_j: float | None
    source: str | None
    error: float | None  # a share of the energy, from the steps of the counters


def cell_energy(rounds: Sequence[RoundGpu], output_tokens: int | None, requests: int) -> CellEnergy:
    """Sums over sums. ``output_tokens``: of completed requests; None where a path does not tell."""
    energies = [each.energy_j for each in rounds if each.energy_j is not None]
    spans = [each.energy_s for each in rounds if each.energy_s]
    if not rounds or len(energies) < len(rounds) or len(spans) < len(rounds):
        return CellEnergy(*[None] * 7)
    total = sum(energies)
    return CellEnergy(
        energy_j=total,
        average_power_w=total / sum(spans),
        per_output_token_j=total / output_tokens if output_tokens else None,
        per_request_j=total / requests if requests else None,
        tokens_per_j=output_tokens / total if output_tokens and total else None,
        source=", ".join(sorted({each.energy_source for each in rounds if each.energy_source})),
        error=COUNTER_STEP_S * sum(each.energy_source == "counter" for each in rounds) / sum(spans),
    )
