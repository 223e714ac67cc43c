"""The one clock: CLOCK_MONOTONIC in nanoseconds, which the processes of a host share; and the way to it.

The kernel stamps what a socket receives in CLOCK_REALTIME. Both clocks are slewed alike, so that their difference
stays the same until somebody sets the time or the host sleeps: a changed difference is a step. Does no sleeping,
formats no times.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

now_ns = time.monotonic_ns
"""Nanoseconds of CLOCK_MONOTONIC, now."""

_TRIES = 9
_STEP_FLOOR_NS = 1_000  # differences below this are rounding, and too small to matter


def realtime_ns() -> int:
    """Nanoseconds of CLOCK_REALTIME, now."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


@dataclass(frozen=True, slots=True)
class RealtimeOffset:
    """What CLOCK_REALTIME showed more than CLOCK_MONOTONIC at one moment."""

    offset_ns: int
    error_ns: int  # the offset is right to this much
    measured_ns: int  # CLOCK_MONOTONIC

    def to_monotonic(self, realtime_stamp_ns: int) -> int:
        """Map a stamp of CLOCK_REALTIME to CLOCK_MONOTONIC."""
        return realtime_stamp_ns - self.offset_ns

    def stepped(self, other: "RealtimeOffset") -> bool:
        """Whether a clock jumped between the two measurements: they differ by more than their errors explain."""
        return abs(self.offset_ns - other.offset_ns) > self.error_ns + other.error_ns + _STEP_FLOOR_NS


def measure_offset(
    monotonic: Callable[[], int] = now_ns, realtime: Callable[[], int] = realtime_ns, tries: int = _TRIES
) -> RealtimeOffset:
    """Read one clock between two reads of the other; of a few tries the narrowest wins, half its width is the error."""
    return min((_bracket(monotonic, realtime) for _ in range(tries)), key=lambda offset: offset.error_ns)


def _bracket(monotonic: Callable[[], int], realtime: Callable[[], int]) -> RealtimeOffset:
    before = monotonic()
    between = realtime()
    after = monotonic()
    middle = (before + after) // 2
    return RealtimeOffset(between - middle, (after - before + 1) // 2, middle)
