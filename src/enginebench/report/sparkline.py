"""A row of numbers as a row of block characters of eight heights: ``▂▃▅▇``. Strings out, nothing else."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"
GAP = "·"
_MIDDLE = BARS[3]


def sparkline(values: Iterable[float | None], *, low: float | None = None, width: int = 0) -> str:
    """``values`` between ``low`` (default: the least) and the greatest; ``None`` and what is not finite are gaps.

    ``width``: more values than this are thinned to it, each place showing the greatest of its values.
    """
    numbers = [math.nan if value is None or not math.isfinite(value) else value for value in values]
    shown = _thinned(numbers, width) if 0 < width < len(numbers) else numbers
    known = [value for value in shown if not math.isnan(value)]
    if not known:
        return GAP * len(shown)
    least, most = min(known) if low is None else low, max(known)
    return "".join(GAP if math.isnan(value) else _bar(value, least, most) for value in shown)


def _bar(value: float, least: float, most: float) -> str:
    if most <= least:
        return _MIDDLE  # all alike: neither low nor high
    return BARS[min(len(BARS) - 1, max(0, int((value - least) / (most - least) * len(BARS))))]


def _thinned(numbers: Sequence[float], width: int) -> list[float]:
    cuts = [place * len(numbers) // width for place in range(width + 1)]
    groups = [[value for value in numbers[start:end] if not math.isnan(value)] for start, end in pairwise(cuts)]
    return [max(group, default=math.nan) for group in groups]
