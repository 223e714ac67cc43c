"""What profilers leave, read: iterations of every source, torch traces, Nsight tables, py-spy files; and shares."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.clock import RealtimeOffset
from enginebench.errors import RunError, ServerError
from enginebench.measure.server_sampler import PageSample
from enginebench.profile import nsys, pyspy
from enginebench.profile.iterations import Iterations, from_observed, from_pages
from enginebench.profile.kernels import KernelTime, families, family_of, occupation
from enginebench.profile.nsys_tables import Recorded, read_export
from enginebench.profile.shares import engine_shares, request_shares
from enginebench.profile.torch_trace import gpu_spans, read_trace, summary
from enginebench.server.metrics_page import IN_FLIGHT, KV_BLOCKS, REQUESTS, Reading
from tests.support import fake_nsys
from tests.support.profiled_run import nsys_on_path
from tests.support.rounds import MS, START_NS, Row, round_of

OFFSET = RealtimeOffset(offset_ns=1_000_000_000_000, error_ns=100, measured_ns=0)

TENSORRT_LLM: dict[str, Any] = {  # as in TensorRT-LLM 1.0, facts of issue 6364
    "timestamp": "11-23-2026 01:02:03.456789", "iter": 7, "iterLatencyMS": 12.5, "numActiveRequests": 3,
    "numQueuedRequests": 2, "kvCacheStats": {"usedNumBlocks": 40, "maxNumBlocks": 100, "freeNumBlocks": 60},
    "inflightBatchingStats": {"numContextRequests": 1, "numGenRequests": 2, "numPausedRequests": 1,
                              "numCtxTokens": 512, "avgNumDecodedTokensPerIter": 0.0},
}  # fmt: skip


def test_tensorrt_llm_under_our_names() -> None:
    found = {name: values[0] for name, values in from_observed([TENSORRT_LLM], OFFSET.to_monotonic).items()}
    moment = datetime(2026, 11, 23, 1, 2, 3).timestamp()  # local time, as the library writes it
    assert found.pop("stamp_ns") == int(moment) * 1_000_000_000 + 456_789_000 - OFFSET.offset_ns
    assert found == {
        "active": 3, "queued": 2, "paused": 1, "context_tokens": 512, "generation_tokens": 2.0,
        "kv_blocks_used": 40, "kv_blocks_total": 100, "step_ns": 12_500_000,
    }  # fmt: skip


def test_what_a_version_does_not_tell_is_unknown_and_an_entry_without_a_time_is_no_entry() -> None:
    old = {"timestamp": "11-23-2026 01:02:03.456789", "numActiveRequests": 3}
    found = from_observed([old, {"iter": 8}, {"timestamp": "yesterday"}], OFFSET.to_monotonic)
    assert found["active"] == [3]
    assert found["kv_blocks_used"] == found["step_ns"] == found["paused"] == [None]
    assert from_observed([], OFFSET.to_monotonic) == {}


def gauge(family: str, label: str, kind: str, value: float) -> Reading:
    return Reading(family, ((label, kind), ("model", "tensorrt_llm")), value)


def test_gauges_keep_their_value_until_they_change() -> None:
    first = (gauge(REQUESTS, "request_type", "active", 2.0), gauge(KV_BLOCKS, "kv_cache_block_type", "used", 9.0))
    later = (gauge(IN_FLIGHT, "inflight_batcher_specific_metric", "paused_requests", 1.0),)
    found = from_pages([PageSample(5, first), PageSample(10, later), PageSample(30, ())], 8, 25)
    assert found["stamp_ns"] == [10]
    assert (found["active"], found["paused"], found["kv_blocks_used"]) == ([2.0], [1.0], [9.0])
    assert Iterations.of({"stamp_ns": [10], "active": [2.0]}).sampled
    assert from_pages([PageSample(10, ())], 8, 25) == {}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64_warpgroupsize1x1x1", "gemm"),
        ("nvjet_hsh_64x8_64x16_4x1_v_bz_TNT", "gemm"),
        ("void cublasLt::splitKreduce_kernel<32, 16>", "gemm"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", "attention"),
        ("void flash::flash_fwd_kernel<...>", "attention"),
        ("void tensorrt_llm::kernels::mmha::masked_multihead_attention_kernel", "attention"),
        ("ncclDevKernel_AllReduce_Sum_f16_RING_LL", "comm"),
        ("void generalRmsNorm<__half>", "norm"),
        ("Memcpy HtoD (Pageable -> Device)", "memcpy"),
        ("void at::native::vectorized_elementwise_kernel<4, silu>", "other"),
    ],
)
def test_families(name: str, family: str) -> None:
    assert family_of(name) == family


def test_shares_of_families() -> None:
    rows = families([KernelTime("a_gemm", 2, 3.0), KernelTime("b_gemm", 1, 1.0), KernelTime("x", 5, 4.0)])
    assert [(row["family"], row["s"], row["share"], row["calls"]) for row in rows] == [
        ("gemm", 4.0, 0.5, 3),
        ("other", 4.0, 0.5, 5),
    ]


spans = st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(1, 2_000_000)), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(spans)
def test_the_time_of_a_gpu_adds_up(kernels: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in kernels])
    ends = starts + np.array([length for _, length in kernels])
    found = occupation(starts, ends, (0, 11_000_000))
    parts = found["busy_s"] + found["launch_gaps_s"] + found["host_s"]
    assert parts == pytest.approx(found["window_s"])
    microseconds = np.zeros(11_000, dtype=bool)  # the same, second by second
    for start, end in zip(starts, ends, strict=True):
        microseconds[start // 1000 : -(-min(int(end), 11_000_000) // 1000)] = True
    assert found["busy_s"] == pytest.approx(microseconds.sum() / 1e6, abs=len(kernels) * 2e-6)


def event(name: str, cat: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "ts": ts, "dur": dur, "tid": tid, "pid": 1}


TRACE = [
    event("enginebench round", "user_annotation", 1000.0, 1000.0),
    event("aten::linear", "cpu_op", 1010.0, 100.0),
    event("aten::addmm", "cpu_op", 1020.0, 60.0),
    event("aten::addmm", "cpu_op", 1300.0, 40.0),
    event("aten::mul", "cpu_op", 500.0, 40.0),  # before the round
    event("nvjet_hsh_64x8", "kernel", 1100.0, 300.0, tid=7),
    event("void silu", "kernel", 1450.0, 50.0, tid=7),
    event("Memcpy HtoD", "gpu_memcpy", 1700.0, 100.0, tid=8),
    {"ph": "M", "name": "process_name"},
]


def test_a_torch_trace(tmp_path: Path) -> None:
    path = tmp_path / "torch-trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"traceEvents": TRACE}, file)
    found = summary(read_trace(path), "enginebench round")
    assert [(row["name"], row["calls"], row["own_s"]) for row in found["operators"]] == [
        ("aten::addmm", 2, pytest.approx(100e-6)),
        ("aten::linear", 1, pytest.approx(40e-6)),
    ]
    assert [row["name"] for row in found["kernels"]] == ["nvjet_hsh_64x8", "Memcpy HtoD", "void silu"]
    gpu = found["gpu"]
    assert (gpu["window_s"], gpu["busy_s"]) == (pytest.approx(1e-3), pytest.approx(450e-6))
    assert (gpu["launch_gaps_s"], gpu["launches"]) == (pytest.approx(50e-6), 1)
    spans = list(gpu_spans(read_trace(path), "enginebench round", 5_000_000))
    assert spans[0] == ("nvjet_hsh_64x8", 5_100_000, 5_400_000)


def test_a_trace_of_a_cpu_has_no_gpu_and_a_torn_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(TRACE[:4]))
    assert summary(read_trace(tmp_path / "t.json"), "enginebench round")["gpu"] is None
    (tmp_path / "t.json").write_text('{"traceEvents": [')
    with pytest.raises(RunError, match="profile the cell again"):
        read_trace(tmp_path / "t.json")


def test_what_a_report_of_nsys_holds(tmp_path: Path) -> None:
    found = _report(tmp_path, fake_nsys.write_export).summary("enginebench round")
    assert [(each["family"], each["calls"], each["s"]) for each in found["families"]] == [
        ("gemm", 2, pytest.approx(5.96e-3)),
        ("attention", 1, pytest.approx(1.98e-3)),
        ("norm", 1, pytest.approx(1e-3)),
        ("memcpy", 2, pytest.approx(0.6e-3)),
    ]
    assert [each["name"] for each in found["memory"]] == ["memcpy Host-to-Device", "memset"]
    assert found["nvtx"][0] == {"range": "enginebench round", "calls": 1, "s": pytest.approx(0.012)}
    gpu = found["gpu"]
    assert gpu["window_s"] == pytest.approx(0.012)  # the round's range, not what was captured
    assert gpu["launch_gaps_s"] == pytest.approx(60e-6)
    assert gpu["host_s"] == pytest.approx(2.4e-3)  # before the first kernel, one gap of 1 ms, after the last


def test_nsys_marks_come_to_the_axis(tmp_path: Path) -> None:
    report = tmp_path / "report.nsys-rep"
    _report(tmp_path, fake_nsys.write_export).write(report.with_suffix(""))
    assert list(nsys.ranges(report, "enginebench round", 10_000_000)) == [
        ("enginebench round", 10_000_000, 22_000_000),
        ("request 0: to the first token", 10_100_000, 15_500_000),
        ("request 0: decode", 15_500_000, 21_500_000),
    ]
    assert list(nsys.ranges(report, "another round", 0)) == []
    kernels = (tmp_path / "report_kernels.csv").read_text().splitlines()
    assert kernels[0] == "name,family,calls,total_s"
    assert kernels[1].endswith("64x64x64,gemm,2,0.00596")
    assert not list(nsys.ranges(tmp_path / "other.nsys-rep", "enginebench round", 0))


def test_a_report_without_kernels_and_ranges_says_what_is_missing(tmp_path: Path) -> None:
    recorded = _report(tmp_path, lambda path: path.touch())  # nsys makes a table only if something is in it
    assert recorded.summary("enginebench round") == {
        "kernels": [], "families": [], "memory": [], "nvtx": [], "gpu": None,
    }  # fmt: skip
    recorded.write(tmp_path / "report")
    assert not list(tmp_path.glob("*.csv"))
    assert [note.partition(":")[0] for note in nsys.missing(recorded, None)] == ["The report holds no kernel"]
    assert "nvtx package" in nsys.missing(recorded, "enginebench round")[1]
    with pytest.raises(RunError, match="is not as Nsight Systems exports it"):
        _report(tmp_path, lambda path: path.write_text("no database, " * 100))


def _report(tmp_path: Path, write: Callable[[Path], object]) -> Recorded:
    path = tmp_path / "report.sqlite"
    write(path)
    return read_export(path)


def test_a_report_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NSYS_BROKEN", "export")
    said = r"report.nsys-rep \(Exportation error: Cannot read from stream\): open it in Nsight Systems instead\.$"
    with pytest.raises(RunError, match=said):
        nsys.read_report(_program(tmp_path), tmp_path / "report.nsys-rep")


def test_an_option_that_nsys_does_not_know_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nsys, "_QUIET", ("--no-sampling=true",))
    capture = nsys.ServerCapture(_program(tmp_path), tmp_path)
    with (
        pytest.raises(ServerError, match=r"nsys start failed \(unrecognised option '--no-sampling=true'\): "),
        capture.on(),
    ):
        pass


def test_a_recording_without_a_report_is_no_report(tmp_path: Path) -> None:
    assert "capture range was not opened" in nsys.why_no_report(tmp_path)
    (tmp_path / "report.qdstrm").touch()
    assert "report.qdstrm and could not make a report of it" in nsys.why_no_report(tmp_path)


def test_every_rank_has_a_report(tmp_path: Path) -> None:
    """What mpirun starts twice, run here twice."""
    ours = _program(tmp_path)
    wrapper = nsys.worker_wrapper(ours, tmp_path, ranks=2)
    assert wrapper.env["TLLM_PROFILE_START_STOP"] == "100-150"
    opened = "import os, pathlib; pathlib.Path(os.environ['FAKE_NSYS_RANGE']).touch()"
    for rank in ("0", "1"):
        env = {"PATH": "/usr/bin:/bin", "OMPI_COMM_WORLD_RANK": rank}
        subprocess.run([*wrapper.command, sys.executable, "-c", opened], env=env, check=True, capture_output=True)
    assert [path.name for path in nsys.find_reports(tmp_path)] == ["report-rank0.nsys-rep", "report-rank1.nsys-rep"]
    assert nsys.worker_wrapper(ours, tmp_path).env == {"TLLM_LLMAPI_ENABLE_NVTX": "1"}


def _program(tmp_path: Path) -> str:
    return str(Path(nsys_on_path(tmp_path / "bin").partition(":")[0]) / "nsys")


def test_the_top_of_the_stack_in_a_speedscope_file() -> None:
    frames = [{"name": "main", "file": "a.py", "line": 1}, {"name": "execute", "file": "model.py", "line": 9}]
    profile = {"shared": {"frames": frames}, "profiles": [{"samples": [[0, 1], [0], []], "weights": [0.5, 0.1, 9.0]}]}
    assert pyspy.hottest(profile, "model") == [
        {"thread": "model", "function": "execute", "place": "model.py:9", "s": 0.5},
        {"thread": "model", "function": "main", "place": "a.py:1", "s": 0.1},
    ]


def test_shares_of_requests_and_of_the_engine() -> None:
    record = round_of(Row(chunks=[(100.0, 1), (200.0, 1)], intended=0.0, sent=1.0))
    taken = request_shares(record, {0: START_NS + 30 * MS})
    assert taken is not None
    assert (taken["waiting_s"], taken["prefill_s"], taken["decode_s"]) == pytest.approx((0.03, 0.07, 0.1))
    unknown = request_shares(record, {})
    assert unknown is not None
    assert (unknown["waiting_s"], unknown["until_first_s"]) == (None, pytest.approx(0.1))
    table = Iterations.of({"stamp_ns": [START_NS + 100 * MS, START_NS + 200 * MS], "step_ns": [60 * MS, 40 * MS],
                           "context_tokens": [50, 0]})  # fmt: skip
    engine = engine_shares(record, table)
    assert engine is not None
    assert (engine["prefill_s"], engine["decode_s"], engine["idle_s"]) == pytest.approx((0.06, 0.04, 0.1))
    assert engine_shares(record, Iterations.of({})) is None
    assert request_shares(round_of(Row(chunks=[]), streaming=False), {}) is None


def test_a_running_process_is_sampled_from_outside(tmp_path: Path) -> None:
    program = "def busy():\n    while True: pass\nprint(1, flush=True)\nbusy()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for seconds in (1.0, 5.0, 25.0):  # a busy machine needs longer until the first sample is taken
            kept: dict[str, Any] = {"files": [], "notes": [], "functions": []}
            with pyspy.record([("model 'x'", process.pid)], tmp_path, kept):
                time.sleep(seconds)
            if kept["functions"]:
                break
        process.kill()
    if kept["notes"]:  # where the system forbids it, that is what is said
        assert "SYS_PTRACE" in kept["notes"][0]
        return
    assert kept["files"] == [f"python-model--x-{process.pid}.speedscope.json"]
    assert kept["functions"][0]["function"] == "busy"
