"""``pytest bench/ --benchmark-only`` as a user types it: a real engine, a real server, real files."""

import contextlib
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import psutil
import pytest

from enginebench.reference.build import ReferenceOptions, write_build
from tests.support.bench_project import BenchProject, answers, environment
from tests.support.embedded import needs_triton
from tests.support.scripted_openai import ScriptedOpenAi
from tests.support.scripted_server import ScriptedServer

pytestmark = needs_triton

Done: TypeAlias = "subprocess.CompletedProcess[str]"
Smoke: TypeAlias = tuple[BenchProject, Done]

PATHS = ("direct", "core", "ensemble", "bls")
ALL_PATHS = tuple(argument for path in PATHS for argument in ("--path", path))
LONG = """
prompts: [你是谁？]
output_tokens: 600
batch_sizes: [1]
rounds: 1
warmup_rounds: 0
paths: [ensemble, core]
"""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The smoke scenario on every path, once for all tests that look at what it left."""
    project = BenchProject.make(tmp_path_factory.mktemp("bench"))
    return project, project.bench("--scenario", "smoke", *ALL_PATHS)


@pytest.fixture
def project(tmp_path: Path) -> BenchProject:
    return BenchProject.make(tmp_path)


def output(done: Done) -> str:
    return done.stdout + done.stderr


def test_every_planned_cell_is_measured(smoke: Smoke) -> None:
    project, done = smoke
    assert done.returncode == 0, output(done)
    run = project.run()
    assert len(run.cells) == len(run.data["plan"]["cells"]) == 16
    assert {cell["status"] for cell in run.cells.values()} == {"measured"}
    assert not run.data["interrupted"]


def test_the_engine_in_process_tells_how_long_requests_waited(smoke: Smoke) -> None:
    run = smoke[0].run()
    direct = [cell for cell in run.cells.values() if cell["path"] == "direct"]
    assert direct
    for cell in direct:
        engine, e2e = cell["engine"], cell["metrics"]["e2e_latency"]["summary"]
        assert engine["source"] == "the reference engine's stamps"
        assert engine["told"] == engine["requests"] == cell["requests"] == engine["queue"]["count"]
        parts = sum(engine[step]["mean"] for step in ("queue", "prefill", "decode"))
        slip = cell["metrics"]["slip"]["summary"]["mean"]
        assert parts + slip == pytest.approx(e2e["mean"], rel=1e-6)  # of the same stamps: nothing is left over
        assert engine["iterations"] is None
    assert not any("engine" in cell for cell in run.cells.values() if cell["path"] != "direct")


def test_every_path_gives_the_same_tokens(smoke: Smoke) -> None:
    run = smoke[0].run()
    for mode in ("stream", "nostream"):
        for size in ("bs001", "bs002"):
            truth = answers(run, f"smoke-direct-stream-out0008-{size}")
            assert truth
            assert all(len(ids) == 8 for ids in truth.values())
            for path in PATHS:
                assert answers(run, f"smoke-{path}-{mode}-out0008-{size}") == truth, (path, mode, size)


def test_the_plan_comes_first_and_the_table_last(
    smoke: Smoke,
) -> None:
    project, done = smoke
    plan = done.stdout.index("16 cells on build reference, about")
    first_cell = done.stdout.index("[ 1/16] smoke-direct-stream-out0008-bs001")
    benchmark_table = done.stdout.index("benchmark 'smoke stream-out0008-bs001': 4 tests")
    own_table = done.stdout.index("enginebench ====")
    assert plan < first_cell < benchmark_table < own_table
    table = done.stdout[own_table:]
    assert "reference engine: these numbers say nothing about TensorRT-LLM" in table
    assert all(cell in table for cell in project.run().cells)
    assert str(project.runs()[-1] / "report.html") in table


def test_pytest_benchmarks_own_file_carries_our_metrics(
    smoke: Smoke,
) -> None:
    project, _ = smoke
    file = json.loads((project.runs()[-1] / "benchmark.json").read_text())
    row = next(each for each in file["benchmarks"] if "smoke-ensemble-stream-out0008-bs002" in each["name"])
    assert row["params"] == {
        "scenario": "smoke",
        "path": "ensemble",
        "streaming": True,
        "output_tokens": 8,
        "load": "bs002",
    }
    assert row["stats"]["rounds"] == row["extra_info"]["rounds"] == 2
    ttft = row["extra_info"]["metrics"]["ttft"]
    assert (ttft["unit"], ttft["better"], len(ttft["per_round"])) == ("s", "lower", 2)
    assert ttft["summary"]["p50"] > 0


LOADS = """
prompts: [你是谁？, Hello!]
output_tokens: {mean: 6, stdev: 2}
order: shuffled
load:
  - {kind: batch, sizes: 2}
  - {kind: concurrency, levels: 2, requests: 8}
  - {kind: rate, per_s: 40, arrival: gamma, burstiness: 0.5, requests: 8}
