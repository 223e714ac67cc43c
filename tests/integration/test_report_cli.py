"""``enginebench report``, ``show`` and ``export`` as a user types them."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enginebench.cli import main
from tests.support import sample_run

OLD, NEW = "2026-11-20T00-00-00-aaaa", "2026-11-21T00-00-00-bbbb"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for run_id, run in ((OLD, sample_run.one_cell_run()), (NEW, sample_run.typical_run())):
        sample_run.write_run(run | {"id": run_id}, tmp_path / "reports" / "runs" / run_id)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_writes_the_page_beside_the_run_or_elsewhere(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "2026-11-20"]) == 0
    page = root / "reports" / "runs" / OLD / "report.html"
    assert page.is_file()
    assert str(page) in capsys.readouterr().out
    assert main(["report", "latest", "--out", "mail.html"]) == 0
    assert "mail.html" in capsys.readouterr().out
    assert NEW in (root / "mail.html").read_text(encoding="utf-8")
    assert not (root / "reports" / "runs" / NEW / "report.html").exists()


def test_report_opens_a_browser(root: Path) -> None:
    script = root / "browser"
    script.write_text('#!/bin/sh\necho "$1" > opened\n')
    script.chmod(0o755)
    command = [sys.executable, "-m", "enginebench.cli", "report", "--index", "--open"]
    subprocess.run(command, cwd=root, env=os.environ | {"BROWSER": str(script)}, check=True, timeout=300)
    assert (root / "opened").read_text().strip() == (root / "reports" / "index.html").as_uri()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["report"], "Nothing says which run is meant"),
        (["report", OLD, NEW, OLD], "is named 2 times: name each run once"),
        (["report", "--index", OLD], "leave out RUN and --out"),
        (["report", "nonsense"], "There is no run 'nonsense'"),
        (["show", "2026"], "'2026' means 2 runs"),
        (["show", OLD, "--cell", "nonsense"], "has no cell 'nonsense'"),
        (["export", OLD, "--json", "--requests"], "--requests goes with --csv alone"),
        (["show", "x" * 300], "File name too long"),
        (["export", OLD, "--csv", "--requests"], "holds no request of any cell"),
        (["export", OLD, "--csv", "--out", "reports"], "cannot be written (Is a directory)"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_show(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(root / "reports" / "runs" / NEW / "run.json")]) == 0
    assert "1 failed" in capsys.readouterr().out
    assert main(["show", "latest", "--cell", "novel-zh-direct-stream-out0128-bs001"]) == 0
    assert "E2E latency" in capsys.readouterr().out


def test_export(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", OLD, "--csv"]) == 0
    assert len(list(csv.DictReader(capsys.readouterr().out.splitlines()))) == 1
    assert main(["export", OLD, "--json", "--out", "view.json"]) == 0
    assert json.loads(Path("view.json").read_text(encoding="utf-8"))["run_id"] == OLD
    assert main(["export", OLD, "--markdown", "--out", "made/for/run.md"]) == 0
    assert Path("made/for/run.md").read_text(encoding="utf-8").startswith("# default")


def test_a_reader_that_has_enough_is_no_error(root: Path) -> None:
    command = f"{sys.executable} -m enginebench.cli export {NEW} --json | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '{\n "schema', "")
