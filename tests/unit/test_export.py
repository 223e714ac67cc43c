"""Exports hold what the record holds: whole numbers, an empty field for no value, text that stays in its place."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from enginebench.measure.metrics import METRICS, cell_metrics
from enginebench.report.cells import cells_of
from enginebench.report.export import cells_csv, requests_csv, view_json
from enginebench.report.markdown import run_markdown
from enginebench.report.tables import anchors_of, matrix
from enginebench.report.view import MatrixRow
from enginebench.store import Run, RunStore, load_run
from tests.support import sample_run
from tests.support.rounds import Row, round_of
from tests.unit.test_store import HEADER, result

RUNS = {
    "typical": sample_run.typical_run,
    "gpu": sample_run.gpu_run,
    "empty": sample_run.empty_run,
    "failures": sample_run.failures_run,
    "interrupted": sample_run.interrupted_run,
    "hostile": sample_run.hostile_run,
}


def stored(record: dict[str, Any], directory: Path) -> Run:
    return load_run(sample_run.write_run(record, directory))


def read(parts: Iterable[str]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(parts))))


def shown(record: dict[str, Any]) -> list[MatrixRow]:
    """The rows of the page's table of cells."""
    cells = cells_of(record)
    return [row for group in matrix(record, cells, anchors_of(cells)).groups for row in group.rows]


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_every_cell_has_a_line_with_its_numbers(make: Any, tmp_path: Path) -> None:
    run = stored(make(), tmp_path)
    lines = read(cells_csv(run))
    cells = cells_of(run.data)
    assert [line["cell"] for line in lines] == [cell.id for cell in cells]
    for line, cell in zip(lines, cells, strict=True):
        assert line["status"] == cell.status
        assert line["reason"] == (cell.reason or "")
        for metric in METRICS:
            for name, value in ((f"{metric.name}_p99_s", cell.statistic(metric.name, "p99")),
                                (f"{metric.name}_p50_s", cell.statistic(metric.name, "p50")),
                                (f"{metric.name}_count", cell.statistic(metric.name, "count"))):  # fmt: skip
                if name in line:
                    assert line[name] == ("" if value is None else str(value))
    if make is sample_run.gpu_run:
        assert float(lines[0]["gpu_peak_bytes"]) == 20.5 * 2**30


def test_columns_name_their_units() -> None:
    run = Run(Path(), sample_run.one_cell_run())
    (line,) = read(cells_csv(run))
    assert {"ttft_p50_s", "tokens_per_s_per_user_p90", "output_tokens_per_s", "goodput_per_s",
            "slo_attainment_fraction", "slip_failed"} <= set(line)  # fmt: skip
    assert line["slo_attainment_fraction"] == ""
    assert float(line["output_tokens_per_s"]) == cells_of(run.data)[0].value("output_tokens_per_s")


def test_a_line_per_request(tmp_path: Path) -> None:
    rounds = [
        round_of(Row([(5, 1)]), warmup=True, round_index=-1),
        round_of(
            Row([(5, 1), (9, 2)], sent=1.0),
            Row([], asked=3, outcome="error", error='服务器说："不",\n再见'),
            Row([(8, -1), (9, -1)], told=5),
            block=2,
        ),
        round_of(Row([(30, 4)]), streaming=False, round_index=1),
    ]
    store = RunStore.create(tmp_path, HEADER)
    metrics = {name: each.as_json() for name, each in cell_metrics(rounds).items()}
    store.write_cell("a", result(metrics=metrics), rounds)
    store.write_cell("b", result("failed", reason="no"), [])
    lines = read(requests_csv(load_run(store.directory)))
    assert [(line["cell"], line["round_index"], line["block"], line["warmup"], line["index"]) for line in lines] == [
        ("a", "-1", "0", "true", "0"),
        *(("a", "0", "2", "false", str(index)) for index in range(3)),
        ("a", "1", "0", "false", "0"),
    ]
    _, good, bad, uncounted, whole = lines
    assert (float(good["ttft_s"]), float(good["tpot_s"]), float(good["slip_s"])) == (0.005, 0.002, 0.001)
    assert (bad["outcome"], bad["error"]) == ("error", '服务器说："不",\n再见')
    assert (bad["first_ns"], bad["ttft_s"], bad["e2e_latency_s"]) == ("", "inf", "inf")
    assert (uncounted["tokens"], uncounted["first_tokens"], uncounted["tpot_s"]) == ("5", "", "")
    assert (whole["ttft_s"], whole["tpot_s"], float(whole["e2e_latency_s"])) == ("", "", 0.03)
    assert int(good["first_ns"]) == rounds[1].requests.first_ns[0]


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_the_view_is_json_and_the_same_each_time(make: Any, tmp_path: Path) -> None:
    text = view_json(stored(make(), tmp_path))
    assert text == view_json(stored(make(), tmp_path))
    view = json.loads(text)
    assert view["schema"] == "enginebench/view/1"
    assert view["verdict"]["headline"]
    assert sum(len(group["rows"]) for group in view["matrix"]["groups"]) == len(shown(make()))


@pytest.mark.parametrize("make", RUNS.values(), ids=RUNS)
def test_markdown_has_a_row_per_cell(make: Any, tmp_path: Path) -> None:
    text = run_markdown(stored(make(), tmp_path))
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| Answer", "| ---"))]
    assert len(rows) == len(shown(make()))
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) <= 1
    assert text.startswith("# ")


def test_markdown_shows_hostile_names_as_they_stand(tmp_path: Path) -> None:
    text = run_markdown(stored(sample_run.hostile_run(), tmp_path))
    assert "\\<script\\>alert(1)" in text
    assert "<script" not in text.replace("\\<", "")
