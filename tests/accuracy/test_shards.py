"""Several processes held against the truth: as one client, and each by itself. Not timed."""

from pathlib import Path

import numpy as np

from enginebench.measure.calibration import Point
from enginebench.measure.calibrator import Calibrator
from enginebench.measure.records import int_array
from enginebench.measure.shard_calibration import truth_of
from enginebench.measure.shards import Shards
from enginebench.measure.truth import Truth


def test_shards_are_calibrated_together_and_one_by_one(tmp_path: Path) -> None:
    point = Point(streams=5, gap_s=0.002, ttft_s=0.005, tokens=20, requests=15)
    with Calibrator(tmp_path, lambda log_path: Shards.start(3, log_path)) as calibrator:
        whole = calibrator.short(point)
        shards = [found for found in calibrator.of_shards[point] if found is not None]
    assert [found.point.streams for found in shards] == [2, 2, 1]
    assert [found.point.requests for found in shards] == [6, 6, 3]
    assert whole.point == point
    for found in (whole, *shards):
        assert found.errors["ttft"]["p50"].truth_s >= point.ttft_s
        assert set(found.errors) == {"ttft", "tpot", "itl", "e2e_latency"}
    truths = [found.errors["ttft"]["p50"].truth_s for found in shards]
    assert min(truths) <= whole.errors["ttft"]["p50"].truth_s <= max(truths)


def test_a_batch_load_is_the_first_shards(tmp_path: Path) -> None:
    point = Point(streams=2, gap_s=0.002, ttft_s=0.005, tokens=5, requests=6, kind="batch")
    with Calibrator(tmp_path, lambda log_path: Shards.start(2, log_path)) as calibrator:
        whole = calibrator.short(point)
        first, second = calibrator.of_shards[point]
    assert second is None
    assert first is not None
    assert first.errors == whole.errors


def test_truth_of_some_requests() -> None:
    truth = Truth(
        key=np.array([3, 1, 2]),
        arrived_ns=np.array([30, 10, 20]),
        tokens=np.array([1, 3, 2]),
        due_ns=np.arange(6),
        before_ns=np.arange(6) + 10,
        after_ns=np.arange(6) + 20,
        clock_steps=1,
    )
    found = truth_of(truth, int_array([3, 2]))
    assert (found.key.tolist(), found.arrived_ns.tolist(), found.tokens.tolist()) == ([3, 2], [30, 20], [1, 2])
    assert found.before_ns.tolist() == [10, 14, 15]
    assert found.clock_steps == 1
