"""Closed loops: so many requests in flight, each followed by the next when it ends."""

from collections.abc import Callable

import pytest


@pytest.mark.loads("concurrency")
def test_concurrency(measure: Callable[[], None]) -> None:
    measure()
