"""Profiled reruns of the reference engine, in worker processes: what each kind leaves, or says when it cannot."""

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from enginebench.errors import EnginebenchError
from enginebench.measure.profilers import NO_RANGES
from enginebench.measure.worker_process import Worker
from enginebench.plan.cells import Cell
from enginebench.plan.load import Batch
from enginebench.profile.gaps import PREFILL
from enginebench.profile.nsys import worker_wrapper
from enginebench.profile.rerun import check_request
from enginebench.report.profiles import profiles_section
from enginebench.run.attached import Attached
from enginebench.run.plan import Plan
from enginebench.store_profiles import Profile, read_profiles
from tests.support.bench_project import BenchProject
from tests.support.embedded import needs_triton
from tests.support.fake_cuda import driver_in, needs_compiler
from tests.support.profiled_run import nsys_on_path, profile, small_plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return small_plan(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def plain(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profile]:
    """Every kind on a machine that has neither nsys nor torch, by kind."""
    root = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "/usr/bin:/bin")
        profile(root, plan, ("python", "torch", "nsys", "iterations"))
    return {each.kind: each for each in read_profiles(root)}


def test_a_long_prompt_is_named_as_what_delayed_the_streams_beside_it(plain: dict[str, Profile]) -> None:
    found = plain["iterations"]
    (record,) = found.rounds()
    gaps = [gap for gap in found.data["gaps"] if gap["cause"] == PREFILL]
    assert gaps, found.data["gaps"]
    long_ones = [index for index, prompt in enumerate(record.requests.prompt_tokens) if prompt == 480]
    assert any(f"request {index} (480 tokens)" in gap["evidence"] for gap in gaps for index in long_ones)
    assert all(gap["explained_s"] <= gap["s"] for gap in gaps)


def test_iterations_lie_on_the_axis_of_the_requests(plain: dict[str, Profile]) -> None:
    found = plain["iterations"]
    (record,) = found.rounds()
    table = found.columns("iterations")
    assert set(record.chunks.stamp_ns.tolist()) <= set(table["stamp_ns"].tolist())
    assert table["context_tokens"].sum() == record.requests.prompt_tokens.sum()
    # a request's first token comes of the step that ends its prompt
    assert table["generation_tokens"].sum() == record.requests.tokens.sum() - len(record.requests)
    assert found.data["requests"]["waiting_s"] is not None
    engine = found.data["engine"]
    assert engine["prefill_s"] + engine["decode_s"] + engine["idle_s"] == pytest.approx(engine["window_s"], rel=0.05)


def test_the_worker_and_the_engine_are_sampled_in_python(plain: dict[str, Profile]) -> None:
    found = plain["python"]
    assert found.taken
    assert {row["thread"] for row in found.data["functions"]} == {"worker", "engine"}
    engine = [row["place"] for row in found.data["functions"] if row["thread"] == "engine"]
    assert any("enginebench/reference" in place for place in engine)
    assert "pyinstrument" in (found.directory / "python-engine.html").read_text().lower()


def test_what_is_missing_is_named_and_the_rest_stays_good(plain: dict[str, Profile]) -> None:
    assert "install NVIDIA Nsight Systems" in plain["nsys"].data["reason"]
    assert "has no torch: install it there" in plain["torch"].data["reason"]
    assert not plain["nsys"].taken
    assert not plain["torch"].taken


def test_the_page_shows_what_there_is(plain: dict[str, Profile]) -> None:
    root = plain["iterations"].directory.parents[2]
    section = profiles_section({"id": "2026", "build": {"kind": "reference"}, "cells": {}}, root)
    assert section is not None
    captions = [table.caption.partition(":")[0] for table in section.tables]
    assert captions[0] == "The longest gaps between tokens, and what caused them"
    assert "Python functions by their own time" in captions
    state = {row[0].text.rpartition(", ")[2]: row[1].text for row in section.tables[-1].rows}
    assert state["iterations"] == "taken"
    assert state["nsys"].startswith("not taken: There is no nsys on PATH")


