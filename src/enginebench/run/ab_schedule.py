"""In which order two builds take turns, and with which seeds. Pure."""

from typing import Literal, TypeAlias

Side: TypeAlias = Literal["old", "new"]

SIDES: tuple[Side, Side] = ("old", "new")
SEEDS = 2**31
_STRIDE = 1_000_003  # prime: seeds of one measurement do not meet those of a scenario with the next seed


def turns(pair: int) -> tuple[Side, Side]:
    """Who goes first in a pair: ABBA, so that a steady drift cancels over two pairs."""
    return SIDES if pair % 2 == 0 else (SIDES[1], SIDES[0])


def pair_seed(base: int, pair: int) -> int | None:
    """The seed that both blocks of a pair share; None: that of the scenario, as pair 0 does what a plain run does."""
    return (base + _STRIDE * pair) % SEEDS if pair else None
