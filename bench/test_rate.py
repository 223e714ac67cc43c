"""Open loops: requests leave when the schedule says so, whatever became of those before them."""

from collections.abc import Callable

import pytest


@pytest.mark.loads("rate")
def test_rate(measure: Callable[[], None]) -> None:
    measure()
