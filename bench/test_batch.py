"""Static batches: B requests at once, the next B when all are done."""

from collections.abc import Callable

import pytest


@pytest.mark.loads("batch")
def test_batch(measure: Callable[[], None]) -> None:
    measure()
