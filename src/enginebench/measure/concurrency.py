"""How many requests of a round were under way at once, going by its stamps. Pure."""

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import RoundRecord


def in_flight(record: RoundRecord) -> int:
    """The most requests that were between their send and their end at once; 1 at least."""
    requests = record.requests
    known = (requests.sent_ns > 0) & (requests.last_ns > 0)
    return max(1, _most_at_once(requests.sent_ns[known], requests.last_ns[known]))


def computed_at_once(record: RoundRecord) -> int:
    """The most requests that were between their first and last token at once; 0 without streaming."""
    requests = record.requests
    known = (requests.first_ns > 0) & (requests.last_ns > requests.first_ns)
    return _most_at_once(requests.first_ns[known], requests.last_ns[known])


def _most_at_once(starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64]) -> int:
    steps = np.repeat([1, -1], len(starts_ns))
    order = np.lexsort((steps, np.concatenate([starts_ns, ends_ns])))  # of one moment: ends before beginnings
    return int(np.cumsum(steps[order]).max(initial=0))
