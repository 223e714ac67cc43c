"""Energy, clocks and company of a round, against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.measure.energy import RoundEdges, RoundGpu, cell_energy, energy_of_power_j, longest_gap_s, round_gpu
from enginebench.measure.gpu_trace import Edge, GpuState
from enginebench.measure.telemetry import Sample
from tests.support.gpu_traces import BUSY, IDLE, reading

S = 10**9


def edge(second: float, *energy_j: float | None, ecc: int = 0, busy_s: float = 0.0, swapped: int = 0) -> Edge:
    return Edge(round(second * S), "round", energy_j or None, (ecc,) * len(energy_j) or None, busy_s, second, swapped)


NO_EDGES = RoundEdges(None, None)


def samples(*readings: object, start: float = 1.0, step: float = 1.0) -> list[Sample]:
    gpus = [each if isinstance(each, tuple) else (each,) for each in readings]
    return [Sample(round((start + place * step) * S), {}, gpu) for place, gpu in enumerate(gpus)]


def test_energy_is_the_difference_of_the_counters_of_the_gpus_that_are_used() -> None:
    edges = RoundEdges(edge(0.5, 100.0, 7.0), edge(4.5, 1300.0, 900.0))
    one = round_gpu((S, 4 * S), samples((BUSY, IDLE)), [], edges, gpus=[0])
    assert (one.energy_j, one.energy_s, one.energy_source) == (1200.0, 4.0, "counter")
    assert round_gpu((S, 4 * S), [], [], edges, gpus=[0, 1]).energy_j == 1200.0 + 893.0


def test_each_of_several_gpus_is_summed_up_alone_too() -> None:
    edges = RoundEdges(edge(0.5, 100.0, 7.0), edge(4.5, 1300.0, 900.0))
    both = round_gpu((S, 4 * S), samples((BUSY, reading(5, event_reasons=4))), [], edges, gpus=[0, 1])
    assert both.reasons == {"power cap": 1}
    assert [one.energy_j for one in both.each] == [1200.0, 893.0]
    assert [one.reasons for one in both.each] == [{}, {"power cap": 1}]
    assert [one.peak_bytes for one in both.each] == [BUSY.used_bytes, 5]
    assert round_gpu((S, 4 * S), samples((BUSY, IDLE)), [], edges, gpus=[1]).each == ()


def test_without_a_counter_it_is_the_integral_of_power_and_says_so() -> None:
    heard = samples(reading(1, power_w=100.0), reading(1, power_w=300.0), reading(1, power_w=300.0))
    found = round_gpu((S, 4 * S), heard, [], RoundEdges(edge(0.5), edge(4.5)), gpus=[0])
    assert (found.energy_j, found.energy_s, found.energy_source) == (200 + 300 + 300, 3.0, "power samples")


@pytest.mark.parametrize("edges", [NO_EDGES, RoundEdges(edge(0, 900.0), edge(5, 3.0)), RoundEdges(edge(0, None), None)])
def test_what_nobody_tells_is_none_and_never_zero(edges: RoundEdges) -> None:
    found = round_gpu((S, 4 * S), samples(reading(None, power_w=None, sm_clock_mhz=None)), [], edges, gpus=[0])
    assert (found.energy_j, found.energy_source, found.peak_bytes) == (None, None, None)
    assert found.sm_clocks_mhz == ()
    assert cell_energy([found], 10, 1).per_output_token_j is None


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=30), st.floats(0.1, 50))
def test_energy_of_power_lies_between_its_extremes(power_w: list[float], length_s: float) -> None:
    end_ns = round(length_s * S)
    stamps = [place * end_ns // len(power_w) for place in range(len(power_w))]
    joules = energy_of_power_j((0, end_ns), stamps, power_w)
    assert joules is not None
    assert min(power_w) * length_s * (1 - 1e-6) <= joules <= max(power_w) * length_s * (1 + 1e-6)
    assert energy_of_power_j((0, end_ns), [], []) is None


def test_only_samples_of_the_round_count_and_clocks_only_while_it_computes() -> None:
    heard = samples(reading(9), reading(5, sm_clock_mhz=1500), IDLE, reading(7, event_reasons=4), reading(8))
    found = round_gpu((2 * S, 4 * S), heard, [], NO_EDGES, gpus=[0])
    assert found.samples == 3
    assert found.peak_bytes == IDLE.used_bytes
    assert found.sm_clocks_mhz == (1500, 1980)
    assert found.reasons == {"power cap": 1}


def test_company_events_and_counters_of_the_host() -> None:
    states = [GpuState(2 * S, ({7: 1, 8: 2}, {9: 1}), ((0, "xid", 31), (1, "xid", 48)))]
    edges = RoundEdges(edge(0, 1.0), edge(10, 2.0, ecc=2, busy_s=4.0, swapped=5))
    found = round_gpu((S, 4 * S), samples(BUSY), states, edges, gpus=[0], foreign=(7, 9, 11))
    assert (found.foreign, found.events) == ((7,), (("xid", 31),))
    assert (found.ecc_errors, found.cpu_busy, found.swapped_bytes) == (2, 0.4, 5)


@pytest.mark.parametrize(
    ("stamps", "gap_s"), [([], 10.0), ([0, 10], 10.0), ([1, 2, 9], 7.0), ([4, 5, 6], 4.0), ([-5, 20, 5], 5.0)]
)
def test_gaps_reach_to_the_ends_of_the_round(stamps: list[int], gap_s: float) -> None:
    assert longest_gap_s((0, 10 * S), [stamp * S for stamp in stamps]) == gap_s


def test_a_cell_sums_its_rounds() -> None:
    rounds = [RoundGpu(1.0, 100.0, 1.0, "counter"), RoundGpu(3.0, 500.0, 3.0, "counter")]
    found = cell_energy(rounds, 300, 6)
    assert (found.average_power_w, found.per_output_token_j, found.per_request_j) == (150.0, 2.0, 100.0)
    assert (found.tokens_per_j, found.source) == (0.5, "counter")
    assert found.error == pytest.approx(0.2 / 4)
    assert cell_energy(rounds, None, 6).per_output_token_j is None
    assert cell_energy([*rounds, RoundGpu(1.0)], 300, 6).energy_j is None
    assert cell_energy([], 300, 6).energy_j is None
