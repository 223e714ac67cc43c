"""Several runs side by side: what stands in the table, on the curves and in the warnings, and what is refused."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.cli import main
from enginebench.errors import RunError
from enginebench.plan.cells import Cell
from enginebench.plan.load import Batch
from enginebench.report.charts import chart_json
from enginebench.report.figures import Figure
from enginebench.report.lineup import Lineup, Value
from enginebench.report.lineup_page import lineup_page, write_lineup
from enginebench.report.lineup_table import LineupRow, table_of
from enginebench.report.lineup_terminal import lineup_text
from enginebench.report.point_labels import PLACES, places
from enginebench.run.baselines import save_baseline
from enginebench.run.lineups import line_up_stored
from tests.support import sample_run
from tests.support.compared import HOSTILE
from tests.support.lined_up import (
    BUILDS,
    CELL,
    DEGRADED,
    FAILED,
    INVALID,
    five,
    hostile,
    lined_up,
    on_a_laptop,
    put,
    unlike,
)
from tests.support.sample_environment import GIB


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Lineup:
    return lined_up(five(), tmp_path_factory.mktemp("five"))


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Lineup:
    return lined_up(unlike(), tmp_path_factory.mktemp("unlike"))


def value(lineup: Lineup, cell_id: str, label: str, name: str) -> Value:
    place = [each.name for each in lineup.quantities].index(name)
    row = next(row for row in lineup.rows if row.cell.id == cell_id)
    return next(entry.values[place] for entry in row.entries if entry.entrant.label == label)


def shown(lineup: Lineup, cell_id: str, label: str) -> LineupRow:
    group = next(group for group in table_of(lineup).groups if group.cell_id == cell_id)
    return next(row for row in group.rows if row.label == label)


def curves(lineup: Lineup) -> dict[str, Figure]:
    section = lineup_page(lineup).curves
    assert section is not None
    return {figure.title: figure for figure in section.figures}


def test_every_number_has_its_ratio_to_the_first_run(quantised: Lineup) -> None:
    for label, (factor, weights_gib, joules, gpus) in BUILDS.items():
        ratios = {each.name: value(quantised, CELL, label, each.name).ratio for each in quantised.quantities}
        assert ratios == {
            "ttft_p50_s": pytest.approx(factor),
            "tpot_p50_s": pytest.approx(factor),
            "e2e_latency_p50_s": pytest.approx(factor),
            "output_tokens_per_s": pytest.approx(1 / factor),
            "output_tokens_per_s_per_gpu": pytest.approx(1 / factor / gpus),
            "gpu_outside_pool_bytes": pytest.approx((weights_gib + 1) / 12.7),
            "gpu_peak_bytes": pytest.approx((weights_gib + 21.5) / 33.2),
            "energy_per_output_token_j": pytest.approx(joules / 2.4),
        }
    assert value(quantised, CELL, "int4-awq", "gpu_outside_pool_bytes").number == pytest.approx(4.9 * GIB, rel=1e-6)


def test_ratios_are_written_with_a_sign_that_tells_whether_rounds_overlap(tmp_path: Path) -> None:
    runs = five()
    for run in runs[1:3]:
        run["cells"][CELL]["metrics"]["tpot"] = json.loads(json.dumps(runs[0]["cells"][CELL]["metrics"]["tpot"]))
    for number in ("p50", "mean"):
        runs[1]["cells"][CELL]["metrics"]["tpot"]["summary"][number] = 0.0137
    rounds = runs[2]["cells"][CELL]["metrics"]["tpot"]["per_round"]
    runs[2]["cells"][CELL]["metrics"]["tpot"]["per_round"] = [2 * each for each in rounds]
    lineup = lined_up(runs[:3], tmp_path)
    texts = [shown(lineup, CELL, label).values[3].text for label in ("fp16", "int8-wo", "smoothquant")]
    assert texts == ["×1.00", "≈1.00", "×1.00"]


def test_what_a_run_lacks_is_in_the_table_with_its_reason(quantised: Lineup) -> None:
    failed, missing = shown(quantised, FAILED, "fp16"), shown(quantised, DEGRADED, "int8-wo")
    assert (failed.status, failed.values, failed.reason) == ("failed", (), "out of memory")
    assert (missing.status, missing.values, missing.reason) == ("missing", (), "this run has no such cell")
    ratio = shown(quantised, FAILED, "fp8-tp2").values[1]
    assert (ratio.missing, ratio.why) == (True, "fp16 did not measure this cell")
    made = table_of(quantised)
    assert all(len(group.rows) == len(BUILDS) for group in made.groups)
    assert made.notes == ("2 of 20 cells not measured by every run: the rows say why.",)


def test_doubtful_cells_keep_their_mark_and_reason(quantised: Lineup) -> None:
    assert shown(quantised, DEGRADED, "smoothquant").status_words == "DEGRADED"
    assert shown(quantised, INVALID, "int4-awq").status == "invalid"
    doubts = {each.text: [words for _, words in each.cells] for each in table_of(quantised).doubts}
    assert doubts["INVALID: the client could not resolve TTFT p50"] == ["int4-awq, direct, streaming, batch 16"]
    page = lineup_page(quantised)
    assert (page.level, page.headline) == (
        "warn", "5 builds over 20 cells: 18 measured by every run, 1 result INVALID, 1 result DEGRADED."
    )  # fmt: skip


def test_a_curve_has_a_point_a_load_and_the_front_none_that_is_invalid(quantised: Lineup) -> None:
    figure = curves(quantised)["novel-zh, direct, 128 tokens out"]
    (plot,) = figure.plots
    marks = {one.name: one for one in plot.marks}
    assert list(marks) == ["front", *BUILDS, "INVALID"]
    assert {name: len(one.x) for name, one in marks.items()} == {
        "front": 6, "fp16": 4, "int8-wo": 5, "smoothquant": 5, "int4-awq": 5, "fp8-tp2": 5, "INVALID": 1,
    }  # fmt: skip
    assert set(marks["INVALID"].x).isdisjoint(marks["front"].x)
    assert (plot.x.title, plot.y.title) == ("Tokens/s per user", "Tokens/s per GPU")
    assert figure.finding == (
        "On the front: int4-awq with 1 of 5 loads, fp8-tp2 with 5 of 5 loads. At batch 16, output tokens/s per GPU of "
        "fp16 are 983.8; int8-wo ×1.20, smoothquant ×1.41, int4-awq ×1.67, fp8-tp2 ×1.04. INVALID points are not part "
        "of the front."
    )
    assert [row[4].text for row in figure.table.rows if row[0].text == "int4-awq"] == [
        "no", "no", "no", "no: INVALID", "yes",
    ]  # fmt: skip


def test_a_sentence_has_the_signs_of_the_table(tmp_path: Path) -> None:
    runs = five()[:3]
    cells = [run["cells"]["novel-zh-ensemble-stream-out0128-bs032"]["metrics"] for run in runs]
    cells[1]["output_tokens_per_s_per_gpu"]["per_round"] = cells[0]["output_tokens_per_s_per_gpu"]["per_round"]
    finding = curves(lined_up(runs, tmp_path))["novel-zh, ensemble, 128 tokens out"].finding
    assert "; int8-wo ≈1.20, smoothquant ×1.41." in finding


def test_a_build_looks_the_same_in_every_figure(quantised: Lineup) -> None:
    for figure in curves(quantised).values():
        roles = {one.name: one.role for one in figure.plots[0].marks if one.name in BUILDS}
        assert roles == {label: f"build-{number}" for number, label in enumerate(BUILDS, 1)}


def test_answers_in_one_piece_are_drawn_against_their_latency(quantised: Lineup) -> None:
    plot = curves(quantised)["novel-zh, ensemble, 128 tokens out, without streaming"].plots[0]
    assert (plot.x.title, plot.x.better) == ("E2E p50", "lower")
    front = plot.marks[0]
    assert list(front.x) == sorted(front.x)
    assert list(front.y) == sorted(front.y)  # type: ignore[type-var]


def test_builds_and_conditions_that_differ_are_beside_each_other(quantised: Lineup, strangers: Lineup) -> None:
    runs, builds = lineup_page(quantised).differences.tables
    assert [column.title for column in builds.columns] == ["Fact", *BUILDS, "Part"]
    assert [[text.text for text in row] for row in builds.rows[1:]] == [
        ["quantisation", "none", "int8-wo", "smoothquant", "int4-awq", "fp8", "build"],
        ["tp", "1", "=", "=", "=", "2", "parallelism"],
    ]
    assert [row[4].text for row in runs.rows] == ["19 of 20", "19 of 19", "20 of 20", "20 of 20", "20 of 20"]
    conditions = lineup_page(strangers).differences.tables[2]
    rows = {row[0].text: [text.text for text in row[1:]] for row in conditions.rows}
    assert rows["GPUs"][1:] == ["NVIDIA H200", "=", "none", "no"]
    assert rows["Scenario novel-zh: prompts"][3:] == ["=", "no"]
    assert rows["Server"] == ["started by enginebench", "=", "=", "none: the engine runs in process", "yes"]


def test_runs_that_cannot_be_compared_are_warned_of_first(strangers: Lineup) -> None:
    page = lineup_page(strangers)
    assert (page.level, page.headline[:30]) == ("bad", "Not comparable as they are. 4 ")
    assert page.notes[0].startswith("int8-wo against fp16: The runs have other GPUs: NVIDIA H100")
    assert page.notes[1].startswith("smoothquant against fp16: Scenario novel-zh has another prompts")
    assert "deep (reference engine): reference engine, not TensorRT-LLM." in page.notes[-2]
    assert page.notes[-1].startswith("This describes and decides nothing")


def test_answers_to_another_question_have_no_ratio_and_no_curve(strangers: Lineup) -> None:
    other = value(strangers, CELL, "smoothquant", "tpot_p50_s")
    assert (other.ratio, other.why_no_ratio) == (None, "fp16 was asked something else in this cell")
    assert value(strangers, CELL, "int8-wo", "tpot_p50_s").ratio == pytest.approx(0.83)
    figure = curves(strangers)["novel-zh, direct, 128 tokens out"]
    assert "smoothquant" not in {one.name for one in figure.plots[0].marks}
    assert figure.finding.endswith("smoothquant was asked something else than the reference.")


def test_without_a_gpu_host_memory_stands_in_and_what_is_absent_is_named(tmp_path: Path) -> None:
    lineup = lined_up(on_a_laptop(), tmp_path)
    assert [each.title for each in lineup.quantities] == [
        "TTFT p50", "TPOT p50", "E2E p50", "Output tokens/s", "Peak host RSS",
    ]  # fmt: skip
    assert table_of(lineup).notes == ("No run has a value of GPU outside KV pool, Peak on GPU, Energy per token.",)
    page = lineup_page(lineup)
    assert page.level == "plain"
    assert page.subtitle[0] == "reference engine, not TensorRT-LLM"
    assert page.notes[0].startswith("All runs: reference engine, not TensorRT-LLM.")


def test_a_page_of_very_many_cells_says_how_many_it_leaves_out(tmp_path: Path) -> None:
    cells = [Cell("novel-zh", "direct", True, tokens, Batch(1)) for tokens in range(1, 281)]
    runs = [sample_run.run_of(cells) | {"id": f"run-{number}"} for number in range(3)]
    lineup = lined_up(runs, tmp_path)
    page = lineup_page(lineup)
    assert len(page.table.groups) == 266
    assert page.table.notes[0] == "14 more cells without room on the page: the terminal and lineup.json have all."
    assert page.curves is not None
    assert page.curves.notes == (
        "268 more figures left out to keep the page light: the table of cells has the numbers.",
    )
    assert len(lineup.as_json()["cells"]) == 280


def test_the_commands_that_decide_name_builds_and_runs(quantised: Lineup) -> None:
    assert lineup_page(quantised).commands[0] == (
        "enginebench ab fp16=/engines/fp16 int8-wo=/engines/int8-wo --scenario novel-zh --path direct --path ensemble",
        f"enginebench compare {five()[0]['id']} {five()[1]['id']}",
    )


def test_the_commands_take_no_answers_that_a_set_left_out(tmp_path: Path) -> None:
    runs = on_a_laptop()
    runs[0]["plan"]["left_out"] = {CELL.replace("0128", "1024"): "longer than the 128 output tokens of the set"}
    assert lineup_page(lined_up(runs, tmp_path)).commands[0][0] == (
        "enginebench ab deep=/engines/deep flat=/engines/flat --scenario novel-zh --path direct "
        "--cell '*-stream-out0128-*' --cell '*-nostream-out0128-*'"
    )


def test_builds_of_one_name_are_told_apart_by_their_runs(tmp_path: Path) -> None:
    runs = five()[:3]
    runs[1]["build"]["name"] = "fp16"
    labels = [each.label for each in lined_up(runs, tmp_path).entrants]
    assert labels == [f"fp16, run {runs[0]['id']}", f"fp16, run {runs[1]['id']}", "smoothquant"]


def test_a_baseline_may_be_the_reference(tmp_path: Path) -> None:
    directories = [put(run, tmp_path) for run in five()[:3]]
    save_baseline(directories[0], tmp_path, "golden")
    lineup = line_up_stored(["golden", *map(str, directories[1:])], tmp_path)
    assert value(lineup, CELL, "int8-wo", "tpot_p50_s").ratio == pytest.approx(0.83)
    assert lineup_page(lineup).commands[0][1].startswith("enginebench compare golden 2026")


def test_the_json_has_every_number(quantised: Lineup) -> None:
    content = quantised.as_json()
    entry = content["cells"][CELL][3]
    assert (entry["label"], entry["status"], entry["reason"]) == ("int4-awq", "measured", None)
    tpot = value(quantised, CELL, "int4-awq", "tpot_p50_s")
    assert entry["values"]["tpot_p50_s"] == {"value": tpot.number, "ratio": tpot.ratio, "rounds_overlap": False}
    assert [run["label"] for run in content["runs"]] == list(BUILDS)


def test_the_terminal_shows_every_cell_of_every_build(quantised: Lineup) -> None:
    text = lineup_text(quantised, colour=False)
    lines = text.splitlines()
    start = lines.index(next(line for line in lines if line.startswith(CELL)))
    assert [line.split()[0] for line in lines[start + 1 : start + 6]] == list(BUILDS)
    assert "×0.60" in lines[start + 4]
    assert f"failed: fp16, {FAILED}: out of memory" in lines
    assert sum(line.startswith("novel-zh") for line in lines) == len(quantised.rows)


def test_the_same_runs_make_the_same_bytes_and_every_id_once(quantised: Lineup, tmp_path: Path) -> None:
    one, two = (write_lineup(quantised, tmp_path / name).read_text(encoding="utf-8") for name in ("a.html", "b.html"))
    assert one == two
    assert len(one.encode()) < 6_000_000
    ids = [part.split('"')[0] for part in one.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    lineup = lined_up(hostile(), tmp_path)
    html = write_lineup(lineup, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img" not in html
    assert HOSTILE in lineup_text(lineup, colour=False)
    for figure in curves(lineup).values():
        assert "<img" not in chart_json(figure)


def test_what_cannot_stand_side_by_side_is_one_sentence(tmp_path: Path) -> None:
    runs = five()
    unmeasured = {**runs[2], "id": "empty", "cells": {}}
    stranger = sample_run.one_cell_run() | {"id": "stranger"}
    for others, sentence in (
        ([runs[0]], f"Run {runs[0]['id']} is named 2 times"),
        ([unmeasured], "Run empty has no measured cell: leave it out"),
        ([stranger], f"Run stranger measured no cell that {runs[0]['id']}, the first, did too"),
        ([{**runs[1], "id": f"more-{number}"} for number in range(7)], "9 runs are too many for one page: name 8"),
    ):
        with pytest.raises(RunError, match=sentence):
            lined_up([runs[0], runs[1], *others], tmp_path)


def test_report_of_three_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = five()[:3]
    for run in runs:
        put(run, tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [str(runs[0]["id"]), "2026-11-21", "latest"]
    assert main(["report", *names, "--out", "mail.html"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "page: mail.html"
    assert not Path("reports/comparisons").exists()
    assert main(["report", *names]) == 0
    page = Path("reports/comparisons/2026-11-20T08-00-00-fp16_wo_smoothquant/report.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {page}"
    assert page.read_bytes() == Path("mail.html").read_bytes()
    record = json.loads((page.parent / "lineup.json").read_text(encoding="utf-8"))
    assert record["schema"] == "enginebench/lineup/1"
    index = Path("reports/index.html").read_text(encoding="utf-8")
    assert f'href="comparisons/{page.parent.name}/report.html">fp16, int8-wo, smoothquant</a>' in index
    (page.parent / "lineup.json").write_text("{}")
    assert main(["report", "--index"]) == 0
    assert "lineup.json is damaged" in Path("reports/index.html").read_text(encoding="utf-8")


def test_words_stand_where_no_line_runs_and_no_other_words_are() -> None:
    falling, rising = [(10.0, 200.0), (20.0, 100.0)], [(10.0, 100.0), (20.0, 200.0)]
    words = [["8", "1"]]
    assert places([falling], words, log_x=False) == [["top right", "top right"]]
    assert places([rising], words, log_x=False) == [["top right", "top right"]]
    through = [(5.0, 90.0), (30.0, 110.0)]
    assert places([falling, through], [*words, ["", ""]], log_x=False)[0] == ["top right", "bottom left"]
    steep = [(10.0, 2.0), (12.0, 100.0), (20.0, 100.0)]
    assert places([steep], [["1", "", ""]], log_x=False)[0][0] == "top left"  # below are the numbers of the axis


@given(number=st.integers(1, 9), log_x=st.booleans())
def test_points_on_one_spot_share_the_four_places_around_it(number: int, log_x: bool) -> None:
    found = places([[(10.0, 100.0)]] * number, [["128"]] * number, log_x=log_x)
    named = [place for (place,) in found if place]
    assert sorted(named) == sorted(list(PLACES)[:number])
