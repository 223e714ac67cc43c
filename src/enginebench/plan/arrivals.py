"""When the requests of an open loop leave: a pure function of the load and a generator. Standard library only.

A schedule holds exactly as many requests as its rate and its length make, so that what a round offers is what was asked
for, and not what one draw of few arrivals happens to give. Nothing here knows when a round starts, or how it goes.
"""

import math
import random
from collections.abc import Sequence
from itertools import accumulate

from enginebench.plan import draws
from enginebench.plan.load import Rate


def offsets_ns(load: Rate, source: random.Random) -> tuple[int, ...]:
    """When each request of a round leaves after its start, in order; at least one.

    ``source`` decides random arrivals, and nothing else.
    """
    offsets_s = _of_trace(load) if load.arrival == "trace" else [_time_s(load, at) for at in _positions(load, source)]
    return tuple(round(offset_s * 1e9) for offset_s in offsets_s)


def _of_trace(load: Rate) -> Sequence[float]:
    end_s = math.inf if load.duration_s is None else load.duration_s
    offsets_s = [time_s / load.speedup for time_s in load.times_s]
    return [offset_s for offset_s in offsets_s if offset_s < end_s][: load.requests]


def _positions(load: Rate, source: random.Random) -> Sequence[float]:
    """Arrivals at rate 1 between 0 and the number that is expected of the whole schedule.

    A constant schedule begins with an arrival. Random gaps are laid around a circle that is turned by a random part:
    exponential ones become a Poisson process of which the number of arrivals is known (places that are independent and
    uniform), and no beginning is more or less crowded than what follows.
    """
    expected = load.requests or load.level * load.length_s
    if load.arrival == "constant":
        return range(max(1, math.ceil(expected - 1e-9)))
    count = max(1, round(expected))
    shape = load.burstiness if load.arrival == "gamma" else 1.0
    gaps = [draws.exponential(source) if shape == 1 else draws.gamma(source, shape) for _ in range(count)]
    ends = list(accumulate(gaps))
    turn, total = source.random(), ends[-1] or 1.0  # very bursty gaps may all be too small for a float
    return sorted((end / total + turn) % 1.0 * expected for end in ends)


def _time_s(load: Rate, position: float) -> float:
    """When ``position`` requests are to have left: the inverse of the integral of the rate."""
    if load.ramp_to_per_s is None:
        return position / load.per_s
    slope = (load.ramp_to_per_s - load.per_s) / load.length_s
    now_per_s = math.sqrt(max(0.0, load.per_s * load.per_s + 2 * slope * position))
    return 2 * position / (load.per_s + now_per_s)
