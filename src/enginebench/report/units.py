"""How numbers are written: units, digits, signs. Seconds become milliseconds and bytes MiB here alone.

Strings out, nothing else: what a number means is not known here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from enginebench.decide.changes import MINUS, percent

__all__ = ["DASH", "GIB", "MIB", "MINUS", "Scale", "count", "percent", "scale_for", "size", "span", "times"]

DASH = "—"
GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Scale:
    """One unit and one number of decimals for values that are read together, such as a column."""

    symbol: str  # "ms", "MiB"; empty where the title says it
    factor: float
    decimals: int

    def number(self, value: float) -> str:
        """``value`` (seconds, bytes or a plain number) without its unit."""
        return f"{value * self.factor:,.{self.decimals}f}".replace("-", MINUS)

    def text(self, value: float) -> str:
        """``value`` with its unit."""
        return f"{self.number(value)} {self.symbol}".rstrip()

    def signed(self, value: float) -> str:
        """A difference with its sign and unit."""
        return f"{'+' if value >= 0 else ''}{self.text(value)}"


def scale_for(unit: str, values: Iterable[float | None]) -> Scale:
    """A scale on which the smallest of ``values`` can be read to about 0.3%; ``unit`` is that of ``run.json``."""
    known = [abs(value) for value in values if value is not None and math.isfinite(value) and value != 0]
    symbol, factor = _symbol(unit, known)
    if unit == "bytes":
        return Scale(symbol, factor, 2 if symbol == "GiB" else 0)
    if unit == "fraction":
        return Scale(symbol, factor, 1)
    return Scale(symbol, factor, _decimals(min(known) * factor) if known else 1)


def times(ratio: float) -> str:
    """A factor: ``6.1×``."""
    return f"{ratio:.{1 if ratio < 20 else 0}f}×"


def size(size_bytes: float) -> str:
    """A single amount of memory, with its unit."""
    return scale_for("bytes", [size_bytes]).text(size_bytes)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 cell``, ``2 cells``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def span(duration_s: float) -> str:
    """How long a run took: ``48 s``, ``3 min 44 s``, ``2 h 05 min``."""
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _symbol(unit: str, known: list[float]) -> tuple[str, float]:
    if unit == "s":
        return ("s", 1.0) if known and min(known) >= 0.1 else ("ms", 1e3)
    if unit == "fraction":
        return "%", 100.0
    if unit == "bytes":
        return ("GiB", 1 / GIB) if known and max(known) >= GIB else ("MiB", 1 / MIB)
    return "", 1.0


def _decimals(smallest: float) -> int:
    return min(3, max(0, math.ceil(2.2 - math.log10(smallest))))
