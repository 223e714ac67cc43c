"""Random numbers that are the same on every machine and under every version of Python.

Made from ``Random.random()`` alone: the one method whose numbers Python promises to keep.
"""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def generator(*parts: object) -> random.Random:
    """A generator of its own for each use, named by ``parts``, so that no draw depends on how many came before it."""
    return random.Random("/".join(map(str, parts)))


def normal(source: random.Random) -> float:
    """A standard normal number (Box and Muller)."""
    radius = math.sqrt(-2 * math.log(1 - source.random()))
    return radius * math.cos(2 * math.pi * source.random())


def exponential(source: random.Random) -> float:
    """An exponential number of mean 1."""
    return -math.log(1 - source.random())


def gamma(source: random.Random, shape: float) -> float:
    """A gamma number of ``shape`` (more than 0) and scale 1: Marsaglia and Tsang, "A simple method", 2000."""
    if shape < 1:
        return gamma(source, shape + 1) * float((1 - source.random()) ** (1 / shape))
    d = shape - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = normal(source)
        v = (1 + c * x) ** 3
        if v > 0 and math.log(1 - source.random()) < x * x / 2 + d - d * v + d * math.log(v):
            return d * v


def shuffled(source: random.Random, values: Sequence[_T]) -> tuple[_T, ...]:
    """``values`` in a random order (Fisher and Yates)."""
    order = list(values)
    for last in range(len(order) - 1, 0, -1):
        other = int(source.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return tuple(order)
