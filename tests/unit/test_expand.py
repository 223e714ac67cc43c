"""Cells of scenarios: each combination once, ids that work with -k, and the time that they take."""

from itertools import product
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from hypothesis import given
from hypothesis import strategies as st

from enginebench.errors import ScenarioError
from enginebench.plan.cells import PATHS, Cell
from enginebench.plan.expand import cells, estimate_s, expand, requests_per_round
from enginebench.plan.load import Batch
from enginebench.plan.scenario import Scenario
from enginebench.plan.selection import Selection, load_selection

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def distinct(values: st.SearchStrategy[int]) -> st.SearchStrategy[list[int]]:
    return st.lists(values, min_size=1, max_size=4, unique=True)


def make(name: str = "example", **keys: object) -> Scenario:
    return Scenario.model_validate({"prompts": ["Hello"], "output_tokens": [8], **keys}, context={"name": name})


@given(
    sizes=distinct(st.integers(1, 999)),
    tokens=distinct(st.integers(1, 9999)),
    streaming=st.lists(st.booleans(), min_size=1, unique=True),
    paths=st.lists(st.sampled_from(PATHS), min_size=1),
)
def test_every_combination_once(sizes: list[int], tokens: list[int], streaming: list[bool], paths: list[str]) -> None:
    scenario = make(batch_sizes=sizes, output_tokens=tokens, streaming=streaming)
    made = cells(scenario, paths)
    expected = {Cell("example", *parts) for parts in product(paths, streaming, tokens, map(Batch, sizes))}
    assert set(made) == expected
    assert len(made) == len(expected)


@given(
    names=st.lists(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,8}", fullmatch=True), min_size=1, max_size=3, unique=True),
    sizes=distinct(st.integers(1, 2048)),
    tokens=distinct(st.integers(1, 100000)),
)
def test_ids_are_unique_and_can_be_chosen(names: list[str], sizes: list[int], tokens: list[int]) -> None:
    scenarios = tuple(make(name, batch_sizes=sizes, output_tokens=tokens, streaming=[True, False]) for name in names)
    ids = [cell.id for cell in expand(Selection(scenarios, None, None), PATHS).cells]
    assert len(set(ids)) == len(ids) == len(names) * len(PATHS) * 2 * len(sizes) * len(tokens)
    for each in ids:
        Expression.compile(f"{each} and not other")  # what -k does with it


def test_the_scenarios_own_paths_are_the_default() -> None:
    assert {cell.path for cell in cells(make(paths=["bls"]))} == {"bls"}
    assert {cell.path for cell in cells(make())} == {"direct", "ensemble"}


def test_cells_of_a_path_stand_together() -> None:
    selection = Selection((make("one"), make("two")), None, None)
    assert [cell.id.rpartition("-stream")[0] for cell in expand(selection).cells] == [
        "one-direct",
        "two-direct",
        "one-ensemble",
        "two-ensemble",
    ]


def test_an_unknown_path() -> None:
    with pytest.raises(ScenarioError, match=r"no path 'ensembl'; did you mean 'ensemble'"):
        cells(make(), ["direct", "ensembl"])
    with pytest.raises(ScenarioError, match=r"no path 'triton'; choose from direct, core, [^(]+$"):
        cells(make(), ["triton"])


def test_long_answers_are_left_out_with_a_reason() -> None:
    expansion = expand(Selection((make(output_tokens=[128, 1024], paths=["direct"]),), 128, "default"))
    assert [cell.output_tokens for cell in expansion.cells] == [128]
    assert list(expansion.left_out) == ["example-direct-stream-out1024-bs001"]
    assert "longer than the 128 output tokens of the set" in expansion.left_out["example-direct-stream-out1024-bs001"]


@given(prompts=st.integers(1, 40), size=st.integers(1, 40), requests=st.none() | st.integers(1, 100))
def test_rounds_are_full_batches(prompts: int, size: int, requests: int | None) -> None:
    scenario = make(prompts=["Hello"] * prompts, requests=requests)
    count = requests_per_round(scenario, Batch(size))
    assert count % size == 0
    assert 0 <= count - (requests or max(prompts, size)) < size


def test_the_estimate_is_steps_and_prefill() -> None:
    scenario = make(prompts=["a"] * 4, batch_sizes=[2], rounds=3, warmup_rounds=1)
    (cell,) = cells(scenario, ["direct"])
    took = estimate_s(cell, scenario, prompt_tokens=100, step_s=0.01, prefill_token_s=0.001)
    assert took == pytest.approx(4 * (2 * 8 * 0.01 + 4 * 100 * 0.001))
    fewer = estimate_s(cell, scenario, prompt_tokens=100, step_s=0.01, prefill_token_s=0.001, rounds=1)
    assert fewer == pytest.approx(took / 2)


def test_the_default_set_takes_about_four_minutes_and_measures_each_cell_for_a_second() -> None:
    selection = load_selection([], SCENARIOS)
    scenarios = {scenario.name: scenario for scenario in selection.scenarios}
    longest = {"who-are-you": 4, "novel-zh": 15, "chat": 60, "long-prompt": 512}
    total_s = 0.0
    for cell in expand(selection, ["direct", "ensemble"]).cells:
        scenario = scenarios[cell.scenario]
        whole = estimate_s(cell, scenario, prompt_tokens=longest[cell.scenario], step_s=0.012, prefill_token_s=0.0003)
        total_s += whole
        assert whole * scenario.rounds / (scenario.rounds + scenario.warmup_rounds) > 1, cell.id
    assert 150 < total_s < 225  # the rest of the four minutes is for starting engines and servers