@pytest.fixture
def under_nsys(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan as if its build were for a GPU, where a driver and nsys are installed."""
    monkeypatch.setenv("PATH", nsys_on_path(tmp_path / "bin"))
    monkeypatch.setenv("LD_LIBRARY_PATH", driver_in(tmp_path / "lib"))
    return replace(plan, build=replace(plan.build, config={"build_config": {"device": "cuda"}}))


@needs_compiler
def test_nsys_runs_the_worker_around_one_round(under_nsys: Plan, tmp_path: Path) -> None:
    profile(tmp_path, under_nsys, ("nsys",))
    (found,) = read_profiles(tmp_path)
    assert found.taken, found.data["reason"]
    argv = json.loads((found.directory / "report.nsys-rep").read_text())["argv"]
    assert {"--capture-range=cudaProfilerApi", "--capture-range-end=stop", "--trace=cuda,nvtx,osrt"} <= set(argv)
    assert found.data["command"][:2] == [str(tmp_path / "bin" / "nsys"), "profile"]
    assert [row["family"] for row in found.data["families"]] == ["gemm", "attention", "norm", "memcpy"]
    assert found.data["files"] == [
        "report.nsys-rep", "report_kernels.csv", "report_memory.csv", "report_ranges.csv",
    ]  # fmt: skip
    assert found.data["notes"] == [NO_RANGES]
    assert len(found.rounds()) == 1


@needs_compiler
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("importer", "report.qdstrm and could not make a report"),
        ("export", "Exportation error: Cannot read from stream"),
    ],
)
def test_what_breaks_in_nsys_is_said(
    broken: str, said: str, under_nsys: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NSYS_BROKEN", broken)
    told = profile(tmp_path, under_nsys, ("nsys",))
    (found,) = read_profiles(tmp_path)
    assert said in " ".join([found.data["reason"] or "", *found.data["notes"]])
    assert found.taken is (broken == "export")  # the report is there, for nsys-ui
    assert str(found.data["reason"] or found.directory) in told[0]
    assert profiles_section({"id": "2026", "build": {"kind": "reference"}, "cells": {}}, tmp_path) is not None


def test_an_nsys_whose_worker_is_killed_ends_in_order(tmp_path: Path) -> None:
    """It would leave its agent otherwise."""
    nsys_on_path(tmp_path / "bin")
    wrapper = worker_wrapper(str(tmp_path / "bin" / "nsys"), tmp_path)
    worker = Worker.start(None, tmp_path / "worker.log", wrapper=wrapper)
    inner = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    assert inner
    assert not any(process.is_running() for process in inner)
    assert "Generated:" in (tmp_path / "worker.log").read_text()  # the last that nsys says


@needs_compiler
def test_an_nsys_that_does_not_start_is_quoted(under_nsys: Plan, tmp_path: Path) -> None:
    (tmp_path / "bin" / "nsys").write_text(
        f"#!{sys.executable}\nimport sys\nsys.exit('a library of mine is missing')\n"
    )
    profile(tmp_path, under_nsys, ("nsys",))
    (found,) = read_profiles(tmp_path)
    assert "it said last: a library of mine is missing" in found.data["reason"]


@needs_triton
def test_a_server_of_ours_is_captured_by_nsys_and_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", nsys_on_path(tmp_path / "bin"))
    served = small_plan(tmp_path, "core")
    profile(tmp_path, served, ("iterations", "nsys"))
    traced, captured = read_profiles(tmp_path)
    (record,) = traced.rounds()
    spans = traced.spans()
    assert len(spans) == len(record.requests)
    starts = sorted(span["stamps_ns"]["REQUEST_START"][0] for span in spans)
    assert all(sent < start for sent, start in zip(sorted(record.requests.sent_ns.tolist()), starts, strict=True))
    assert traced.data["source"].startswith("gauges of the server")
    assert json.loads((captured.directory / "report.nsys-rep").read_text())["ran"] == ["stopped"]
    assert captured.data["command"][1] == "launch"
    assert captured.taken
    assert captured.data["gpu"]["window_s"] == pytest.approx(0.012)


def test_few_cells_at_once(plan: Plan) -> None:
    check_request(["iterations"], replace(plan, cells=plan.cells * 4), Attached())
    with pytest.raises(EnginebenchError, match="5 are selected: narrow them to 4"):
        check_request(["iterations"], replace(plan, cells=plan.cells * 5), Attached())
    check_request([], replace(plan, cells=plan.cells * 5), Attached())


def test_what_no_cell_can_give_is_said_before_anything_is_measured(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnginebenchError, match=r"--profile torch: .* has no torch: install it there"):
        check_request(["torch"], plan, Attached())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnginebenchError, match="--profile nsys: There is no nsys on PATH"):
        check_request(["iterations", "nsys"], plan, Attached())
    monkeypatch.setenv("PATH", nsys_on_path(tmp_path))
    with pytest.raises(EnginebenchError, match="opened and closed through CUDA, and build small computes on the host"):
        check_request(["nsys"], plan, Attached())
    served = replace(plan, cells=(replace(plan.cells[0], cell=replace(plan.cells[0].cell, path="core")),))
    with pytest.raises(EnginebenchError, match="--profile torch: The engine computes in Triton's process"):
        check_request(["torch"], served, Attached())
    check_request(["torch"], replace(plan, cells=()), Attached())


def test_the_option_profiles_after_the_measurement(tmp_path: Path) -> None:
    project = BenchProject.make(tmp_path)
    done = project.bench("--scenario", "smoke", "--path", "direct", "-k", "bs001", "--rounds", "1",
                         "--profile", "iterations")  # fmt: skip
    assert done.returncode == 0, done.stdout
    run = project.run()
    (found,) = [each for each in read_profiles(run.directory) if each.taken][:1]
    assert found.cell_id in run.cells
    assert found.data["profiled"] is True
    assert all(entry["path"] == "direct" for entry in run.data["sessions"])
    assert len(run.data["sessions"]) == 1  # the profiled engine is none of the run's
    page = (run.directory / "report.html").read_text()
    assert "Profiled reruns" in page
    traced = _trace_command(project)
    names = {event["name"] for event in traced}
    assert {"decode", "gap", "step", "active"} <= names


def _trace_command(project: BenchProject) -> list[dict[str, object]]:
    from enginebench.cli import main

    path = project.root / "out.json.gz"
    assert main(["trace", str(project.run().directory), "--out", str(path)]) == 0
    with gzip.open(path, "rt") as file:
        events: list[dict[str, object]] = json.load(file)["traceEvents"]
    return events


def test_a_run_without_records_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from enginebench.cli import main
    from tests.support.sample_run import run_of, write_run

    write_run(run_of([Cell("novel-zh", "direct", True, 128, Batch(1))]), tmp_path)
    assert main(["trace", str(tmp_path)]) == 1
    assert "nothing to show" in capsys.readouterr().err
