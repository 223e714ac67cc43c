"""A file whose lines say the prompt, the length of its answer and when it arrives: a scenario, through every layer."""

import json

import pyarrow.parquet as pq
import pytest

from enginebench.store import Run
from tests.support.bench_project import BenchProject, answers, output
from tests.support.embedded import needs_triton

pytestmark = needs_triton

PATHS = ("direct", "core", "ensemble", "bls")
LINES = (
    {"task_id": 0, "prompt": "Who are you?", "output_tokens": 3, "timestamp": 500},
    {"task_id": 1, "input_ids": [300, 301, 302], "output_tokens": 9, "timestamp": 520},
    {"input_length": 5, "output_length": 1, "hash_ids": [0], "timestamp": 540},
    {"text_input": "Hello!", "output_length": 7, "timestamp": 560},
)
PROMPT_TOKENS, ANSWERS = [12, 3, 5, 6], [3, 9, 1, 7]
SCENARIO = """
prompts: {file: asked.jsonl}
output_tokens: from_file
load:
  - {kind: batch, sizes: 6}
  - {kind: rate, trace: asked.jsonl}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Measured on every path, once for all tests that look at it."""
    project = BenchProject.make(tmp_path_factory.mktemp("lines"))
    project.write_scenario("asked", SCENARIO)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES)
    (project.root / "scenarios" / "asked.jsonl").write_text(lines, encoding="utf-8")
    paths = (argument for path in PATHS for argument in ("--path", path))
    done = project.bench("--scenario", "asked", "--rounds", "2", *paths)
    assert done.returncode == 0, output(done)
    return project.run()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("load", ["bs006", "t0050.00"])
def test_every_answer_is_as_long_as_its_line_says(run: Run, path: str, load: str) -> None:
    cell_id = f"asked-{path}-stream-out0005sd3-{load}"
    requests = 6 if load == "bs006" else 4  # a batch larger than the file begins it again
    expected = {
        "requested_tokens": [ANSWERS[index % 4] for index in range(requests)],
        "tokens": [ANSWERS[index % 4] for index in range(requests)],
        "prompt_tokens": [PROMPT_TOKENS[index % 4] for index in range(requests)],
        "reported_prompt_tokens": [PROMPT_TOKENS[index % 4] for index in range(requests)],
    }
    rows = pq.read_table(run.directory / "cells" / cell_id / "requests.parquet").to_pylist()
    assert {row["round"] for row in rows} == {0, 1, 2}  # the warm-up, and two rounds
    for number in range(3):
        one = sorted((row for row in rows if row["round"] == number), key=lambda row: row["index"])
        assert {key: [row[key] for row in one] for key in expected} == expected
    assert answers(run, cell_id) == answers(run, f"asked-direct-stream-out0005sd3-{load}")


@pytest.mark.parametrize("path", PATHS)
def test_metrics_count_the_tokens_of_each_request(run: Run, path: str) -> None:
    cell = run.cells[f"asked-{path}-stream-out0005sd3-t0050.00"]
    assert cell["status"] == "measured"
    tpot, rate = cell["metrics"]["tpot"]["summary"], cell["metrics"]["output_tokens_per_s"]["summary"]
    assert tpot["count"] <= 2 * 3  # an answer of one token has no time per token after it
    assert rate["value"] == pytest.approx(2 * sum(ANSWERS) / sum(cell["makespan_s"]))
