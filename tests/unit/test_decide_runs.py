"""What keeps two runs from being compared, what differs between them, steps in a series, and what decide may import."""

import ast
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.decide.causes import causes
from enginebench.decide.comparable import comparable
from enginebench.decide.model import Endpoint, Verdict
from enginebench.decide.steps import steps
from tests.support.sample_run import full_run, gpu_run

DECIDE = Path(__file__).parents[2] / "src" / "enginebench" / "decide"
ALLOWED = ("enginebench.decide.", "enginebench.plan.", "enginebench.measure.metrics", "enginebench.builds.diff",
           "enginebench.errors")  # fmt: skip

Change = Callable[[dict[str, Any]], None]
CELL = "novel-zh-direct-stream-out0128-bs008"


def small_run() -> dict[str, Any]:
    return gpu_run()


def changed(change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    old, new = small_run(), copy.deepcopy(small_run())
    change(new)
    return old, new


def set_gpu(key: str, value: Any) -> Change:
    return lambda run: run["environment"]["gpus"][0].__setitem__(key, value)


def set_cell(key: str, value: Any) -> Change:
    return lambda run: run["cells"][CELL].__setitem__(key, value)


def rename(run: dict[str, Any]) -> None:
    run["cells"]["novel-direct"] = run["cells"].pop(CELL)
    run["plan"]["cells"] = list(run["cells"])


def leave_out(run: dict[str, Any]) -> None:
    del run["cells"][CELL]
    run["plan"]["left_out"][CELL] = "1,024 output tokens exceed the 128 of the set"


def attach(run: dict[str, Any]) -> None:
    run["attached_url"] = "http://elsewhere:8000"


def attach_two(run: dict[str, Any]) -> None:
    run["attached_url"] = "http://one:8000"
    run["plan"]["servers"] = {"triton": ["http://one:8000", "http://two:8000"]}


def other_prompt(run: dict[str, Any]) -> None:
    run["plan"]["scenarios"]["novel-zh"]["prompts"] = [{"text": "你是谁？"}]


def test_a_run_may_be_compared_with_one_like_it() -> None:
    assert comparable(*changed(lambda run: run["build"].update(name="int8"))) == ()


@pytest.mark.parametrize(
    ("change", "what", "texts"),
    [
        (set_gpu("name", "NVIDIA L4"), "hardware", ["NVIDIA A10", "NVIDIA L4"]),
        (set_gpu("driver", "560.1"), "driver", ["550.54.15", "560.1"]),
        (set_gpu("power_limit_w", 100.0), "power", ["150.0", "100.0"]),
        (attach, "path", ["started by enginebench", "a running server"]),
        (attach_two, "path", ["started by enginebench", "2 running servers, measured as one"]),
        (other_prompt, "scenario", ["novel-zh", "玄幻小说", "你是谁"]),
        (set_cell("prompt_tokens", [14, 14]), "tokens", [CELL, "13 to 13", "14 to 14"]),
        (set_cell("stamp_kind", "process"), "path", [CELL, "engine", "process"]),
        (set_cell("status", "skipped"), "cell", [CELL, "skipped"]),
        (leave_out, "cell", [CELL, "left out: 1,024 output tokens"]),
    ],
)
def test_what_differs_is_named_with_both_values(change: Change, what: str, texts: list[str]) -> None:
    (problem,) = comparable(*changed(change))
    assert (problem.what, problem.allowed) == (what, False)
    for text in texts:
        assert text in problem.sentence
    (allowed,) = comparable(*changed(change), allow=(what,))
    assert allowed.allowed


def test_renamed_cells_are_missing_ones() -> None:
    missing, renamed = comparable(*changed(rename))
    assert missing.sentence == f"Cell {CELL} was measured in the old run, and in the new one it is not there."
    assert "Only the new run has novel-direct" in renamed.sentence


def test_without_gpus_the_processors_count() -> None:
    old, new = full_run(paths=("direct",)), full_run(paths=("direct",))
    new["environment"]["cpu"]["usable_cores"] = 1
    (problem,) = comparable(old, new)
    assert (
        problem.sentence == "The runs have other CPUs: AMD EPYC 7B13, 2 usable cores and AMD EPYC 7B13, 1 usable cores."
    )


def test_more_gpus_of_the_same_kind_are_other_hardware_and_nothing_else() -> None:
    old, new = small_run(), small_run()
    new["environment"]["gpus"] *= 2
    assert [problem.what for problem in comparable(old, new)] == ["hardware"]


def test_a_cell_that_the_old_run_lacks_is_no_problem() -> None:
    old, new = small_run(), small_run()
    del old["cells"][CELL]
    assert comparable(old, new) == ()


E2E = Endpoint(CELL, "e2e_latency", "p50", 0.05)


def found(change: Change) -> list[str]:
    return [cause.what for cause in causes(*changed(change), E2E, 0.2)]


def test_equal_runs_have_no_causes() -> None:
    assert causes(small_run(), small_run(), E2E, 0.2) == ()


def test_builds_versions_and_settings_are_told_the_weightiest_first() -> None:
    def change(run: dict[str, Any]) -> None:
        run["build"]["facts"] = {"build": {"quantisation": "W8A16"}, "limits": {"max_batch_size": 4}}
        run["environment"]["packages"]["numpy"] = "2.0.0"
        run["plan"]["engine"] = {"kv_fraction": 0.5}
        set_gpu("driver", "560.1")(run)

    assert found(change) == [
        "build: quantisation", "setting kv_fraction", "build: max_batch_size", "driver", "numpy",
    ]  # fmt: skip


def test_builds_that_differ_in_their_files_alone() -> None:
    assert found(lambda run: run["build"].update(fingerprint="sha256:0")) == ["build: files"]


def test_what_the_runtime_says_of_itself() -> None:
    assert found(lambda run: run["sessions"][0]["facts"].update(runtime="other")) == ["session: runtime"]


def test_what_the_build_says_is_not_said_again_by_the_runtime() -> None:
    def change(run: dict[str, Any]) -> None:
        run["build"]["facts"] = {"reference": {"min_step_ms": 14.0}}
        run["sessions"][0]["facts"]["min_step_ms"] = 14.0

    old, new = small_run(), small_run()
    old["sessions"][0]["facts"]["min_step_ms"] = 12.0
    change(new)
    assert [cause.what for cause in causes(old, new, E2E, 0.2)] == ["build: min_step_ms"]


@pytest.mark.parametrize(("p50_s", "named"), [(0.0003, []), (0.5, ["waiting for a slot, p50"])])
def test_a_wait_is_named_when_it_is_worth_it(p50_s: float, named: list[str]) -> None:
    old, new = small_run(), small_run()
    for run, wait_s in ((old, 0.0001), (new, p50_s)):
        run["cells"][CELL]["engine"] = {"queue": {"p50": wait_s, "mean": wait_s}}
    assert [cause.what for cause in causes(old, new, E2E, 0.2)] == named


def with_gpu(clock_mhz: float, throttled: float, batch: float) -> Change:
    def change(run: dict[str, Any]) -> None:
        run["cells"][CELL]["gpu"] = {"sm_clock_mhz": {"p50": clock_mhz}, "throttle": {"power cap": throttled}}
        run["cells"][CELL]["engine"] = {"batch_size": {"mean": batch}, "steps": 100}

    return change


def test_measured_differences_are_weighed_against_the_change() -> None:
    old, new = small_run(), small_run()
    with_gpu(1700, 0.0, 8.0)(old)
    with_gpu(1400, 0.6, 7.5)(new)
    throttling, clock, batch = causes(old, new, E2E, 0.2)
    assert throttling.sentence == "The GPU was held back by power cap for 0% of the time, and now for 60%."
    assert clock.sentence == "SM clock, median went from 1700 MHz to 1400 MHz (−18%)."
    assert "batch" in batch.what
    assert throttling.weight > clock.weight > 0.9 > batch.weight > 0.3


def test_a_slower_part_is_named_with_the_numbers_of_its_verdict() -> None:
    def change(run: dict[str, Any]) -> None:
        run["cells"][CELL]["metrics"]["tpot"]["summary"]["p50"] *= 1.4  # over all requests, not block by block

    tpot = Endpoint(CELL, "tpot", "p50", 0.05)
    verdicts = [
        Verdict(E2E, "regression", change=0.2, old=1.0, new=1.2),
        Verdict(tpot, "regression", change=0.25, old=0.012, new=0.015),
        Verdict(replace(tpot, statistic="p90"), "regression", change=0.5, old=0.012, new=0.018),
        Verdict(replace(tpot, cell_id="another"), "regression", change=0.5, old=0.012, new=0.018),
    ]
    (cause,) = causes(*changed(change), E2E, 0.2, verdicts)
    assert cause.sentence == "Decode: TPOT p50 went from 12 ms to 15 ms (+25%)."
    assert not causes(*changed(change), tpot, 0.25, verdicts[1:])  # that is the endpoint itself


def series(length: int, *, at: int | None = None, factor: float = 1.1, sd: float = 0.02, seed: int = 0) -> list[float]:
    values = 100 * np.exp(np.random.default_rng(seed).normal(0, sd, length))
    if at is not None:
        values[at:] *= factor
    return list(values)


def test_a_step_is_found_where_it_is() -> None:
    (step,) = steps(series(40, at=25))
    assert step.index == 25
    assert step.change == pytest.approx(0.1, abs=0.03)
    assert step.before == pytest.approx(100, rel=0.02)


def test_several_steps_are_found() -> None:
    values = np.concatenate([series(15), series(15, at=0, factor=1.2, seed=1), series(15, seed=2)])
    assert [step.index for step in steps(list(values))] == [15, 30]


def test_noise_alone_has_no_steps() -> None:
    alarms = sum(bool(steps(series(30, seed=seed))) for seed in range(100))
    assert alarms <= 5


def test_steps_that_are_too_small_or_too_short_do_not_count() -> None:
    assert steps(series(60, at=30, factor=1.01, sd=0.001)) == ()
    assert len(steps(series(60, at=30, factor=1.01, sd=0.001), smallest=0.005)) == 1
    assert steps([100.0] * 10 + [200.0]) == ()  # one run is no level
    assert steps([]) == steps([1.0]) == steps([1.0, 2.0, 3.0]) == ()


def test_missing_runs_are_passed_over() -> None:
    holes: list[float | None] = [None, *series(40, at=25)]
    holes.insert(10, float("inf"))
    assert [step.index for step in steps(holes)] == [27]


@given(st.lists(st.floats(1, 2), min_size=4, max_size=30), st.sampled_from([1e-6, 1e6]))
def test_units_do_not_matter_to_steps(values: list[float], scale: float) -> None:
    values = [round(value, 3) for value in values]
    here, there = steps(values), steps([value * scale for value in values])
    assert len(here) == len(there)


def test_sizes_that_a_runtime_tells_are_named_as_people_read_them() -> None:
    old, new = small_run(), small_run()
    path = old["cells"][E2E.cell_id]["path"]
    for run, size in ((old, 3 << 30), (new, 6 << 30)):
        run["sessions"] = [{"path": path, "facts": {"weight_bytes": size}}]
    sentences = [cause.sentence for cause in causes(old, new, E2E, 0.2)]
    assert "session: weight_bytes: 3 GiB → 6 GiB." in sentences


def test_decide_knows_no_files_no_engines_and_no_reports() -> None:
    for path in DECIDE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("enginebench"):
                assert f"{node.module}".startswith(ALLOWED), f"{path.name} imports {node.module}"
        assert "open(" not in path.read_text()


def test_scipy_is_imported_where_it_is_used() -> None:
    for path in DECIDE.glob("*.py"):
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert "scipy" not in " ".join(map(ast.unparse, top))
