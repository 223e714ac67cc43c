"""Stored runs as series: where they step, what is new there, and what is no series."""

import json
from pathlib import Path
from typing import Any

import pytest

from enginebench.errors import RunError
from enginebench.report.trend import trend_json, trend_text
from enginebench.run.trend import runs_of, series_of
from tests.support.ab_runs import CELL, stored
from tests.support.sample_run import write_run


def history(levels: list[float]) -> list[dict[str, Any]]:
    """A run an hour; its build and commit change with the level."""
    runs = []
    for number, level in enumerate(levels):
        wobble = 1 + 0.004 * ((number * 7) % 5 - 2) / 2
        made = stored(level * wobble, f"run-{number:02d}")
        made["created"] = f"2026-11-22T{number:02d}:00:00Z"
        made["build"] |= {"name": "main", "fingerprint": f"sha256:{str(level)[-1] * 64}"}
        made["environment"]["git"] = {"commit": str(level)[-1] * 40, "dirty": False}
        runs.append(made)
    return runs


def test_a_step_is_found_with_what_is_new_there() -> None:
    (series,) = series_of(history([0.01] * 8 + [0.012] * 8), ["tpot_p50"])
    (step,) = series.steps
    assert step.index == 8
    assert step.change == pytest.approx(0.2, abs=0.01)
    assert step.worse
    assert step.differs == ("files of the build 1111111111 → 2222222222", "commit 1111111111 → 2222222222")
    text = trend_text((series,), 16)
    assert "run-08" in text
    assert "1 series with a step" in text
    assert json.loads(trend_json((series,)))["series"][0]["steps"][0]["index"] == 8


def test_a_higher_rate_is_better() -> None:
    (series,) = series_of(history([0.012] * 8 + [0.01] * 8), ["output_tokens_per_s"])
    assert [step.worse for step in series.steps] == [False]


def test_a_quiet_series_has_no_step() -> None:
    found = series_of(history([0.01] * 16))
    assert [series.metric for series in found] == ["ttft_p50", "tpot_p50", "e2e_latency_p50", "output_tokens_per_s"]
    assert not any(series.steps for series in found)


def test_other_machines_and_workloads_are_series_of_their_own() -> None:
    runs = history([0.01] * 8 + [0.012] * 8)
    for made in runs[8:]:
        made["environment"]["cpu"]["model"] = "another"
    assert [len(series.points) for series in series_of(runs, ["tpot_p50"])] == [8, 8]
    runs = history([0.01] * 4)
    runs[3]["plan"]["scenarios"]["tiny"]["output_tokens"] = [17]
    assert [len(series.points) for series in series_of(runs, ["tpot_p50"])] == [3, 1]


def test_a_new_driver_is_a_step_and_no_other_machine() -> None:
    runs = history([0.01] * 8 + [0.012] * 8)
    for number, made in enumerate(runs):
        made["environment"]["gpus"] = [{"name": "NVIDIA H200", "driver": "550" if number < 8 else "560"}]
    (series,) = series_of(runs, ["tpot_p50"])
    assert "driver 550 → 560" in series.steps[0].differs


def test_missing_values_are_passed_over() -> None:
    runs = history([0.01] * 8 + [0.012] * 8)
    runs[8]["cells"][CELL]["metrics"]["tpot"]["summary"]["p50"] = None
    runs[9]["cells"][CELL]["status"] = "failed"
    (series,) = series_of(runs, ["tpot_p50"])
    assert len(series.points) == 15
    assert series.points[series.steps[0].index].run_id == "run-10"


def test_runs_are_found_and_sorted_by_time(tmp_path: Path) -> None:
    runs = history([0.01] * 3)
    for made in reversed(runs):
        write_run(made, tmp_path / "reports" / "runs" / made["id"])
    ids = ["run-00", "run-01", "run-02"]
    assert [made["id"] for made in runs_of([], tmp_path)[0]] == ids
    assert [made["id"] for made in runs_of([str(tmp_path / "reports" / "runs")], tmp_path)[0]] == ids
    assert [made["id"] for made in runs_of(["run-01", "run-01"], tmp_path)[0]] == ["run-01"]


def test_a_run_of_another_version_is_passed_over(tmp_path: Path) -> None:
    old, new = history([0.01] * 2)
    for made in (old | {"schema": "enginebench/run/0"}, new):
        write_run(made, tmp_path / "reports" / "runs" / made["id"])
    runs, unreadable = runs_of([], tmp_path)
    assert [made["id"] for made in runs] == ["run-01"]
    assert "enginebench/run/0" in unreadable[0]


def test_nothing_to_look_at_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run in reports/runs"):
        runs_of([], tmp_path)
    with pytest.raises(RunError, match="holds no runs"):
        runs_of([str(tmp_path)], tmp_path)
    with pytest.raises(RunError, match="did you mean 'tpot_p50'"):
        series_of(history([0.01]), ["tpot_50"])


def test_a_cell_that_no_run_has_is_said() -> None:
    with pytest.raises(RunError, match="No run has a cell whose id holds 'nope'"):
        series_of(history([0.01]), cell="nope")
