"""Where the words beside the points of curves stand, so that they cover neither each other, nor a point, nor a line.

In the pixels of a wide page; a narrow one shows no such words. Points that leave no room get none.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

Spot = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""

WIDTH_PX, HEIGHT_PX = 1100.0, 300.0
LETTER_PX, LINE_PX = 7.0, 14.0
POINT_PX = 10.0
"""Half the side of what a point and the ring around it take."""
STROKE_PX = 2.0
"""The same of a line, which is as many small boxes."""
BELOW_THE_AXIS: Box = (-math.inf, -math.inf, math.inf, 0.0)
"""Where its own numbers are."""
PLACES = {"top right": (1, 1), "bottom left": (-1, -1), "top left": (-1, 1), "bottom right": (1, -1)}
"""As plotly.js calls them, the best first: directions right and up."""


def places(curves: Sequence[Sequence[Spot]], words: Sequence[Sequence[str]], *, log_x: bool) -> list[list[str]]:
    """A place for the words of each point of each curve, or nothing where all are taken.

    ``curves``: x and y of their points; y begins at zero. Words rather cross a line than that there are none.
    """
    drawn = _drawn(curves, log_x)
    taken = [BELOW_THE_AXIS, *(_around(spot, POINT_PX) for curve in drawn for spot in curve)]
    lines = [_around(spot, STROKE_PX) for curve in drawn for pair in pairwise(curve) for spot in _between(*pair)]
    return [
        [_place(spot, word, taken, lines) for spot, word in zip(curve, texts, strict=True)]
        for curve, texts in zip(drawn, words, strict=True)
    ]


def _drawn(curves: Sequence[Sequence[Spot]], log_x: bool) -> list[list[Spot]]:
    """The curves in pixels."""
    points = [(math.log(x) if log_x else x, y) for curve in curves for x, y in curve]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    highest = max(y for _, y in points)
    placed = iter(((x - left) / (right - left or 1.0) * WIDTH_PX, y / (highest or 1.0) * HEIGHT_PX) for x, y in points)
    return [[next(placed) for _ in curve] for curve in curves]


def _between(start: Spot, end: Spot) -> Iterator[Spot]:
    steps = math.ceil(math.dist(start, end) / (2 * STROKE_PX)) or 1
    for step in range(steps + 1):
        yield tuple(one + (two - one) * step / steps for one, two in zip(start, end, strict=True))  # type: ignore[misc]


def _around(spot: Spot, reach_px: float) -> Box:
    x, y = spot
    return x - reach_px, y - reach_px, x + reach_px, y + reach_px


def _place(spot: Spot, word: str, taken: list[Box], lines: Sequence[Box]) -> str:
    """The first free place, which is taken then."""
    others = [box for box in taken if box != _around(spot, POINT_PX)]
    for obstacles in ((*others, *lines), others):
        for name, way in PLACES.items():
            box = _beside(spot, word, way)
            if not any(_overlap(box, other) for other in obstacles):
                taken.append(box)
                return name
    return ""


def _beside(spot: Spot, word: str, way: tuple[int, int]) -> Box:
    (x, y), (right, up) = spot, way
    near_x, far_x = x + right * POINT_PX / 2, x + right * (POINT_PX / 2 + LETTER_PX * len(word))
    near_y, far_y = y + up * POINT_PX / 2, y + up * (POINT_PX / 2 + LINE_PX)
    return min(near_x, far_x), min(near_y, far_y), max(near_x, far_x), max(near_y, far_y)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
