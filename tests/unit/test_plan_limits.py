"""Cells that a build cannot run are told before anything is measured, with the line that asks for too much."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from enginebench.builds.tokenizer import open_tokenizer
from enginebench.plan.expand import expand
from enginebench.plan.selection import load_selection
from enginebench.run.plan import PlannedCell, make_plan
from tests.support.profiled_run import small_build


def planned(root: Path, lines: Sequence[object], output_tokens: str = "from_file") -> PlannedCell:
    (root / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "mine.yaml").write_text(
        f"prompts: {{file: a.jsonl}}\noutput_tokens: {output_tokens}\npaths: direct\norder: shuffled\n"
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


def test_one_length_for_all_answers_has_to_fit_the_longest_prompt(tmp_path: Path) -> None:
    cell = planned(tmp_path, [line(4, 4), line(600, 4)], output_tokens="101")
    assert cell.not_applicable == "a.jsonl:2: prompt 600 + output 101 tokens exceed the build's max_seq_len 700"
