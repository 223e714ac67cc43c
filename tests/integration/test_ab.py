"""``enginebench ab`` as a user types it: real engines in turns, two runs and a comparison left, whatever happens."""

import json
import signal
import time
from pathlib import Path
from statistics import geometric_mean

import psutil
import pytest

from enginebench.cli import main
from tests.support.ab_project import CELL, AbProject
from tests.support.processes import left_of

EXIT_CODES = (0, 10, 11, 12)
"""12, too: a busy machine may be more than the client can resolve."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[AbProject, str, int]:
    """Two pairs, once for all tests that look at what they left."""
    project = AbProject.make(tmp_path_factory.mktemp("ab"))
    done = project.run("ab", "builds/old", "slow=builds/slow", "--scenario", "tiny", "--pairs", "2", "--out", "out")
    assert done.returncode in EXIT_CODES, done.stdout + done.stderr
    return project, done.stdout, done.returncode


def test_blocks_alternate_with_the_same_seed_in_a_pair(measured: tuple[AbProject, str, int]) -> None:
    old, new = measured[0].sides()
    order = old.data["ab"]["order"]
    assert [(turn["pair"], turn["side"]) for turn in order] == [(0, "old"), (0, "new"), (1, "new"), (1, "old")]
    assert [turn["loads"] for turn in order] == [1, 1, 1, 1]
    assert order == new.data["ab"]["order"]
    seeds = [[entry["seed"] for entry in run.cells[CELL]["per_block"]] for run in (old, new)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 2


def test_the_sides_are_ordinary_runs_that_know_each_other(measured: tuple[AbProject, str, int]) -> None:
    old, new = measured[0].sides()
    assert (old.data["ab"]["other"], new.data["ab"]["other"]) == (new.id, old.id)
    assert (old.data["build"]["name"], new.data["build"]["name"]) == ("old", "slow")
    for run in (old, new):
        assert not run.data["interrupted"]
        assert (run.directory / "report.html").is_file()
        assert [session["block"] for session in run.data["sessions"]] == [0, 1]
        cell = run.cells[CELL]
        assert cell["rounds"] == 2  # one in each block
        assert {record.block for record in run.rounds(CELL)} == {0, 1}
        assert all(entry["metrics"]["tpot"]["p50"] > 0 for entry in cell["per_block"])
        assert cell["memory"]["host_peak_bytes"]["engine"] > 2**20


def test_the_plan_comes_first_and_the_verdict_last(measured: tuple[AbProject, str, int]) -> None:
    project, text, code = measured
    plan = text.index("enginebench ab: slow against old, 1 cell, up to 2 pairs")
    gated = text.index(f"gated (by the default): {CELL}/tpot_p50 ±5%")
    noise = text.index("measure the noise with enginebench noise")
    block = text.index("[3/4] pair 2/2 new slow")
    assert plan < gated < noise < block < text.index("slow against old", block)
    comparison = json.loads((project.root / "out" / "comparison.json").read_text())
    assert comparison["gate"]["exit_code"] == code
    assert comparison["design"]["paired"]
    tpot = next(each for each in comparison["verdicts"] if each["name"] == "tpot_p50")
    old, new = ([each["metrics"]["tpot"]["p50"] for each in run.cells[CELL]["per_block"]] for run in project.sides())
    assert tpot["change"] == pytest.approx(geometric_mean(new) / geometric_mean(old) - 1)
    assert min(old) < 0.035 < min(new)  # 10 ms a step against 40: what a busy machine adds is not in both blocks


def test_what_was_measured_can_be_compared_again(
    measured: tuple[AbProject, str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project, _, code = measured
    old, new = project.sides()
    monkeypatch.chdir(project.root)
    assert main(["gate", new.id, "--baseline", old.id]) == code
    assert "2 pairs of blocks in ABBA order" in capsys.readouterr().out
    assert main(["compare", old.id, new.id]) == 0


def test_engines_side_by_side_are_loaded_once(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    done = project.run(
        "ab", "builds/old", "slow=builds/slow", "--scenario", "tiny", "--pairs", "2", "--out", "out", "--co-resident"
    )
    assert done.returncode in EXIT_CODES, done.stdout + done.stderr
    assert "what is found holds for these two loads alone" in done.stdout
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert comparison["design"]["co_resident"]
    assert [turn["loads"] for turn in comparison["design"]["turns"]] == [1, 1, 0, 0]
    assert [note.split(":")[0] for note in comparison["notes"]] == [
        "Both engines were loaded once and stayed loaded side by side"
    ]
    for run in project.sides():
        (session,) = run.data["sessions"]
        assert session["memory"]["gpu"] is None
        assert "cannot be told from" in session["memory"]["gpu_reason"]
        cell = run.cells[CELL]
        assert {record.block for record in run.rounds(CELL)} == {0, 1}
        assert cell["memory"]["host_peak_bytes"]["other engine"] > 2**20  # it was there while this one was measured
        assert cell["memory"]["gpu_peak_bytes"] is None


def test_ctrl_c_leaves_both_runs_and_the_comparison_so_far(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    process = project.start("ab", "builds/old", "builds/equal", "--scenario", "tiny", "--pairs", "12", "--out", "out")
    wait_for_blocks(project, 3)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert "stopped by Ctrl-C" in text
    old, new = project.sides()
    assert old.data["interrupted"]
    assert new.data["interrupted"]
    pairs = json.loads((tmp_path / "out" / "comparison.json").read_text())["design"]["pairs"]
    assert 1 <= pairs < 12
    assert left_of(family) == []


def test_a_build_that_cannot_be_loaded_is_no_pass(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    engine = tmp_path / "builds" / "slow" / "rank0.engine"
    engine.write_bytes(engine.read_bytes()[:1000])
    done = project.run(
        "ab", "builds/old", "builds/slow", "--scenario", "tiny", "--pairs", "8", "--policy", "pr", "--out", "out"
    )
    assert done.returncode == 12, done.stdout + done.stderr
    assert "the new build gave no number in 2 pairs" in done.stdout
    assert "failed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["builds/nowhere", "builds/slow"], "builds/nowhere is no directory"),
        (["builds/old", "builds/slow", "--scenario", "tinny"], "did you mean 'tiny'"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--cell", "bs064"], "leaves no cell"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--pairs", "1"], "--pairs 1 cannot decide"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--rounds", "0"], "--rounds 0 is not possible"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--max-minutes", "0"], "no time to measure in"),
        (
            ["builds/old", "builds/slow", "--scenario", "tiny", "--path", "llmapi"],
            "needs a server that cannot be started",
        ),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--gate", f"{CELL}:tpot_p99:5%"], "needs 662 requests"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--gate", "x"], "names no cell"),
        (["builds/old", "builds/slow", "--scenario", "tiny", "--path", "core", "--co-resident"], "add --path direct"),
    ],
)
def test_a_wrong_choice_is_one_sentence_and_starts_nothing(
    measured: tuple[AbProject, str, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    project = measured[0]
    before = project.runs()
    monkeypatch.chdir(project.root)
    assert main(["ab", *arguments]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert project.runs() == before


def wait_for_blocks(project: AbProject, blocks: int, timeout_s: float = 180.0) -> None:
    """Until this many blocks of the first pairs have ended."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        runs = [json.loads((run / "run.json").read_text()) for run in project.runs()]
        if any(len((run.get("ab") or {}).get("order", ())) >= blocks for run in runs):
            return
        time.sleep(0.1)
    raise AssertionError(f"no {blocks} blocks in {timeout_s} s")
