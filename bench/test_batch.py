"""Static batches: B requests at once, the next B when all are done."""

from collections.abc import Callable


def test_batch(measure: Callable[[], None]) -> None:
    measure()
