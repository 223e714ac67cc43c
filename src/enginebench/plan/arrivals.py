"""When the requests of an open loop leave: a pure function of the load and a generator. Standard library only.

An arrival process of rate 1 is drawn once and stretched to the rate that was asked for, so that a ramp keeps the
burstiness of its gaps. Nothing here knows when a round starts, or how it goes.
"""

import math
import random
from collections.abc import Iterator
from itertools import islice, takewhile

from enginebench.plan import draws
from enginebench.plan.load import Rate


def offsets_ns(load: Rate, source: random.Random) -> tuple[int, ...]:
    """When each request of a round leaves after its start, in order; at least one.

    ``source`` decides random arrivals, and nothing else. With ``requests`` there are exactly so many, with
    ``duration_s`` those that fall within it (the first one in any case).
    """
    offsets_s = _trace(load) if load.arrival == "trace" else _drawn(load, source)
    first = next(offsets_s)
    if load.duration_s is not None:
        end_s = load.duration_s
        offsets_s = takewhile(lambda offset_s: offset_s < end_s, offsets_s)
    if load.requests is not None:
        offsets_s = islice(offsets_s, load.requests - 1)
    return tuple(round(offset_s * 1e9) for offset_s in (first, *offsets_s))


def _trace(load: Rate) -> Iterator[float]:
    return (time_s / load.speedup for time_s in load.times_s)


def _drawn(load: Rate, source: random.Random) -> Iterator[float]:
    return (_time_s(load, arrived) for arrived in _unit_arrivals(load, source))


def _unit_arrivals(load: Rate, source: random.Random) -> Iterator[float]:
    """Arrivals of rate 1, in equilibrium from the start: in any span of time their mean number is its length.

    The way to the first arrival is what is left of a gap that is under way, which is longer than others: its density
    is weighted with its length (Cox, "Renewal theory", 1962, 5.4). A constant schedule begins with an arrival.
    """
    if load.arrival == "constant":
        yield from map(float, range(2**53))
    shape = load.burstiness if load.arrival == "gamma" else 1.0
    arrived = source.random() * draws.gamma(source, shape + 1) / shape
    while True:
        yield arrived
        arrived += draws.exponential(source) if load.arrival == "poisson" else draws.gamma(source, shape) / shape


def _time_s(load: Rate, arrived: float) -> float:
    """When ``arrived`` requests are to have left: the inverse of the integral of the rate."""
    if load.ramp_to_per_s is None:
        return arrived / load.per_s
    length_s, start, end = load.length_s, load.per_s, load.ramp_to_per_s
    on_the_ramp = load.level * length_s
    if arrived >= on_the_ramp:  # a count that is reached late: the rate stays where the ramp ended
        return length_s + (arrived - on_the_ramp) / end
    slope = (end - start) / length_s
    return 2 * arrived / (start + math.sqrt(start * start + 2 * slope * arrived))
