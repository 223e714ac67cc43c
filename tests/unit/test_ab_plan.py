"""What an A/B measurement will do: order, seeds, endpoints, and builds that cannot be compared."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.build import Build, read_build
from enginebench.decide.looks import LOOKS
from enginebench.errors import EnginebenchError, RunError
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.run.ab_effect import introduction, smallest_effects
from enginebench.run.ab_plan import AbPlan, Wishes, plan_ab
from enginebench.run.ab_schedule import SIDES, Side, pair_seed, turns
from enginebench.run.noise import keep_sessions
from tests.support.ab_project import CELL, SMALL, AbProject
from tests.support.ab_runs import block, run

TINY = Wishes(scenarios=("tiny",))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> AbProject:
    return AbProject.make(tmp_path_factory.mktemp("plan"))


def build(root: Path, name: str, **options: int) -> Build:
    write_build(ReferenceOptions(**SMALL | options), root / "builds" / name)  # type: ignore[arg-type]
    return read_build(name, root / "builds" / name)


def planned(project: AbProject, wishes: Wishes = TINY, pairs: int | None = None, new: str = "slow") -> AbPlan:
    builds: dict[Side, Build] = {
        "old": read_build("old", project.root / "builds" / "old"),
        "new": read_build(new, project.root / "builds" / new),
    }
    return plan_ab(builds, wishes, project.root, pairs)


def test_builds_alternate_so_that_a_drift_cancels() -> None:
    order = [side for pair in range(4) for side in turns(pair)]
    assert "".join(side[0] for side in order) == "onnoonno"
    assert all(set(turns(pair)) == set(SIDES) for pair in range(9))


@given(st.integers(0, 2**31 - 1), st.integers(1, 1000), st.integers(1, 1000))
def test_every_pair_has_a_seed_of_its_own(base: int, one: int, other: int) -> None:
    first, second = pair_seed(base, one), pair_seed(base, other)
    assert (first == second) == (one == other)
    assert first is not None
    assert 0 <= first < 2**31
    assert first != base


def test_the_first_pair_asks_what_a_plain_run_asks() -> None:
    assert pair_seed(7, 0) is None


def test_the_default_is_all_looks_and_two_numbers_of_a_streaming_cell(project: AbProject) -> None:
    plan = planned(project)
    assert plan.looks == LOOKS
    assert [cell.id for cell in plan.cells] == [CELL]
    assert [each.key for each in plan.gated] == [f"{CELL}/tpot_p50", f"{CELL}/output_tokens_per_s"]
    assert plan.gate_source == "the default"
    assert planned(project, pairs=6).looks == (4, 6)


def test_the_command_line_goes_before_the_scenario(project: AbProject) -> None:
    scenario = project.root / "scenarios" / "mine.yaml"
    tiny = (project.root / "scenarios" / "tiny.yaml").read_text()
    gate = "gate: [{cell: direct-stream-out0008-bs002, metric: ttft_p50, margin: 10%}]\n"
    scenario.write_text(tiny + gate)
    named = planned(project, Wishes(scenarios=("mine",)))
    assert [(each.name, each.margin) for each in named.gated] == [("ttft_p50", 0.1)]
    assert named.gate_source == "the scenario"
    cell = "direct-stream-out0008-bs002"
    told = planned(project, Wishes(scenarios=("mine",), gates=(f"{cell}:requests_per_s:2.5%",)))
    assert [(each.name, each.margin) for each in told.gated] == [("requests_per_s", 0.025)]
    assert told.gate_source == "--gate"


def test_without_streaming_the_latency_of_answers_decides(project: AbProject) -> None:
    tiny = (project.root / "scenarios" / "tiny.yaml").read_text()
    (project.root / "scenarios" / "whole.yaml").write_text(f"{tiny}streaming: [false]\n")
    plan = planned(project, Wishes(scenarios=("whole",)))
    assert [each.name for each in plan.gated] == ["e2e_latency_p50", "output_tokens_per_s"]


def test_a_cell_that_only_the_old_build_can_run_is_a_problem(project: AbProject, tmp_path: Path) -> None:
    (project.root / "scenarios" / "long.yaml").write_text(
        "prompts: [你好]\noutput_tokens: [8, 24]\npaths: [direct]\n", encoding="utf-8"
    )
    narrow = build(tmp_path, "narrow", max_seq_len=20, max_input_len=12)
    old = read_build("old", project.root / "builds" / "old")
    wishes = Wishes(scenarios=("long",))
    plan = plan_ab({"old": old, "new": narrow}, wishes, project.root)
    assert [cell.output_tokens for cell in plan.cells] == [8]
    assert [problem.what for problem in plan.problems] == ["cell"]
    assert "out0024-bs001 cannot run on the new build" in plan.problems[0].sentence
    assert plan_ab({"old": narrow, "new": old}, wishes, project.root).problems == ()
    with pytest.raises(RunError, match="No cell can be measured with both builds"):
        plan_ab({"old": old, "new": narrow}, Wishes(scenarios=("long",), cells=("out0024",)), project.root)


def test_prompts_of_different_lengths_are_refused(project: AbProject, tmp_path: Path) -> None:
    (project.root / "scenarios" / "words.yaml").write_text(
        "prompts: [京]\noutput_tokens: 8\npaths: [direct]\n", encoding="utf-8"
    )
    other = build(tmp_path, "other", vocab_size=300)  # 京 is no token of it
    old = read_build("old", project.root / "builds" / "old")
    with pytest.raises(EnginebenchError, match="different tokenizers cannot be compared"):
        plan_ab({"old": old, "new": other}, Wishes(scenarios=("words",)), project.root)


def test_the_smallest_effect_is_told_when_noise_is_known(project: AbProject) -> None:
    plan = planned(project, pairs=8)
    assert smallest_effects(plan, project.root, 8) == {}
    assert "is not known" in introduction(plan, {})[-1]
    from enginebench.environment import environment
    from enginebench.plan.scenario import scenario_facts

    noisy = run([block(number, 0.01 * (1 + 0.02 * (number % 2))) for number in range(6)], cell_id=CELL)
    noisy["environment"] = environment()
    noisy["plan"]["scenarios"] = {"tiny": scenario_facts(plan.plans["old"].cells[0].scenario)}
    keep_sessions(noisy, project.root)
    effects = smallest_effects(plan, project.root, 8)
    assert set(effects) == {each.key for each in plan.gated}
    assert 0.05 < effects[f"{CELL}/tpot_p50"] < 0.2
    assert smallest_effects(plan, project.root, 4)[f"{CELL}/tpot_p50"] > effects[f"{CELL}/tpot_p50"]
    assert "finds a slowdown of +" in "\n".join(introduction(plan, effects))
