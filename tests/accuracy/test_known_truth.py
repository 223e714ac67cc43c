"""The real client against a server with known truth: nothing is lost, and every stamp lies where it must. Not timed."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from enginebench.errors import ServerError
from enginebench.measure.calibration import Point, times_of_null, times_of_truth
from enginebench.measure.calibrator import Calibrator, drive, load_of, requests_of, script_of
from enginebench.measure.truth import TruthServer
from enginebench.measure.truth_server import Script

POINT = Point(streams=4, gap_s=0.002, ttft_s=0.005, tokens=20, requests=12)


@pytest.fixture(scope="module")
def calibrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calibrator]:
    with Calibrator(tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.mark.parametrize("kind", ["concurrency", "batch"])
@pytest.mark.parametrize("together", [False, True])
def test_the_clients_tokens_are_those_that_left(calibrator: Calibrator, kind: str, together: bool) -> None:
    point = Point(**{**{name: getattr(POINT, name) for name in POINT.__slots__}, "kind": kind, "together": together})
    found = calibrator.measure(point)
    assert set(found.errors) == {"ttft", "tpot", "itl", "e2e_latency"}
    assert all(pair.truth_s > 0 and pair.client_s > 0 for pairs in found.errors.values() for pair in pairs.values())
    assert found.errors["ttft"]["p50"].truth_s >= POINT.ttft_s
    assert found.cost.cpu_s_per_token > 0
    assert found.server_lateness is not None
    assert found.server_lateness.p50 >= 0  # never early


def test_the_golden_round(calibrator: Calibrator) -> None:
    """Not empty; as many tokens as asked for; none stamped before it left; requests leave before they arrive."""
    calibrator.measure(POINT)
    worker, server = calibrator.worker(), calibrator.server()
    server.follow(script_of(POINT))
    record, _ = drive(worker, load_of(POINT), requests_of(POINT))
    truth = server.truth()
    assert len(record.chunks) > 0
    assert int(truth.tokens.sum()) == POINT.tokens * POINT.requests == int(record.requests.tokens.sum())
    times = times_of_truth(record, truth)
    order = np.argsort(np.repeat(record.chunks.request, record.chunks.tokens), kind="stable")
    stamps_ns = np.repeat(record.chunks.stamp_ns, record.chunks.tokens)[order]
    doubt_ns = 100_000  # the two clocks are mapped to each other with an error of microseconds
    assert (stamps_ns >= times.left_ns - doubt_ns).all()
    assert (record.requests.sent_ns <= times.arrived_ns + doubt_ns).all()
    assert (record.requests.intended_ns <= record.requests.sent_ns).all()


def test_truth_is_told_once(calibrator: Calibrator) -> None:
    calibrator.measure(POINT)
    assert len(calibrator.server().truth().key) == 0


def test_flat_out_loses_nothing(calibrator: Calibrator) -> None:
    found = calibrator.measure(Point(streams=4, gap_s=0.0, ttft_s=0.0, tokens=2000, requests=4))
    assert found.sustained is None
    assert found.errors["e2e_latency"]["p50"].client_s > 0


def test_in_process(calibrator: Calibrator) -> None:
    found = calibrator.measure(Point(4, 0.002, 0.005, 20, 8, "batch", runtime="null"))
    assert found.stamp_kind == "engine"
    assert found.stamp_lateness.p50 >= 0
    assert found.errors["ttft"]["p50"].truth_s >= 0.005


def test_null_truth_is_in_the_record(calibrator: Calibrator) -> None:
    point = Point(2, 0.002, 0.005, 5, 4, runtime="null")
    calibrator.measure(point)
    record, _ = drive(calibrator._worker("null", None), load_of(point), requests_of(point))
    assert (times_of_null(record).tokens == 5).all()


def test_a_point_is_measured_once(calibrator: Calibrator) -> None:
    assert calibrator.short(POINT) is calibrator.short(POINT)


def test_a_dead_truth_server_is_named_and_leaves_nothing() -> None:
    server = TruthServer.start()
    server.follow(Script())
    server.stop()
    with pytest.raises(ServerError, match="does not answer"):
        server.truth()
    assert not Path(f"/proc/{server.pid}").exists()
    server.stop()


def test_the_server_ends_with_its_input() -> None:
    with TruthServer.start() as server:
        assert server._process.stdin is not None
        server._process.stdin.close()
        server._process.wait(20)
        with pytest.raises(ProcessLookupError):
            os.kill(server.pid, 0)
