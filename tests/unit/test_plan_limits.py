"""Cells that a build cannot run are told before anything is measured, with the line that asks for too much."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from enginebench.builds.tokenizer import open_tokenizer
from enginebench.plan.cells import ID_PATHS, PATHS
from enginebench.plan.expand import expand
from enginebench.plan.selection import load_selection
from enginebench.reference.tokenizer import END_ID
from enginebench.run.plan import PlannedCell, make_plan
from tests.support.profiled_run import small_build


def planned(root: Path, lines: Sequence[object], output_tokens: str = "from_file", path: str = "direct") -> PlannedCell:
    (root / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "mine.yaml").write_text(
        f"prompts: {{file: a.jsonl}}\noutput_tokens: {output_tokens}\npaths: {path}\norder: shuffled\n"
    )
    build, selection = small_build(root), load_selection([str(root / "mine.yaml")], root)  # 600 in, 700 in all
    (cell,) = make_plan(build, open_tokenizer(build), selection, expand(selection).cells, {}).cells
    return cell


def line(prompt: int, answer: int) -> object:
    return {"input_length": prompt, "output_length": answer}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line(600, 100), line(4, 690)], None),  # the longest prompt and the longest answer do not meet
        (
            [line(4, 4), line(600, 101)],
            "a.jsonl:2: prompt 600 + output 101 tokens exceed the build's max_seq_len 700",
        ),
        ([line(601, 1)], "a.jsonl:1: prompt 601 tokens exceed the build's max_input_len 600"),
        (
            [line(601, 1), line(4, 4), line(9, 699)],
            "a.jsonl:3: prompt 9 + output 699 tokens exceed the build's max_seq_len 700 (others that do not fit: 1)",
        ),
        (
            [{"input_ids": [7, 1024], "output_tokens": 2}],
            "a.jsonl:1: token id 1024 is beyond the build's vocabulary of 1024",
        ),
    ],
)
def test_each_line_has_to_fit(tmp_path: Path, lines: Sequence[object], said: str | None) -> None:
    assert planned(tmp_path, lines).not_applicable == said


@pytest.mark.parametrize("path", PATHS)
def test_ids_beyond_the_vocabulary_are_told_on_every_path(tmp_path: Path, path: str) -> None:
    """Before what their text would become, and before lengths: those would be told of ids that do not exist."""
    lines = [{"input_ids": [7] * 601}, {"input_ids": [7, 30000, 9]}]
    reason = planned(tmp_path, lines, output_tokens="2", path=path).not_applicable
    assert reason == "a.jsonl:2: token id 30000 is beyond the build's vocabulary of 1024 (others that do not fit: 1)"


def test_ids_that_a_text_does_not_give_back_keep_cells_from_paths_that_take_text(tmp_path: Path) -> None:
    lines = ["why?", {"input_ids": [END_ID, 300]}]
    found = {path: planned(tmp_path, lines, "2", path).not_applicable for path in PATHS}
    reason = (
        "a.jsonl:2: 2 ids become 1 when their text is encoded again, and this path takes text: measure direct and core "
        "alone, or use synthetic prompts"
    )
    assert found == {path: None if path in ID_PATHS else reason for path in PATHS}


def test_one_length_for_all_answers_has_to_fit_the_longest_prompt(tmp_path: Path) -> None:
    cell = planned(tmp_path, [line(4, 4), line(600, 4)], output_tokens="101")
    assert cell.not_applicable == "a.jsonl:2: prompt 600 + output 101 tokens exceed the build's max_seq_len 700"
