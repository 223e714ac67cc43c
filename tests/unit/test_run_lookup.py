"""What a user types for a run, and what is said when it means none or several."""

from pathlib import Path

import pytest

from enginebench.errors import RunError
from enginebench.run_lookup import all_runs, find_run

IDS = ("2026-11-22T21-14-47-a1b2", "2026-11-22T21-14-47-a1b2c", "2026-11-23T08-00-00-ffff")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for run_id in IDS:
        directory = tmp_path / "reports" / "runs" / run_id
        directory.mkdir(parents=True)
        (directory / "run.json").write_text("{}")
    (tmp_path / "reports" / "runs" / "2026-11-24T00-00-00-dead").mkdir()  # no run.json: no run
    return tmp_path


@pytest.mark.parametrize(
    ("text", "run_id"),
    [(IDS[0], IDS[0]), (IDS[1], IDS[1]), ("2026-11-23", IDS[2]), ("latest", IDS[2])],
    ids=["id that begins another", "id", "prefix", "latest"],
)
def test_ids(root: Path, text: str, run_id: str) -> None:
    assert find_run(text, root) == root / "reports" / "runs" / run_id


def test_places(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = root / "reports" / "runs" / IDS[0]
    assert find_run(str(directory), root / "elsewhere") == directory
    assert find_run(str(directory / "run.json"), root / "elsewhere") == directory
    monkeypatch.chdir(directory)
    assert find_run("run.json", root / "elsewhere").resolve() == directory
    assert find_run(".", root / "elsewhere").resolve() == directory


def test_several(root: Path) -> None:
    with pytest.raises(RunError, match=r"'2026-11' means 3 runs \(.*\): type more of the id"):
        find_run("2026-11", root)


@pytest.mark.parametrize("text", ["nonsense", "", "2026-11-24"])
def test_none(root: Path, text: str) -> None:
    with pytest.raises(RunError, match=f"There is no run '{text}'.*the latest there is {IDS[2]}"):
        find_run(text, root)


def test_no_runs_at_all(tmp_path: Path) -> None:
    assert all_runs(tmp_path) == []
    with pytest.raises(RunError, match=r"There is no run 'latest'.*holds none"):
        find_run("latest", tmp_path)
