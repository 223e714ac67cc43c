"""``pytest bench/ --benchmark-only`` as a user types it: a real engine, a real server, real files."""

import json
import subprocess
from typing import TypeAlias

import pytest

from tests.support.bench_project import BenchProject, answers, output
from tests.support.embedded import needs_triton

pytestmark = needs_triton

Done: TypeAlias = "subprocess.CompletedProcess[str]"
Smoke: TypeAlias = tuple[BenchProject, Done]

PATHS = ("direct", "core", "ensemble", "bls")
ALL_PATHS = tuple(argument for path in PATHS for argument in ("--path", path))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Smoke:
    """The smoke scenario on every path, once for all tests that look at what it left."""
    project = BenchProject.make(tmp_path_factory.mktemp("bench"))
    return project, project.bench("--scenario", "smoke", *ALL_PATHS)


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


def test_every_path_says_where_the_time_goes_and_what_is_left(smoke: Smoke) -> None:
    for cell in smoke[0].run().cells.values():
        layers = cell["layers"] if cell["path"] == "direct" else cell["server"]["layers"]
        falls = [layers[end] for end in ("first", "whole") if layers.get(end)]
        assert len(falls) == (2 if cell["streaming"] else 1)
        for fall in falls:
            assert all(part["source"] for part in fall["parts"])
            assert sum(part["s"] for part in fall["parts"]) + fall["residual_s"] == pytest.approx(fall["total_s"])


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


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> BenchProject:
    """Each kind of load on three paths, once for all tests that look at it."""
    project = BenchProject.make(tmp_path_factory.mktemp("loads"))
    project.write_scenario("loads", LOADS)
    done = project.bench("--scenario", "loads", *ALL_PATHS[:6])
    assert done.returncode == 0, output(done)
    return project


def test_each_kind_of_load_is_measured_by_its_own_function(loads: BenchProject) -> None:
    run = loads.run()
    labels = ("bs002", "c002", "r0040.00-gamma0.5")
    # path by path, so that cells share engines, whichever function takes them
    assert list(run.cells) == [
        f"loads-{path}-stream-out0006sd2-{label}" for path in ("direct", "core", "ensemble") for label in labels
    ]
    rows = json.loads((loads.runs()[-1] / "benchmark.json").read_text())["benchmarks"]
    functions = {row["params"]["load"]: row["name"].partition("[")[0] for row in rows}
    assert functions == dict(zip(labels, ("test_batch", "test_concurrency", "test_rate"), strict=True))
    for cell_id, cell in run.cells.items():
        slip = cell["metrics"]["slip"]["summary"]
        assert slip["count"] == cell["requests"]
        assert slip["min"] >= 0
        assert any(cell["steady_window_s"]) == ("steady_requests_per_s" in cell["metrics"])
        assert ("steady_requests_per_s" in cell["metrics"]) >= (cell["load"]["kind"] == "concurrency"), cell_id


def test_every_path_gets_the_same_requests_at_the_same_times(loads: BenchProject) -> None:
    run = loads.run()
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
        for path in ("direct", "core", "ensemble")
    ]
    assert asked[0] == asked[1] == asked[2]
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
