"""Sets, names and paths of scenarios."""

from pathlib import Path

import pytest

from enginebench.errors import ScenarioError
from enginebench.plan.selection import load_selection

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SETS = "default: {scenarios: [one, two], max_output_tokens: 8}\nall: {scenarios: two}\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        (tmp_path / f"{name}.yaml").write_text("prompts: Hello\noutput_tokens: 8\n")
    (tmp_path / "sets.yaml").write_text(SETS)
    return tmp_path


def names(*asked: str, directory: Path) -> list[str]:
    return [scenario.name for scenario in load_selection(asked, directory).scenarios]


def test_without_names_it_is_the_default_set(directory: Path) -> None:
    selection = load_selection([], directory)
    assert [scenario.name for scenario in selection.scenarios] == ["one", "two"]
    assert (selection.max_output_tokens, selection.set_name) == (8, "default")


def test_sets_names_and_paths_are_joined_without_repetition(directory: Path) -> None:
    assert names("three", "default", directory=directory) == ["three", "one", "two"]
    assert names("one", str(directory / "one.yaml"), directory=directory) == ["one"]


@pytest.mark.parametrize("asked", [["default", "three"], ["default", "all"], ["one"]])
def test_a_limit_holds_only_among_sets_that_have_one(directory: Path, asked: list[str]) -> None:
    selection = load_selection(asked, directory)
    assert (selection.max_output_tokens, selection.set_name) == (None, None)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("thre", "there is no scenario or set 'thre' in .*; did you mean 'three'"),
        ("defualt", "did you mean 'default'"),
        ("zzz", "choose from default, all, one, three, two"),
        ("elsewhere/one.yaml", "elsewhere/one.yaml: there is no such file"),
        ("sets", "there is no scenario or set 'sets'"),
    ],
)
def test_unknown_names(directory: Path, asked: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        load_selection([asked], directory)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("default:\n  scenarios: [one, tow]\n", r"sets\.yaml:2: there is no scenario 'tow' for .* did you mean 'two'"),
        ("default: {scenario: one}\n", r"sets\.yaml:1: default\.scenario is not a known key; did you mean 'scenarios'"),
        ("one: {scenarios: two}\n", r"sets\.yaml:1: the set 'one' has the name of a scenario"),
        ("default: {scenarios: one, max_output_tokens: 0}\n", "max_output_tokens must be more than 0, not 0"),
        ("1: {scenarios: one}\n", "must be text, not 1"),
    ],
)
def test_wrong_sets(directory: Path, sets: str, said: str) -> None:
    (directory / "sets.yaml").write_text(sets)
    with pytest.raises(ScenarioError, match=said):
        load_selection([], directory)


def test_two_files_with_one_name(directory: Path) -> None:
    (directory / "more").mkdir()
    (directory / "more/one.yaml").write_text("prompts: Hello\noutput_tokens: 8\n")
    with pytest.raises(ScenarioError, match=r"one\.yaml and .*one\.yaml have the same name; rename one"):
        load_selection(["one", str(directory / "more/one.yaml")], directory)


def test_a_folder_without_scenarios(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"there is no scenario or set 'default'.*none to choose from"):
        load_selection([], tmp_path)


def test_shipped_sets_load() -> None:
    assert load_selection([], SCENARIOS).max_output_tokens == 128
    assert len(load_selection(["full"], SCENARIOS).scenarios) == 4
