"""The recipes of docs/ci as they stand, run here: an equal build passes, a slower one exits with 10."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from enginebench.cli import main
from enginebench.store import load_run
from tests.support.ab_project import GATED_CELL, ROOT, AbProject

TINY = {"SCENARIO": "gated", "OLD_BUILD": "builds/old", "PAIRS": "3", "SESSIONS": "2"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> AbProject:
    return AbProject.make(tmp_path_factory.mktemp("gate"))


@pytest.mark.parametrize(("new", "code"), [("builds/equal", 0), ("builds/slow", 10)])
def test_the_pre_merge_recipe_tells_builds_apart(project: AbProject, new: str, code: int) -> None:
    done = project.recipe("github-actions-cpu.yml", "pre-merge", NEW_BUILD=new, **TINY)
    assert done.returncode == code, done.stdout + done.stderr
    suite = ElementTree.parse(project.root / "out" / "junit.xml").getroot()
    assert (suite.get("failures") != "0") == (code == 10)
    comment = (project.root / "out" / "comment.md").read_text(encoding="utf-8")
    assert comment.startswith("### ❌ Regression" if code else "### ✅ Pass")


def test_the_nightly_recipe_learns_noise_keeps_a_baseline_and_holds_runs_against_it(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    first = project.recipe("gitlab-ci.yml", "nightly", NEW_BUILD="builds/equal", **TINY)
    assert first.returncode in (0, 11), first.stdout + first.stderr  # two sessions tell little about a busy machine
    assert len(list(tmp_path.glob("reports/baselines/*/main.json"))) == 1
    assert len(list(tmp_path.glob("reports/noise/*/gated-*.json"))) == 1
    blocks = load_run(project.runs()[-1]).cells[GATED_CELL]["per_block"]  # of pytest bench/
    assert [(each["block"], each["pair"], each["broken"]) for each in blocks] == [(0, None, None)]
    (tmp_path / "reports" / "baselines").rename(tmp_path / "elsewhere")
    lost = project.run("gate", "latest", "--baseline", "main")
    assert lost.returncode == 1
    assert "There is no run 'main'" in lost.stderr


@pytest.mark.parametrize("recipe", sorted((ROOT / "docs" / "ci").glob("*.yml")), ids=lambda path: path.name)
def test_recipes_name_only_what_there_is(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command line of enginebench in a recipe is one that its parser takes."""
    text = recipe.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    commands = {line.split()[1] for line in text.replace("|| ", "\n").splitlines() if line.startswith("enginebench ")}
    for command in commands:
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        assert f"usage: enginebench {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gate", "nothing", "--baseline", "main"], "There is no run 'nothing'"),
        (["gate", "scenarios", "--baseline", "main"], "There is no run 'scenarios'"),
        (["compare", "latest", "scenarios/tiny.yaml"], "cannot be read"),
        (["baseline", "show", "nobody"], "There is no baseline 'nobody'"),
        (["noise", "--add", "nothing"], "There is no run 'nothing'"),
        (["noise", "--sessions", "0"], "measures nothing"),
        (["trend", "nowhere"], "There is no run 'nowhere'"),
    ],
)
def test_what_is_not_there_is_one_sentence(
    project: AbProject,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(project.root)
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
