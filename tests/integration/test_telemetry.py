"""The sampler process, for real: this machine's memory, a recorded trace of GPUs, and what it costs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from enginebench.clock import now_ns
from enginebench.errors import WorkerError
from enginebench.measure.calibrator import cpu_seconds
from enginebench.measure.gpu_trace import Edge
from enginebench.measure.telemetry import MemoryPhases, Sample, Telemetry, peaks
from tests.support.gpu_traces import CARD, reading, state, write_trace
from tests.support.processes import PATIENCE_S

MIB = 2**20
HOLD = "import sys; block = bytearray(int(sys.argv[1]) * 2**20); print('held', flush=True); sys.stdin.read()"


@contextmanager
def holding(mebibytes: int) -> Iterator[int]:
    """A process that holds so much memory."""
    command = [sys.executable, "-c", HOLD, str(mebibytes)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def sampler_of(telemetry: Telemetry) -> psutil.Process:
    assert telemetry._process is not None
    return psutil.Process(telemetry._process.pid)


def roles(telemetry: Telemetry) -> dict[str, int]:
    return dict(fresh(telemetry).host)


def fresh(telemetry: Telemetry) -> Sample:
    sample = telemetry.fresh(PATIENCE_S)
    assert sample is not None
    return sample


def edge(telemetry: Telemetry, mark: str) -> Edge:
    found = telemetry.edge(mark, PATIENCE_S)
    assert found is not None
    return found


def test_resident_memory_by_role() -> None:
    with Telemetry() as telemetry, holding(64) as small, holding(192) as large:
        assert roles(telemetry) == {}
        telemetry.watch("engine", small)
        telemetry.watch("server", large)
        until(lambda: set(roles(telemetry)) == {"engine", "server"}, "both roles")
        found = roles(telemetry)
        assert 64 * MIB < found["engine"] < 192 * MIB < found["server"] < 320 * MIB
        telemetry.watch("engine", large)
        until(lambda: roles(telemetry)["engine"] > 256 * MIB, "a role of two processes")
        telemetry.unwatch("engine")
        until(lambda: set(roles(telemetry)) == {"server"}, "one role")


def test_children_count_and_what_is_gone_is_missing_not_zero() -> None:
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLD!r}, '96'])"
    with Telemetry() as telemetry:
        command = [sys.executable, "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            telemetry.watch("engine", process.pid)
            until(lambda: roles(telemetry).get("engine", 0) > 96 * MIB, "parent and child")
        until(lambda: roles(telemetry) == {}, "nothing left")
        telemetry.watch("engine", process.pid)  # gone already
        assert roles(telemetry) == {}


def test_samples_can_be_cut_out_by_time() -> None:
    with Telemetry() as telemetry:
        first, second = fresh(telemetry), fresh(telemetry)
        between = telemetry.samples(first.stamp_ns, second.stamp_ns)
        assert between[0] == first
        assert between[-1] == second
        assert telemetry.samples(now_ns() + 10**12) == []
    assert telemetry.samples()[-1].stamp_ns <= now_ns()


def test_without_a_gpu_it_says_so() -> None:
    with Telemetry() as telemetry:
        if telemetry.gpus is not None:
            pytest.skip("this machine has a GPU")
        assert "no GPU" in (telemetry.gpu_reason or "")
        assert telemetry.gpu_used() is None
        phases = MemoryPhases(telemetry)
        phases.before_load()
        phases.after_load()
        assert phases.as_json()["gpu"] is None


def test_a_recorded_trace_stands_in_for_the_gpus(tmp_path: Path) -> None:
    used = [100, 100, 5000, 7000, 5000, 5000, 200]
    second = {**CARD, "uuid": "GPU-b"}
    lines = [(reading(each), reading(1000)) for each in used]
    trace = write_trace(tmp_path / "trace.jsonl", lines, CARD, second)
    with Telemetry(gpu_trace=trace) as telemetry:
        assert telemetry.gpus == (CARD["uuid"], "GPU-b")
        until(lambda: len(telemetry.samples()) >= 9, "the trace's end")
        assert [sample.gpu_used for sample in telemetry.samples()][1:8:2] == [
            (100, 1000), (7000, 1000), (5000, 1000), (200, 1000)
        ]  # fmt: skip
        assert peaks(telemetry.samples())["gpu_peak_bytes"] == 8000
        assert telemetry.gpu_used() == (200, 1000)


def test_a_recording_plays_back_as_it_was(tmp_path: Path) -> None:
    lines = [reading(1), state({7: 300}, [(0, "xid", 31)]), "round", reading(2, power_w=None), "round_end", reading(3)]
    trace = write_trace(tmp_path / "trace.jsonl", lines)
    heard = []
    for source, record in ((trace, tmp_path / "again.jsonl"), (tmp_path / "again.jsonl", None)):
        with Telemetry(gpu_trace=source, record=record) as telemetry:
            until(telemetry.states, "a state")
            fresh(telemetry)
            marks = []
            for mark in ("round", "round_end"):
                marks.append(edge(telemetry, mark).mark)
                fresh(telemetry)
            seen = {sample.gpu for sample in telemetry.samples()}
            heard.append((seen, telemetry.states()[0].processes, marks))
    readings = {(reading(1),), (reading(2, power_w=None),), (reading(3),)}
    assert heard == [(readings, ({7: 300},), ["round", "round_end"])] * 2


def test_edges_count_energy_between_them(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "trace.jsonl", ["round", reading(1, power_w=500.0), "round_end", reading(1)])
    with Telemetry(gpu_trace=trace) as telemetry:
        first = edge(telemetry, "round")
        time.sleep(0.3)
        last = edge(telemetry, "round_end")
    (first_j,), (last_j,) = [each.energy_j or () for each in (first, last)]
    passed_s = (last.stamp_ns - first.stamp_ns) / 1e9
    assert (last_j or 0) - (first_j or 0) == pytest.approx(500 * passed_s)


def test_a_sampler_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    with Telemetry(gpu_trace=write_trace(tmp_path / "trace.jsonl", [reading(1)])) as telemetry:
        fresh(telemetry)
        sampler_of(telemetry).suspend()  # as in a call of the driver that does not return
        assert telemetry.edge("round_end", timeout_s=0.2) is None
        assert telemetry.fresh(timeout_s=0.2) is None
    assert telemetry.samples()


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace.jsonl").write_text("[700]\n")
    with pytest.raises(WorkerError, match=r"--gpu-trace .*trace\.jsonl' to see why"):
        Telemetry(gpu_trace=tmp_path / "trace.jsonl").start()


def test_phases_of_a_session(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "trace.jsonl",
        ["before_load", reading(600), "after_load", reading(700), "after_unload", reading(650)],
    )
    with Telemetry(gpu_trace=trace) as telemetry, holding(64) as pid:
        phases = MemoryPhases(telemetry)
        phases.before_load()
        telemetry.watch("engine", pid)
        until(lambda: roles(telemetry), "the role")
        phases.after_load()
        telemetry.unwatch("engine")
        phases.after_unload()
        ended = phases.as_json()
        telemetry.watch("engine", pid)
        telemetry.watch("server", pid)
        until(lambda: "server" in roles(telemetry), "the next session")
        assert phases.as_json() == ended
    assert ended["gpu"] == {"before_load": 600, "after_load": 700, "peak": 700, "after_unload": 650}
    assert set(ended["host"]) == {"engine"}
    assert ended["host"]["engine"]["before_load"] is None
    assert ended["host"]["engine"]["peak"] >= ended["host"]["engine"]["after_load"] > 64 * MIB


def test_peaks_are_of_all_gpus_together_and_of_each_role() -> None:
    one, two = (reading(1), reading(9)), (reading(8), reading(1))
    samples = [Sample(1, {"engine": 5}, one), Sample(2, {"engine": 3, "server": 2}, two), Sample(3, {}, None)]
    assert Sample(4, {}, (reading(5), reading(None))).gpu_used is None
    assert peaks(samples) == {"gpu_peak_bytes": 10, "host_peak_bytes": {"engine": 5, "server": 2}}
    assert peaks([]) == {"gpu_peak_bytes": None, "host_peak_bytes": {}}


def test_sampling_takes_about_a_hundredth_of_a_core_at_most() -> None:
    with Telemetry() as telemetry:
        for _ in range(3):
            telemetry.watch("engine", os.getpid())
        until(lambda: len(telemetry.samples()) > 5, "samples")
        shares = [cpu_share(sampler_of(telemetry).pid, over_s=1.0) for _ in range(4)]
        assert min(shares) < 0.02  # the goal is 0.01; what a busy machine adds to one second is not in all


def cpu_share(pid: int, over_s: float) -> float:
    before, started_s = cpu_seconds(pid), time.monotonic()
    time.sleep(over_s)
    return (cpu_seconds(pid) - before) / (time.monotonic() - started_s)


def test_it_can_be_stopped_twice_and_not_asked_while_stopped() -> None:
    telemetry = Telemetry()
    with pytest.raises(WorkerError, match="not running"):
        telemetry.watch("engine", 1)
    telemetry.start()
    telemetry.stop()
    telemetry.stop()


def test_the_sampler_ends_with_the_harness() -> None:
    script = """
        import time
        import psutil
        from enginebench.measure.telemetry import Telemetry
        telemetry = Telemetry()
        telemetry.start()
        print(psutil.Process().children()[0].pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as harness:
        assert harness.stdout is not None
        sampler = psutil.Process(int(harness.stdout.readline()))
        harness.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs([sampler], timeout=PATIENCE_S)
    assert not alive