rounds: 2
"""


def test_each_kind_of_load_is_measured_by_its_own_function(project: BenchProject) -> None:
    project.write_scenario("loads", LOADS)
    done = project.bench("--scenario", "loads", *ALL_PATHS[:6])
    assert done.returncode == 0, output(done)
    run = project.run()
    labels = ("bs002", "c002", "r0040.00-gamma0.5")
    # path by path, so that cells share engines, whichever function takes them
    assert list(run.cells) == [
        f"loads-{path}-stream-out0006sd2-{label}" for path in ("direct", "core", "ensemble") for label in labels
    ]
    rows = json.loads((project.runs()[-1] / "benchmark.json").read_text())["benchmarks"]
    functions = {row["params"]["load"]: row["name"].partition("[")[0] for row in rows}
    assert functions == dict(zip(labels, ("test_batch", "test_concurrency", "test_rate"), strict=True))
    for cell_id, cell in run.cells.items():
        slip = cell["metrics"]["slip"]["summary"]
        assert slip["count"] == cell["requests"]
        assert slip["min"] >= 0
        assert any(cell["steady_window_s"]) == ("steady_requests_per_s" in cell["metrics"])
        assert ("steady_requests_per_s" in cell["metrics"]) >= (cell["load"]["kind"] == "concurrency"), cell_id


def test_every_path_gets_the_same_requests_at_the_same_times(project: BenchProject) -> None:
    project.write_scenario("loads", LOADS)
    assert project.bench("--scenario", "loads", *ALL_PATHS[:4], "-k", "gamma").returncode == 0
    run = project.run()
    asked = [
        [
            (
                record.round_index,
                (record.requests.intended_ns - record.started_ns).tolist(),
                record.requests.requested_tokens.tolist(),
                record.requests.prompt_tokens.tolist(),
            )
            for record in run.rounds(f"loads-{path}-stream-out0006sd2-r0040.00-gamma0.5")
        ]
        for path in ("direct", "core")
    ]
    assert asked[0] == asked[1]
    assert len({tuple(offsets) for _, offsets, _, _ in asked[0]}) == 3  # new in each round


def test_the_timed_rounds_hold_the_measured_windows(
    smoke: Smoke,
) -> None:
    file = json.loads((smoke[0].runs()[-1] / "benchmark.json").read_text())
    assert len(file["benchmarks"]) == 16
    for row in file["benchmarks"]:
        for timed_s, window_s in zip(row["stats"]["data"], row["extra_info"]["makespan_s"], strict=True):
            assert timed_s >= window_s > 0


def test_memory_is_there_for_engine_and_server(smoke: Smoke) -> None:
    run = smoke[0].run()
    assert [session["path"] for session in run.data["sessions"]] == list(PATHS)
    for session in run.data["sessions"]:
        role = "engine" if session["path"] == "direct" else "server"
        assert session["memory"]["host"][role]["peak"] > 2**20
        assert session["memory"]["gpu"] is None or session["memory"]["gpu"]["peak"] > 0
    pools = {session["path"]: session["kv_pool"] for session in run.data["sessions"]}
    assert len({pool["tokens"] for pool in pools.values()}) == 1  # the same engine, by its facts and by its metrics
    assert pools["direct"]["source"] == "the runtime"
    assert all("kv_cache_block_metrics" in pools[path]["source"] for path in PATHS[1:])
    for cell in run.cells.values():
        assert cell["memory"]["host_peak_bytes"]["engine" if cell["path"] == "direct" else "server"] > 2**20


def test_prompts_reach_the_engine_with_the_length_that_was_asked(
    smoke: Smoke,
) -> None:
    run = smoke[0].run()
    for path in PATHS[1:]:
        for record in run.rounds(f"smoke-{path}-stream-out0008-bs002"):
            assert (record.requests.reported_prompt_tokens == record.requests.prompt_tokens).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scenario", "smok"], "did you mean 'smoke'"),
        (["--path", "ensembel"], "did you mean 'ensemble'"),
        (["--build", "mine=nowhere"], "nowhere is no directory"),
        (["--build", "mine"], "is not of the form NAME=DIR"),
        (["--build", "mine=scenarios"], "scenarios has no config.json"),
        (["--rounds", "0"], "--rounds 0 is not possible"),
    ],
)
def test_a_wrong_choice_is_one_sentence(project: BenchProject, arguments: list[str], sentence: str) -> None:
    done = project.bench(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in output(done)


def test_a_misspelt_key_names_file_line_and_fix(project: BenchProject) -> None:
    project.write_scenario("mine", "prompts: [你好]\noutput_tokens: 8\nbatch_size: [1]\n")
    done = project.bench("--scenario", "mine")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "mine.yaml:3: batch_size is not a known key" in done.stderr
    assert "did you mean 'batch_sizes'" in done.stderr


def test_a_run_that_measures_nothing_fails(project: BenchProject) -> None:
    project.write_scenario(
        "huge", "prompts: {synthetic: {input_tokens: 2000}}\noutput_tokens: 8\npaths: [direct]\nrounds: 1\n"
    )
    done = project.bench("--scenario", "huge")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "not applicable: prompt 2000 tokens exceed the build's max_input_len 1024" in done.stdout
    assert "No cell was measured" in done.stdout
    assert [cell["status"] for cell in project.run().cells.values()] == ["not_applicable"]


def test_a_killed_server_fails_its_cell_and_no_other(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    process = project.start("--scenario", "long", "--rounds", "1")
    server = wait_for_server(process)
    wait_for(lambda: any("enginebench-worker" in line for _, line in descendants(process)))
    time.sleep(2.0)  # into the stream of the first cell
    server.kill()
    text, _ = process.communicate(timeout=120)
    run = project.run()
    assert process.returncode == pytest.ExitCode.TESTS_FAILED, text
    assert [cell["status"] for cell in run.cells.values()] == ["failed", "measured"]
    failed = next(iter(run.cells.values()))
    assert failed["metrics"] == {}
    assert failed["reason"] in text
    assert failed["reason"].count("\n") == 0


def test_ctrl_c_leaves_a_readable_run_and_no_process(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    process = project.start("--scenario", "smoke", "--scenario", "long", "--path", "ensemble")
    server = wait_for_server(process)
    wait_for(lambda: bool(project.runs()) and len(project.run().cells) == 4)
    time.sleep(2.0)  # into the long cell
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    run = project.run()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert run.data["interrupted"]
    assert run.missing_cells == ["long-ensemble-stream-out0600-bs001"]
    assert (project.runs()[-1] / "report.html").is_file()
    assert server in family
    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_attaching_to_a_running_server(tmp_path: Path, project: BenchProject) -> None:
    serve = [sys.executable, "-m", "enginebench.cli", "serve", "--bls-instances", "2"]
    with serving(serve, tmp_path) as url:
        done = project.bench("--scenario", "smoke", "--path", "ensemble", "--triton-url", url)
        assert done.returncode == 0, output(done)
        assert project.run().data["attached_url"] == url
        done = project.bench("--scenario", "smoke", "--path", "ensemble", "--triton-url", "http://127.0.0.1:9")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "Nothing at http://127.0.0.1:9 answers" in done.stderr


@pytest.mark.parametrize("path", ["openai-completions", "openai-chat"])
def test_an_openai_server_is_a_path_too(project: BenchProject, path: str) -> None:
    with ScriptedServer(ScriptedOpenAi()) as server:
        done = project.bench("--scenario", "smoke", "--path", path, "--openai-url", server.url)
    assert done.returncode == 0, output(done)
    assert {cell["status"] for cell in project.run().cells.values()} == {"measured"}
    done = project.bench("--scenario", "smoke", "--path", path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "name it with --openai-url" in done.stderr


@pytest.mark.parametrize(
    ("url", "path", "sentence"),
    [
        ("garbage", "ensemble", "is no server URL"),
        ("http://[::1]:1", "ensemble", "IPv6"),
        ("http://127.0.0.1:9", "direct", "of no use without a path to it"),
    ],
)
def test_a_wrong_url_is_refused_before_anything_runs(project: BenchProject, url: str, path: str, sentence: str) -> None:
    done = project.bench("--scenario", "smoke", "--path", path, "--triton-url", url)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr
    assert not project.runs()


def test_a_dead_model_process_is_named(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    process = project.start("--scenario", "long", "--path", "ensemble")
    wait_for_server(process)
    wait_for(lambda: any("enginebench-worker" in line for _, line in descendants(process)))
    time.sleep(2.0)  # into the stream
    core = next(
        child for child, line in descendants(process) if any("/tensorrt_llm/1/model.py" in part for part in line)
    )
    core.kill()
    text, _ = process.communicate(timeout=120)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED, text
    reason = next(iter(project.run().cells.values()))["reason"]
    assert "The process of Triton's model 'tensorrt_llm'" in reason
    assert reason in text


def test_the_live_line_is_seen_on_a_terminal(project: BenchProject) -> None:
    command = shlex.join(project.command("--scenario", "smoke", "--path", "direct", "--rounds", "3"))
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        cwd=project.root, env=environment(), capture_output=True, text=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "cell 1 of 4" in done.stdout
    assert "round 2/3" in done.stdout


def test_a_place_that_cannot_be_written_is_one_sentence(project: BenchProject) -> None:
    build = project.root / "build"
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=32), build)
    (project.root / "reports").write_text("a file where the directory should be")
    done = project.bench("--scenario", "smoke", "--path", "direct", "--build", f"mine={build}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "cannot be written" in output(done)
    assert "Traceback" not in output(done)


class serving:  # noqa: N801 - a context manager that reads like a function
    """``enginebench serve`` in a process of its own; its URL."""

    def __init__(self, command: list[str], directory: Path):
        self._process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()[0]

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=30)


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    serve = [sys.executable, "-m", "enginebench.cli", "serve"]
    with serving(serve, tmp_path) as url:
        port = url.rsplit(":", 1)[1]
        done = subprocess.run(
            [*serve, "--port", port], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"enginebench: Port {port} on 127.0.0.1 is in use")
    assert done.stderr.count("\n") == 1


def test_names_of_cells_work_with_pytests_selection(project: BenchProject) -> None:
    done = project.bench("--collect-only", "-q", "-k", "novel-zh and ensemble and bs008")
    items = [line for line in done.stdout.splitlines() if "::" in line]
    assert [item.partition("[")[2] for item in items] == [
        "novel-zh-ensemble-stream-out0128-bs008]",
        "novel-zh-ensemble-nostream-out0128-bs008]",
    ]


def descendants(process: "subprocess.Popen[str]") -> Iterator[tuple[psutil.Process, list[str]]]:
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            yield child, child.cmdline()


def wait_for_server(process: "subprocess.Popen[str]") -> psutil.Process:
    def find() -> psutil.Process | None:
        return next((child for child, line in descendants(process) if line and "bin/tritonserver" in line[0]), None)

    wait_for(lambda: find() is not None)
    server = find()
    assert server is not None
    return server


def wait_for(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)
