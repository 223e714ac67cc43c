"""The page of all runs: a row each, the latest first, whatever state they are in."""

import json
import re
from pathlib import Path

import pytest

from enginebench.errors import RunError
from enginebench.report.index import write_index
from enginebench.report.page import write_report
from tests.support import sample_run


def written(root: Path) -> str:
    return write_index(root).read_text(encoding="utf-8")


def put(root: Path, run_id: str, run: sample_run.Run) -> Path:
    return sample_run.write_run(run | {"id": run_id}, root / "reports" / "runs" / run_id)


def test_a_row_for_every_run(tmp_path: Path) -> None:
    write_report(put(tmp_path, "2026-11-20T00-00-00-aaaa", sample_run.typical_run()))
    put(tmp_path, "2026-11-21T00-00-00-bbbb", sample_run.interrupted_run())
    html = written(tmp_path)
    assert html == written(tmp_path)
    latest, oldest = html.index("2026-11-21T00-00-00-bbbb"), html.index("2026-11-20T00-00-00-aaaa")
    assert latest < oldest
    assert 'href="runs/2026-11-20T00-00-00-aaaa/report.html"' in html
    assert 'href="runs/2026-11-21' not in html  # it has no page
    assert "set default" in html
    assert "reference engine, not TensorRT-LLM, AMD EPYC 7B13" in html
    assert "13 not reached, 13 of 26 cells measured." in html
    assert "Interrupted: the run was stopped before its end." in html


def test_links_are_relative_to_the_index(tmp_path: Path) -> None:
    page = write_report(put(tmp_path, "one", sample_run.one_cell_run()))
    (link,) = re.findall(r'href="(runs/[^"]+)"', written(tmp_path))
    assert (tmp_path / "reports" / link).resolve() == page.resolve()


def test_what_cannot_be_read_is_said_and_costs_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, "2026-11-22-good", sample_run.one_cell_run())
    (put(tmp_path, "2026-11-23-torn", sample_run.one_cell_run()) / "run.json").write_text("{")
    strange = sample_run.one_cell_run()
    del strange["build"]["kind"]
    put(tmp_path, "2026-11-24-strange", strange)
    html = written(tmp_path)
    assert "2026-11-23-torn/run.json cannot be read" in html
    assert "build.kind is missing: it is damaged" in html
    assert "The one cell was measured." in html


def test_no_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run in"):
        write_index(tmp_path)
    assert not list(tmp_path.iterdir())


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    put(tmp_path, "hostile", sample_run.hostile_run())
    html = written(tmp_path)
    assert "<script>alert" not in html
    (data,) = re.findall(r'id="run-data">(.*?)</script>', html, flags=re.DOTALL)
    assert json.loads(data) == {"runs": ["hostile"]}
