"""What an engine recorded of its rounds, summed up: the same words for every runtime, and None for what none told."""

from typing import Any

import numpy as np
import pytest

from enginebench.measure.engine_record import BATCH_EVENTS, OWN_STAMPS, TRT_STAMPS, engine_round, engine_summary
from enginebench.measure.layers import from_engine
from tests.support.rounds import Row, round_of


def told(index: int, *seconds: float, **more: Any) -> dict[str, Any]:
    names = ("first_scheduled_s", "first_token_s", "last_token_s")
    return {"request": index, **dict(zip(names[-len(seconds) :], seconds, strict=True)), **more}


ROUND = round_of(Row([(1, 1)]), Row([(1, 1)]), Row([], outcome="error"))


def summary(*requests: dict[str, Any], iterations: Any = ()) -> dict[str, Any]:
    found = engine_summary([engine_round(ROUND, {"requests": requests, "iterations": iterations})])
    assert found is not None
    return found


def test_queue_prefill_and_decode_are_differences_of_the_engines_stamps() -> None:
    found = summary(told(0, 0.1, 0.3, 1.3), told(1, 0.3, 0.4, 1.0))
    means = [found[step]["mean"] for step in ("queue", "prefill", "decode")]
    assert means == pytest.approx([0.2, 0.15, 0.8])
    assert found["queue"]["p50"] == pytest.approx(0.1)
    assert found["queue"]["p90"] is None  # two requests bear none
    assert (found["source"], found["told"], found["requests"]) == (TRT_STAMPS, 2, 2)
    assert found["iterations"] is None
    assert summary(told(0, 0.1, 0.3, 1.3, scheduled_ns=5))["source"] == OWN_STAMPS


def test_a_batch_that_tells_of_two_tokens_alone_has_no_queue() -> None:
    found = summary(told(0, 0.25, 1.0), told(1, 0.25, 1.0))
    assert found["queue"] is None
    assert (found["prefill"]["p50"], found["decode"]["p50"]) == (0.25, 0.75)
    assert found["source"] == BATCH_EVENTS


def test_requests_that_failed_or_are_of_no_round_count_nowhere() -> None:
    found = summary(told(0, 0.1, 0.3, 1.3), told(2, 9.0, 9.0, 9.0), told(7, 9.0, 9.0, 9.0))
    assert (found["told"], found["requests"], found["queue"]["max"]) == (1, 2, 0.1)


def test_iterations_of_both_kinds_of_rows_are_summed_up() -> None:
    flight = {"numActiveRequests": 3, "numQueuedRequests": 1, "kvCacheStats": {"usedNumBlocks": 10, "maxNumBlocks": 40}}
    own = {"active": 1, "queued": None, "kv_blocks_used": 30, "kv_blocks_total": 40}
    found = summary(iterations=[flight, own, {"numActiveRequests": 2}])["iterations"]
    assert found == {"count": 3, "active_mean": 2.0, "queued_mean": 1.0, "kv_used_mean": 0.5, "kv_used_max": 0.75}
    unknown = summary(iterations=[{"timestamp": "x"}])["iterations"]
    assert unknown == {"count": 1, "active_mean": None, "queued_mean": None, "kv_used_mean": None, "kv_used_max": None}


def test_a_runtime_that_tells_nothing_has_no_entry() -> None:
    nothing: list[dict[str, Any]] = [{}, {"requests": [], "iterations": []}, {"perf_metrics": [{"x": 1}]}]
    assert engine_summary([engine_round(ROUND, each) for each in nothing]) is None
    assert engine_summary([]) is None


def test_the_direct_waterfall_has_the_engines_parts_and_a_residual() -> None:
    engine = summary(told(0, 0.1, 0.3, 1.3), told(1, 0.3, 0.4, 1.0))
    fall = from_engine(0.4, 1.3, 0.05, engine, whole=True)
    assert [part.layers for part in fall.parts] == [("client",), ("slot",), ("prefill",), ("decode",)]
    assert {part.source for part in fall.parts} == {"our stamps", TRT_STAMPS}
    assert fall.residual_s == pytest.approx(1.3 - 0.05 - 1.15)
    first = from_engine(0.4, 1.3, None, engine, whole=False)
    assert [part.layers for part in first.parts] == [("slot",), ("prefill",)]
    assert np.isclose(first.residual_s, 0.05)


def test_what_the_engine_does_not_tell_stays_with_the_residual() -> None:
    fall = from_engine(None, 1.5, 0.0, summary(told(0, 0.25, 1.0), told(1, 0.25, 1.0)), whole=True)
    assert fall.with_residual == ("slot",)
    assert fall.residual_s == pytest.approx(0.5)
