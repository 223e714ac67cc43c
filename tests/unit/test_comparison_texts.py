"""One view model in four dresses: terminal, Markdown, JUnit, and the step summary of GitHub Actions."""

import argparse
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from enginebench.cli.options import publish, write
from enginebench.errors import RunError
from enginebench.report.comparison import Comparison
from enginebench.report.comparison_junit import comparison_junit
from enginebench.report.comparison_markdown import comparison_markdown
from enginebench.report.comparison_terminal import comparison_text
from enginebench.run.comparison import Terms, compare
from tests.support.ab_runs import CELL, sides


def made(slower: float = 0.2, policy: str = "release", name: str = "new") -> Comparison:
    old, new = sides(slower)
    new["build"]["name"] = name
    return compare(old, new, Terms(policy=policy))  # type: ignore[arg-type]


def test_the_terminal_says_outcome_numbers_and_how_they_came_about() -> None:
    text = comparison_text(made(), width=100, colour=False)
    assert text.startswith("Regression: new against old\n")
    assert "reference engine: these numbers say nothing about TensorRT-LLM" in text
    assert "8 pairs of blocks in ABBA order" in text
    row = next(line for line in text.splitlines() if CELL in line and "TPOT p50" in line)
    assert row.split()[-1] == "regression"
    assert row.split()[-3:-1] == ["±5%", "<0.001"]
    assert f"{CELL}/tpot_p50: regression +20% (" in text  # as in the table
    assert "+20%" in row


def test_the_same_change_may_decide_beside_few_others_and_not_beside_many() -> None:
    """Of one change and interval, q tells why one is a regression and the other inconclusive."""
    found = made(slower=0.065)
    (gated,) = found.gated
    watched = next(each for each in found.watched if each.endpoint.name == "ttft_p50")
    doubted = replace(watched, outcome="inconclusive", q_value=0.086)
    text = comparison_text(replace(found, verdicts=(gated, doubted)), width=100, colour=False)
    row = next(line for line in text.splitlines() if "TTFT p50" in line)
    assert row.split()[-2:] == ["0.086", "inconclusive"]
    assert "a regression needs 0.05 or less." in text


@pytest.mark.parametrize(
    ("slower", "policy", "said"),
    [
        (0.0, "release", "Pass:"),
        (0.05, "release", "Inconclusive:"),
        (0.05, "pr", "Pass with doubts:"),
        (0.2, "pr", "Regression:"),
    ],
)
def test_the_headline_is_the_exit_code_in_words(slower: float, policy: str, said: str) -> None:
    assert comparison_text(made(slower, policy), width=100, colour=False).startswith(said)
    assert said in comparison_markdown(made(slower, policy)).splitlines()[0]


def test_markdown_has_a_row_for_every_gated_number_and_hides_the_others() -> None:
    lines = comparison_markdown(made()).splitlines()
    rows = [line for line in lines if line.startswith("| ✗ regression")]
    assert f"| ✗ regression | `{CELL}` | TPOT p50 |" in rows[0]
    assert all(line.count("|") == 10 for line in lines if line.startswith("|"))
    assert lines.index("<details><summary>3 numbers watched, 3 worse, 0 better</summary>") > lines.index(rows[0])


def test_markdown_is_not_written_by_names() -> None:
    text = comparison_markdown(made(name="<script>|*a*`b`"))
    assert "<script>" not in text
    assert "Regression: &lt;script>\\|\\*a\\*\\`b\\` against old" in text


@pytest.mark.parametrize(
    ("slower", "policy", "child"),
    [(0.0, "pr", "system-out"), (0.2, "pr", "failure"), (0.05, "pr", "skipped"), (0.05, "release", "error")],
)
def test_junit_has_a_case_for_every_gated_number(slower: float, policy: str, child: str) -> None:
    suite = ElementTree.fromstring(comparison_junit(made(slower, policy, name="a\x00b&<")))
    (case,) = suite.findall("testcase")
    assert (case.get("classname"), case.get("name")) == (f"enginebench.{CELL}", "tpot_p50")
    assert [each.tag for each in case] == [child]
    counts = {"failure": "failures", "error": "errors", "skipped": "skipped"}
    assert {name: suite.get(name) for name in counts.values()} == {
        name: str(int(kind == child)) for kind, name in counts.items()
    }


def test_runs_that_cannot_be_compared_are_an_error_in_junit_and_no_table() -> None:
    old, new = sides()
    new["cells"].clear()
    found = compare(old, new, Terms())
    suite = ElementTree.fromstring(comparison_junit(found))
    assert suite.get("errors") == suite.get("tests") != "0"
    assert f"Cell {CELL} was measured in the old run" in comparison_text(found, width=100, colour=False)


def test_a_directory_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a directory"):
        write(tmp_path, "text")


def test_the_step_summary_is_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = {kind: tmp_path / "deep" / f"c.{kind}" for kind in ("json", "markdown", "junit")}
    publish(made(), argparse.Namespace(gated_only=True, **files))
    assert summary.read_text(encoding="utf-8") == f"before\n{files['markdown'].read_text(encoding='utf-8')}\n"
    assert all(file.stat().st_size for file in files.values())
    assert "3 numbers watched" not in capsys.readouterr().out
