"""A run in the terminal: its verdict, every cell, and one cell in full."""

import re
from pathlib import Path
from typing import Any

import pytest

from enginebench.errors import RunError
from enginebench.report.cells import cells_of
from enginebench.report.terminal import summary_text
from enginebench.report.terminal_cell import cell_text
from tests.support import sample_run
from tests.support.big_run import CELL, write_big_run
from tests.unit.test_export import RUNS


def shown(run: sample_run.Run, directory: Path, cell: str | None = None, *, colour: bool = False) -> str:
    sample_run.write_run(run, directory)
    (directory / "report.html").touch()
    if cell is None:
        return summary_text(directory, width=100, colour=colour)
    return cell_text(directory, cell, width=100, colour=colour)


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_every_cell_is_there(make: Any, tmp_path: Path) -> None:
    run = make()
    text = shown(run, tmp_path)
    whole = re.sub(r"\s", "", text)
    assert all(cell[:40].replace(" ", "") in whole for cell in run["plan"]["cells"])
    assert "\x1b" not in text
    assert str(tmp_path / "report.html") in text


def test_the_verdict_comes_first_and_findings_last(tmp_path: Path) -> None:
    text = shown(sample_run.typical_run(), tmp_path)
    order = [
        "reference engine",
        "1 failed, ",
        "its numbers exercise the flow",
        "TTFT",
        "Round 3 took 9% longer",
        "page:",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "the server died in mid-stream: exit status 139" in text


def test_a_run_without_an_end_has_no_page(tmp_path: Path) -> None:
    sample_run.write_run(sample_run.one_cell_run() | {"finished": None}, tmp_path)
    text = summary_text(tmp_path, width=100, colour=False)
    assert "never finished" in text
    assert f"no page yet: enginebench report {tmp_path} writes it" in text


def test_colour_only_where_it_is_wanted(tmp_path: Path) -> None:
    assert "\x1b[" in shown(sample_run.typical_run(), tmp_path, colour=True)


def test_rounds_are_drawn_from_zero(tmp_path: Path) -> None:
    run = sample_run.one_cell_run()
    (cell,) = run["cells"].values()
    cell["metrics"]["output_tokens_per_s"]["per_round"] = [80.0, 40.0, None, 80.0]
    assert "█▅·█" in shown(run, tmp_path)


def test_a_cell_has_every_statistic(tmp_path: Path) -> None:
    run = sample_run.full_run()
    cell = next(cell for cell in cells_of(run) if cell.statistic("ttft", "p90") is None and cell.measured)
    text = shown(run, tmp_path, cell.id)
    ttft = cell.value("ttft")
    assert ttft is not None
    assert text.splitlines()[0] == cell.id
    line = next(line for line in text.splitlines() if line.startswith("TTFT "))
    assert f" {ttft * 1e3:.1f} " in line
    assert " — " in line
    assert "Output tokens/s" in text
    assert "How values lie" not in text  # there are no tables


def test_a_cell_with_tables_shows_how_its_values_lie(tmp_path: Path) -> None:
    write_big_run(tmp_path / "run", 500, tokens=20, rounds=2)
    text = cell_text(tmp_path / "run", CELL.id, width=100, colour=False)
    for part in ("How values lie", "Over time, from 0.0 s", "requests in flight", "The slowest requests:"):
        assert part in text
    slowest = text[text.index("The slowest") :].splitlines()[2:]
    latencies = [float(line.split()[5].replace(",", "")) for line in slowest]
    assert len(latencies) == 5
    assert latencies == sorted(latencies, reverse=True)


def test_a_part_of_an_id_will_do_when_it_is_of_one_cell(tmp_path: Path) -> None:
    run = sample_run.typical_run()
    assert shown(run, tmp_path, "long-prompt-ensemble-stream-out0016-bs001").startswith("long-prompt-ensemble")
    assert "failed: the server died" in shown(run, tmp_path, "long-prompt-ensemble-stream-out0016-bs008")
    with pytest.raises(RunError, match=r"'novel' means \d+ cells: .*type more"):
        shown(run, tmp_path, "novel")
    with pytest.raises(RunError, match="has no cell 'nonsense'; its cells are"):
        shown(run, tmp_path, "nonsense")


@pytest.mark.parametrize("make", [sample_run.unbounded_run, sample_run.hostile_run, sample_run.interrupted_run])
def test_any_cell_can_be_shown(make: Any, tmp_path: Path) -> None:
    run = make()
    for cell in cells_of(run):
        assert cell.id.splitlines()[0] in shown(run, tmp_path, cell.id)
