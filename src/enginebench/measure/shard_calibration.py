"""The error of each shard of a client, from the one round in which all of them together were held against the truth.

Pure. What the whole client's error is, is ``calibration``'s.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from enginebench.measure.calibration import Calibration, Cost, Point, calibrate, times_of_truth
from enginebench.measure.records import Ints
from enginebench.measure.sharding import ShardRecord
from enginebench.measure.truth import Truth


def calibrate_parts(
    parts: Sequence[ShardRecord], point: Point, cost: Cost, truth: Truth
) -> tuple[Calibration | None, ...]:
    """A calibration for each shard, None for one that had no requests; ``cost`` stays that of all together.

    ``parts`` are in the clock of the truth server. Raises SessionError as ``times_of_truth`` does.
    """
    return tuple(_of_part(part, point, cost, truth) if len(part.record.requests) else None for part in parts)


def truth_of(truth: Truth, keys: Ints) -> Truth:
    """What a truth server told of the requests in ``keys``."""
    rows = np.isin(truth.key, keys)
    tokens = np.repeat(rows, truth.tokens)
    return replace(
        truth,
        key=truth.key[rows],
        arrived_ns=truth.arrived_ns[rows],
        tokens=truth.tokens[rows],
        due_ns=truth.due_ns[tokens],
        before_ns=truth.before_ns[tokens],
        after_ns=truth.after_ns[tokens],
    )


def _of_part(part: ShardRecord, point: Point, cost: Cost, truth: Truth) -> Calibration:
    record, own = part.record, truth_of(truth, part.record.requests.index)
    load = record.load
    share = replace(point, streams=int(load["level"]), requests=len(record.requests))
    return calibrate(record, times_of_truth(record, own), share, cost, own)
