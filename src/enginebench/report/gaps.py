"""One pass over the arrivals of a cell: gaps between them, tokens over time, the stamps of chosen requests.

Holds one stamp per request and the part in hand, never all arrivals.
"""

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import UNKNOWN, RoundRecord, Stamps
from enginebench.report.quantiles import Counts, Floats, Histogram
from enginebench.store_tables import Arrivals

Flags = NDArray[np.bool_]


class RoundPass:
    """The arrivals of one round. ``counted`` and ``chosen``: by row of the round's requests, shape (requests,)."""

    def __init__(self, record: RoundRecord, counted: Flags, chosen: Flags):
        index = record.requests.index
        self._row = np.zeros(int(index.max(initial=0)) + 1, dtype=np.int32)
        self._row[index] = np.arange(len(index), dtype=np.int32)
        self._last_ns: Stamps = np.zeros(len(index), dtype=np.int64)
        self._counted = counted
        self._chosen = chosen
        self._stamps: dict[int, list[Stamps]] = {}

    def add(self, part: Arrivals, gaps: "Gaps") -> None:
        """Take in the next ``part`` of the round."""
        order, rows = self._by_request(self._row[part.request])
        stamps, tokens = part.stamp_ns[order], part.tokens[order]
        first = np.append(True, rows[1:] != rows[:-1])  # of its request in this part
        before = np.empty_like(stamps)
        before[1:] = stamps[:-1]
        before[first] = self._last_ns[rows[first]]
        last = np.append(first[1:], True)
        self._last_ns[rows[last]] = stamps[last]
        followed = (before > 0) & self._counted[rows]
        gaps.add((stamps - before)[followed], tokens[followed])
        self._keep(rows, stamps)

    def stamps_of(self, row: int) -> Stamps:
        """Every arrival of a chosen request."""
        return np.concatenate(self._stamps.get(row) or [np.zeros(0, dtype=np.int64)])

    def _keep(self, rows: NDArray[np.int32], stamps: Stamps) -> None:
        wanted = np.flatnonzero(self._chosen[rows])
        for row in np.unique(rows[wanted]):
            self._stamps.setdefault(int(row), []).append(stamps[wanted[rows[wanted] == row]])

    @staticmethod
    def _by_request(rows: NDArray[np.int32]) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
        """An order that keeps requests together and each one's arrivals as they came; and the rows in it."""
        low = rows.min()
        if rows.max() - low < 1 << 16:  # numpy sorts 16 bits ten times as fast
            order = np.argsort((rows - low).astype(np.uint16), kind="stable")
        else:
            order = np.argsort(rows, kind="stable")
        return order, rows[order]


class Gaps:
    """What all rounds add up to. ``tokens``: whether gaps per token make sense: every arrival says what it carried."""

    def __init__(self) -> None:
        self.chunk_gap = Histogram()
        self.itl = Histogram()
        self.tokens_known = True

    def add(self, gaps_ns: Stamps, tokens: NDArray[np.int32]) -> None:
        """Count the gap before each of some arrivals."""
        if not len(gaps_ns):
            return
        gaps_s = (np.maximum(gaps_ns, 0) / 1e9).astype(np.float32)
        self.chunk_gap.add(gaps_s)
        least, most = int(tokens.min()), int(tokens.max())
        self.tokens_known &= least != UNKNOWN
        if least == most == 1:
            self.itl.add(gaps_s)
        elif least > 0:
            self.itl.add(gaps_s / tokens.astype(np.float32), tokens)


class TokensOverTime:
    """Output tokens that arrived in each of the bins between ``edges_ns`` (evenly spaced)."""

    def __init__(self, edges_ns: Floats):
        self._start_ns = edges_ns[0]
        self._width_ns = edges_ns[1] - edges_ns[0]
        self._counts: Counts = np.zeros(len(edges_ns) - 1, dtype=np.int64)
        self.known = True

    def add(self, part: Arrivals) -> None:
        """Count the tokens of ``part``."""
        places = ((part.stamp_ns - self._start_ns) / self._width_ns).astype(np.int64)
        places = np.clip(places, 0, len(self._counts) - 1)
        self.known &= int(part.tokens.min()) != UNKNOWN
        self._counts += np.bincount(places, part.tokens, len(self._counts)).astype(np.int64)

    @property
    def counts(self) -> Counts | None:
        """Tokens by bin; None where an arrival did not say what it carried."""
        return self._counts if self.known else None
