"""Engines side by side: when they may be, and what is then not known of their memory."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from enginebench.builds.build import read_build
from enginebench.errors import RunError
from enginebench.run.ab_memory import REASON, cell_side_by_side, session_side_by_side
from enginebench.run.ab_plan import AbPlan, Wishes, check_together, plan_ab
from enginebench.run.plan import Plan
from tests.support.ab_project import AbProject

TOGETHER = Wishes(scenarios=("tiny",), co_resident=True)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> AbProject:
    return AbProject.make(tmp_path_factory.mktemp("resident"))


def planned(project: AbProject, wishes: Wishes = TOGETHER) -> AbPlan:
    builds = {
        side: read_build(name, project.root / "builds" / name) for side, name in (("old", "old"), ("new", "slow"))
    }
    return plan_ab(builds, wishes, project.root)  # type: ignore[arg-type]


def of_llm(plan: Plan, engine: Mapping[str, Any], **arguments: Any) -> Plan:
    """The same cells of a checkpoint for TensorRT-LLM."""
    build = replace(plan.build, kind="pytorch", layout="checkpoint", version=None, llm_args=arguments)
    return replace(plan, build=build, engine=engine)


def test_reference_builds_have_pools_of_a_fixed_size(project: AbProject) -> None:
    assert planned(project).co_resident
    assert not planned(project, replace(TOGETHER, co_resident=False)).co_resident


@pytest.mark.parametrize("config", [{"free_gpu_memory_fraction": 0.5}, {"max_tokens": None}, {}])
def test_a_pool_that_takes_a_share_is_refused(project: AbProject, config: dict[str, Any]) -> None:
    plans = planned(project).plans
    with pytest.raises(RunError, match=r"that of slow is none: add --engine kv_cache_tokens=N"):
        check_together({"old": plans["old"], "new": of_llm(plans["new"], {}, kv_cache_config=config)}, ())
    with pytest.raises(RunError, match=r"that of slow is none"):
        check_together({"old": plans["old"], "new": of_llm(plans["new"], {"kv_cache_fraction": 0.3})}, ())


def test_a_pool_that_was_given_its_size_is_fixed(project: AbProject) -> None:
    plans = planned(project).plans
    old = of_llm(plans["old"], {}, kv_cache_config={"max_tokens": 4096})
    check_together({"old": old, "new": of_llm(plans["new"], {"kv_cache_tokens": 4096})}, ())


def test_a_gate_on_memory_is_refused(project: AbProject) -> None:
    with pytest.raises(RunError, match="cannot gate gpu_memory"):
        planned(project, replace(TOGETHER, gates=("direct:gpu_memory:2%",)))


def test_a_server_is_refused(project: AbProject) -> None:
    with pytest.raises(RunError, match="on the path 'direct' alone"):
        planned(project, replace(TOGETHER, paths=("core",)))


def test_cells_that_want_the_engine_otherwise_are_refused(project: AbProject) -> None:
    plans = planned(project).plans
    (cell,) = plans["old"].cells
    other = replace(cell, scenario=cell.scenario.model_copy(update={"kv_cache_reuse": True}))
    with pytest.raises(RunError, match="kv_cache_reuse is on in some cells"):
        check_together({**plans, "old": replace(plans["old"], cells=(cell, other))}, ())


def test_what_the_gpu_showed_of_both_is_of_neither() -> None:
    entry = {"owner": "gpu", "bytes": 9, "source": "NVML", "expected_bytes": None}
    session = {
        "memory": {"gpu": {"after_load": 9}, "host": {"engine": {"peak": 5}}},
        "ledger": [
            {**entry, "what": "driver and idle contexts"},
            {**entry, "what": "weights", "source": "the runtime"},
            {**entry, "what": "engine processes, at most", "owner": "host"},
        ],
        "ledger_warnings": ["a leak"],
    }
    found = session_side_by_side(session)
    assert found["memory"] == {"gpu": None, "gpu_reason": REASON, "host": {"engine": {"peak": 5}}}
    assert [(each["bytes"], each["source"]) for each in found["ledger"]] == [
        (None, REASON), (9, "the runtime"), (9, "NVML")
    ]  # fmt: skip
    assert found["ledger_warnings"] == []
    cell: Any = {
        "memory": {"gpu_peak_bytes": 9, "host_peak_bytes": {}},
        "gpu": {"peak_bytes": 9, "mbu": 0.5, "notes": []},
    }
    cell["gpu"]["by_gpu"] = [{"peak_bytes": 9, "energy_j": 1.0}]
    told = cell_side_by_side(cell)
    assert told["memory"]["gpu_peak_bytes"] is None
    notes, by_gpu = [f"No GPU memory: {REASON}."], [{"peak_bytes": None, "energy_j": 1.0}]
    assert told["gpu"] == {"peak_bytes": None, "mbu": 0.5, "by_gpu": by_gpu, "notes": notes}
    assert "gpu" not in cell_side_by_side({"memory": cell["memory"]})
