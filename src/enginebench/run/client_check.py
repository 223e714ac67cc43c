"""The client's own error at the load of each cell, and whether the cell can be trusted with it.

After a cell's rounds the client is calibrated for about a second at the stream count and token rate that its warm-up
showed; cells that are alike share a calibration. The server under test is idle meanwhile, so that its share of the
processor is not in the error. A calibration that fails makes a cell uncalibrated, never failed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import EnginebenchError
from enginebench.measure.calibration import Calibration
from enginebench.measure.calibrator import Calibrator, point_for
from enginebench.measure.concurrency import in_flight
from enginebench.measure.records import RoundRecord
from enginebench.measure.validity import Gate, validity
from enginebench.run.clients import ShardCount, start_client_here
from enginebench.run.plan import PlannedCell

SCHEMA = "enginebench/calibration/1"


class ClientCheck:
    """Calibrates and judges the cells of one run. ``python``: the interpreter of the direct path's worker."""

    def __init__(self, directory: Path, python: str, shards: ShardCount = 1) -> None:
        self._calibrator = Calibrator(directory, lambda log_path: start_client_here(shards, log_path))
        self._python = python
        self._points: dict[str, Calibration] = {}

    @property
    def record(self) -> dict[str, Any] | None:
        """The ``calibration`` of run.json: every point that was measured, by the key that cells name; None: none."""
        if not self._points:
            return None
        return {"schema": SCHEMA, "points": {key: found.as_json() for key, found in self._points.items()}}

    def judge(
        self, planned: PlannedCell, records: Sequence[RoundRecord], metrics: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The ``calibration`` (a key of ``record``, or null) and the ``validity`` of a measured cell."""
        found, why = self._calibrate(planned, records)
        measured = [record for record in records if not record.warmup]
        judged = validity(
            metrics,
            found,
            gates_of(planned),
            why_uncalibrated=why,
            spoilt_rounds=sum(not record.valid for record in measured),
            rounds=len(measured),
            hidden_first_s=hidden_first_s(measured),
        )
        return {"calibration": self._keep(found), "validity": judged.as_json()}

    def close(self) -> None:
        """End every process."""
        self._calibrator.close()

    def _calibrate(self, planned: PlannedCell, records: Sequence[RoundRecord]) -> tuple[Calibration | None, str]:
        direct = planned.cell.path == "direct"
        shown = [record for record in records if record.warmup] or records
        gap_s = chunk_gap_s(shown[-1])
        if gap_s is None:
            return None, "no tokens whose rate could be taken"
        point = point_for(
            in_flight(shown[-1]),
            gap_s,
            planned.cell.output_tokens,
            kind="batch" if planned.cell.load.kind == "batch" else "concurrency",
            runtime="null" if direct else "triton_http",
        )
        try:
            return self._calibrator.short(point, self._python if direct else None), ""
        except (EnginebenchError, OSError) as error:
            return None, str(error).rstrip(".")

    def _keep(self, found: Calibration | None) -> str | None:
        if found is None:
            return None
        point = found.point
        key = f"{point.runtime}-{point.kind}-{point.streams}x{1 / point.gap_s:.0f}-{point.tokens}"
        self._points[key] = found
        for number, shard in enumerate(self._calibrator.of_shards.get(point, ())):
            if shard is not None:
                self._points[f"{key}-shard{number}"] = shard
        return key


def gates_of(planned: PlannedCell) -> list[Gate]:
    """The scenario's gated endpoints of this cell."""
    names = (planned.cell.id, planned.cell.id.removeprefix(f"{planned.scenario.name}-"))
    return [Gate(gate.metric, gate.margin) for gate in planned.scenario.gate if gate.cell in names]


def chunk_gap_s(record: RoundRecord) -> float | None:
    """The median time between the arrivals of a request; without streaming, of its share for a token; None: unknown."""
    if not record.streaming:
        requests = record.requests
        known = (requests.sent_ns > 0) & (requests.last_ns > 0) & (requests.requested_tokens > 0)
        per_token = (requests.last_ns - requests.sent_ns)[known] / requests.requested_tokens[known] / 1e9
        return _median_above_0(per_token)
    chunks = record.chunks
    order = np.argsort(chunks.request, kind="stable")
    same = np.diff(chunks.request[order]) == 0
    return _median_above_0(np.diff(chunks.stamp_ns[order])[same] / 1e9)


def hidden_first_s(records: Sequence[RoundRecord]) -> float:
    """How much earlier the median first token may have come than the stamps say.

    Where one read brought more with a first token, all have its stamp: a usual gap for each arrival beside it, but no
    earlier than the request was due.
    """
    streamed = [record for record in records if record.streaming]
    beside = np.concatenate([np.zeros(0), *map(_beside_first, streamed)])
    if not beside.any():
        return 0.0
    gaps_s = [gap_s for record in streamed if (gap_s := chunk_gap_s(record)) is not None]
    told_s = np.concatenate([_waited_s(record) for record in streamed])
    earliest_s = told_s.copy()
    earliest_s[beside > 0] -= beside[beside > 0] * (np.median(gaps_s) if gaps_s else np.inf)
    return float(np.median(told_s) - np.median(np.maximum(earliest_s, 0.0)))


def _beside_first(record: RoundRecord) -> NDArray[np.float64]:
    """For each answer, how many of its chunks came with the first one."""
    requests, chunks = record.requests, record.chunks
    order = np.argsort(requests.index)
    rows = order[np.searchsorted(requests.index, chunks.request, sorter=order)]
    together = rows[chunks.stamp_ns == requests.first_ns[rows]]
    return (np.bincount(together, minlength=len(requests)) - 1.0)[requests.first_ns > 0]


def _waited_s(record: RoundRecord) -> NDArray[np.float64]:
    """For each answer, the time to its first token."""
    requests = record.requests
    return ((requests.first_ns - requests.intended_ns) / 1e9)[requests.first_ns > 0]


def _median_above_0(values_s: NDArray[np.float64]) -> float | None:
    above = values_s[values_s > 0]
    return float(np.median(above)) if len(above) else None
