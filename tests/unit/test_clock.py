"""The clock: the offset between the two clocks, its error, and steps."""

import time

from hypothesis import given
from hypothesis import strategies as st

from enginebench.clock import RealtimeOffset, measure_offset, now_ns


class Clocks:
    """Two clocks with a known difference; each reading takes the next of ``costs_ns``, over and over."""

    def __init__(self, difference_ns: int, costs_ns: list[int]):
        self._difference_ns = difference_ns
        self._costs_ns = costs_ns
        self._readings = 0
        self._now_ns = 1_000

    def monotonic(self) -> int:
        self._now_ns += self._costs_ns[self._readings % len(self._costs_ns)]
        self._readings += 1
        return self._now_ns

    def realtime(self) -> int:
        return self.monotonic() + self._difference_ns


def test_now_is_the_monotonic_clock() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = now_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@given(
    st.integers(-(10**18), 10**18),
    st.lists(st.integers(0, 10**7), min_size=1, max_size=20),
    st.integers(1, 10),
)
def test_the_true_offset_lies_within_the_error(difference_ns: int, costs_ns: list[int], tries: int) -> None:
    clocks = Clocks(difference_ns, costs_ns)
    offset = measure_offset(clocks.monotonic, clocks.realtime, tries)
    assert abs(offset.offset_ns - difference_ns) <= offset.error_ns


def test_the_narrowest_bracket_wins() -> None:
    clocks = Clocks(10**9, [0, 900_000, 900_000, 0, 100, 100, 0, 50_000, 50_000])
    assert measure_offset(clocks.monotonic, clocks.realtime, tries=3).error_ns == 100


def test_two_measurements_of_this_machine_agree() -> None:
    before = measure_offset()
    assert not before.stepped(measure_offset())
    stamp_ns = before.to_monotonic(time.clock_gettime_ns(time.CLOCK_REALTIME))
    assert before.measured_ns - before.error_ns <= stamp_ns <= now_ns() + before.error_ns


def test_a_step_is_told_from_a_bad_measurement() -> None:
    good = RealtimeOffset(offset_ns=10**18, error_ns=200, measured_ns=0)
    assert not good.stepped(RealtimeOffset(10**18 + 40_000, error_ns=50_000, measured_ns=10**9))
    assert good.stepped(RealtimeOffset(10**18 + 2_000_000, error_ns=50_000, measured_ns=10**9))
    assert good.stepped(RealtimeOffset(10**18 - 2_000, error_ns=200, measured_ns=10**9))
