"""Arrival times: pure, seeded, and as many as were asked for, as evenly or as bursty as was asked for."""

import random
from dataclasses import replace
from itertools import pairwise
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.plan.arrivals import offsets_ns
from enginebench.plan.load import Arrival, Rate, load_from_json, load_of_label, load_to_json

rates = st.floats(0.5, 500)
shapes = st.floats(0.2, 20)
seeds = st.integers(0, 2**32)


def loads() -> st.SearchStrategy[Rate]:
    drawn = st.builds(
        Rate,
        rates,
        st.sampled_from(["constant", "poisson", "gamma"]),
        shapes,
        st.none() | rates,
    )
    limits = st.tuples(st.integers(1, 200), st.none()) | st.tuples(st.none(), st.floats(0.01, 0.5))
    return st.builds(lambda load, limit: replace(load, requests=limit[0], duration_s=limit[1]), drawn, limits)


def offsets_s(load: Rate, seed: int = 0) -> list[float]:
    return [offset / 1e9 for offset in offsets_ns(load, random.Random(seed))]


def gaps(load: Rate, seed: int = 0) -> list[float]:
    return [later - earlier for earlier, later in pairwise(offsets_s(load, seed))]


@given(loads(), seeds)
def test_the_same_seed_gives_the_same_times_in_order(load: Rate, seed: int) -> None:
    times = offsets_s(load, seed)
    assert times == offsets_s(load, seed)
    assert times == sorted(times)
    assert times[0] >= 0
    assert len(times) == load.requests if load.requests else len(times) >= 1
    if load.duration_s:
        assert max(times[1:], default=0) < load.duration_s


@given(loads(), seeds)
def test_only_random_arrivals_know_the_seed(load: Rate, seed: int) -> None:
    same = offsets_ns(load, random.Random(seed)) == offsets_ns(load, random.Random(seed + 1))
    assert same == (load.arrival == "constant")


def test_the_times_never_change() -> None:
    """Pinned: a change of these numbers makes stored runs incomparable."""
    poisson = offsets_ns(Rate(4, requests=4), random.Random(7))
    gamma = offsets_ns(Rate(4, "gamma", 0.5, requests=4), random.Random(7))
    assert [offset // 1000 for offset in poisson] == [491190, 535882, 768458, 865644]
    assert [offset // 1000 for offset in gamma] == [73026, 106494, 321897, 627433]


@given(rates, st.integers(1, 100))
def test_constant_arrivals_are_even_and_begin_at_once(per_s: float, requests: int) -> None:
    times = offsets_s(Rate(per_s, "constant", requests=requests))
    assert times == pytest.approx([index / per_s for index in range(requests)], abs=1e-9)


@pytest.mark.parametrize(("arrival", "shape"), [("poisson", 1.0), ("gamma", 0.3), ("gamma", 1.0), ("gamma", 4.0)])
def test_the_mean_rate_and_the_burstiness_are_those_asked_for(arrival: Arrival, shape: float) -> None:
    found = gaps(Rate(50, arrival, shape, requests=40_000), seed=3)
    assert fmean(found) == pytest.approx(1 / 50, rel=0.04)
    assert pvariance(found) * 50**2 == pytest.approx(1 / shape, rel=0.1)  # of a gamma distribution with mean 1


@given(loads(), seeds)
def test_a_schedule_offers_exactly_the_rate_that_was_asked_for(load: Rate, seed: int) -> None:
    times = offsets_s(load, seed)
    expected = load.requests or load.level * load.length_s
    assert abs(len(times) - max(1.0, expected)) <= (1.0 if load.arrival == "constant" else 0.5)
    assert max(times) < load.length_s + 1e-8 or len(times) == 1


@pytest.mark.parametrize(("arrival", "shape"), [("poisson", 1.0), ("gamma", 0.3), ("gamma", 5.0)])
def test_no_part_of_a_schedule_is_more_crowded_than_another(arrival: Arrival, shape: float) -> None:
    times = [time for seed in range(400) for time in offsets_s(Rate(10, arrival, shape, duration_s=2), seed)]
    for part in range(4):
        assert sum(part / 2 <= time < (part + 1) / 2 for time in times) == pytest.approx(2000, rel=0.08)


@given(rates, rates, st.integers(2, 200))
def test_a_ramp_is_the_integral_of_its_rate(start: float, end: float, requests: int) -> None:
    load = Rate(start, "constant", ramp_to_per_s=end, requests=requests)
    length_s = load.length_s
    assert length_s * (start + end) / 2 == pytest.approx(requests)
    for number, at_s in enumerate(offsets_s(load)):
        integral = start * at_s + (end - start) * at_s**2 / (2 * length_s)
        assert integral == pytest.approx(number, rel=1e-6, abs=1e-5)


@given(loads(), seeds)
def test_a_flat_ramp_is_no_ramp(load: Rate, seed: int) -> None:
    flat, ramp = replace(load, ramp_to_per_s=None), replace(load, ramp_to_per_s=load.per_s)
    assert offsets_s(ramp, seed) == pytest.approx(offsets_s(flat, seed), rel=1e-9, abs=1e-8)


TRACE = (0.0, 0.5, 0.5, 4.0)


@given(st.floats(0.1, 100))
def test_a_trace_is_as_recorded_but_for_the_speed_up(speedup: float) -> None:
    load = Rate(3 / 4 * speedup, "trace", trace="t.jsonl", speedup=speedup, times_s=TRACE)
    assert offsets_s(load) == pytest.approx([time / speedup for time in TRACE], abs=1e-9)


def test_a_trace_can_be_cut() -> None:
    load = Rate(0.75, "trace", times_s=TRACE)
    assert offsets_s(replace(load, requests=2)) == [0, 0.5]
    assert offsets_s(replace(load, duration_s=4.0)) == [0, 0.5, 0.5]


@given(loads())
def test_a_load_survives_json_and_its_label_tells_its_level(load: Rate) -> None:
    data = load_to_json(load)
    assert load_from_json(data) == load
    known = load_of_label(load.label)
    assert (known["kind"], known["label"]) == ("rate", load.label)
    assert known["level"] == pytest.approx(load.level, abs=0.01)
