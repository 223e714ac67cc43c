"""Which part of a round counts: the requests between its trimmed ends, and the window in which its load was steady.

Pure: a record in, a part of it or two stamps out. What is computed from them is in ``metrics``.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import RequestTable, RoundRecord, columns
from enginebench.plan.load import Concurrency, Load, Rate, Trim, load_from_json

NO_TRIM = Trim()


def counted(record: RoundRecord, trim: Trim = NO_TRIM) -> RoundRecord:
    """``record`` with the requests that were to leave between its trimmed ends; chunks stay."""
    if trim == NO_TRIM:
        return record
    start_ns, end_ns = _trimmed(record, trim)
    keep = (record.requests.intended_ns >= start_ns) & (record.requests.intended_ns <= end_ns)
    return replace(record, requests=_rows(record.requests, keep))


def batch_windows_s(record: RoundRecord) -> float | None:
    """Time in which a batch was under way, from its release to its last token; None for other loads, and failures."""
    requests = record.requests
    if record.load["kind"] != "batch" or not requests.ok.all():
        return None
    released, batch = np.unique(requests.intended_ns, return_inverse=True)
    ended = np.zeros_like(released)
    np.maximum.at(ended, batch, requests.last_ns)
    return float((ended - released).sum() / 1e9)


def steady_window_ns(record: RoundRecord, trim: Trim = NO_TRIM) -> tuple[int, int] | None:
    """From when to when the load of a round was what was asked for; None when it never was, or a request failed.

    Concurrency: from when all places are filled to the first end that no release follows. Rate: from the first end to
    the last release of the schedule. Batches have such a window only between trimmed ends.
    """
    if not len(record.requests) or not record.requests.ok.all():
        return None
    load = load_from_json(record.load)
    if not isinstance(load, Concurrency | Rate) and trim == NO_TRIM:
        return None
    window = _steady(record, load)
    if window is None:
        return None
    start_ns, end_ns = _trimmed(record, trim)
    if isinstance(load, Concurrency) and not (trim.cooldown_s or trim.cooldown_share):
        end_ns = window[1]  # the last answers begin with the last release: they are a part of the steady load
    start_ns, end_ns = max(window[0], start_ns), min(window[1], end_ns)
    return (start_ns, end_ns) if start_ns < end_ns else None


def _steady(record: RoundRecord, load: Load) -> tuple[int, int] | None:
    requests = record.requests
    ends = np.sort(requests.last_ns)
    if isinstance(load, Concurrency):
        if len(requests) < load.level:
            return None
        return int(np.sort(requests.sent_ns)[load.level - 1]), int(ends[len(ends) - load.level])
    start_ns = ends[0] if isinstance(load, Rate) else requests.intended_ns.min()
    return int(start_ns), int(requests.intended_ns.max())


def _trimmed(record: RoundRecord, trim: Trim) -> tuple[int, int]:
    """The ends of the time in which requests were to leave, less what is trimmed off."""
    known = record.requests.intended_ns[record.requests.intended_ns > 0]
    first, last = (int(known.min()), int(known.max())) if len(known) else (0, 0)
    start_ns = first + trim.warmup_s * 1e9 + trim.warmup_share * (last - first)
    end_ns = last - trim.cooldown_s * 1e9 - trim.cooldown_share * (last - first)
    return round(start_ns), round(end_ns)


def _rows(table: RequestTable, keep: NDArray[np.bool_]) -> RequestTable:
    kept = np.flatnonzero(keep)
    chosen: dict[str, Any] = {
        name: tuple(values[row] for row in kept) if isinstance(values, tuple) else values[kept]
        for name, values in columns(table).items()
    }
    return RequestTable(**chosen)
