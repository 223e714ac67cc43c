"""What the page says, without a browser: sentences, numbers, dashes, and the same bytes for the same record."""

import json
from pathlib import Path

import pytest

from enginebench.errors import RunError
from enginebench.plan.cells import Cell
from enginebench.plan.load import Batch, Concurrency, Load, Rate
from enginebench.report.cells import cells_of
from enginebench.report.compare import TTFT, change, finding, metric_scale, reference_load
from enginebench.report.curves import load_section
from enginebench.report.figures import Figure, Section
from enginebench.report.model import page_of
from enginebench.report.page import write_report
from enginebench.report.units import percent, scale_for, size, span
from enginebench.report.view import Page
from tests.support import sample_run

VARIANTS = ("typical", "full", "gpu", "one_cell", "empty", "failures", "interrupted", "hostile", "unbounded")


def page(variant: str) -> Page:
    return page_of(getattr(sample_run, f"{variant}_run")())


def section(variant: str, name: str) -> Section:
    return next(one for one in page(variant).sections if one.id == name)


def load_figures(run: sample_run.Run) -> dict[str, Figure]:
    made = load_section(run, None)
    return {figure.title: figure for figure in made.figures} if made else {}


@pytest.mark.parametrize(
    ("variant", "level", "headline"),
    [
        ("full", "good", "All 52 cells measured."),
        ("one_cell", "good", "The one cell was measured."),
        ("typical", "bad", "1 failed, 25 of 28 cells measured, 2 not applicable."),
        ("interrupted", "warn", "13 not reached, 13 of 26 cells measured."),
        ("failures", "bad", "4 failed, 0 of 8 cells measured, 4 skipped."),
        ("empty", "bad", "No cell was planned, nothing was measured."),
        ("unbounded", "warn", "The one cell was measured."),
    ],
)
def test_the_verdict_says_the_bad_news_first(variant: str, level: str, headline: str) -> None:
    verdict = page(variant).verdict
    assert (verdict.level, verdict.headline) == (level, headline)


def test_the_reference_engine_and_the_uncalibrated_client_are_named() -> None:
    shown = page("full")
    assert "reference engine, not TensorRT-LLM" in shown.title
    assert any(note.startswith("Reference engine, not TensorRT-LLM") for note in shown.verdict.notes)
    assert "Client error: uncalibrated." in shown.verdict.notes


def test_a_tensorrt_llm_build_on_a_gpu_is_not_called_a_reference() -> None:
    shown = page("gpu")
    assert shown.title == "chatglm3-fp16 on NVIDIA A10, 2026-11-22"
    assert not any("eference engine" in note for note in shown.verdict.notes)
    assert shown.cards[0].lines[-1].title == "Peak on GPU"
    assert section("gpu", "memory").lead.startswith("GPU memory peaks at 20.50 GiB")


def test_failed_requests_come_before_everything_else() -> None:
    assert page("unbounded").verdict.notes[0] == "4 failed requests among 20 in measured cells."


def test_the_reference_load_is_the_longest_streaming_answer_at_the_largest_shared_batch() -> None:
    at_load = reference_load(cells_of(sample_run.typical_run()))
    assert [cell.id for cell in at_load] == [
        "novel-zh-direct-stream-out0128-bs008",
        "novel-zh-ensemble-stream-out0128-bs008",
    ]


def test_the_reference_load_prefers_what_every_path_measured() -> None:
    run = sample_run.typical_run()
    del run["cells"]["novel-zh-ensemble-stream-out0128-bs008"]
    assert {cell.load.level for cell in reference_load(cells_of(run))} == {4}


def test_cards_show_every_path_with_its_change_against_the_first() -> None:
    direct, ensemble = page("typical").cards
    assert [line.title for line in direct.lines] == [
        "TTFT p50", "TPOT p50", "E2E p50", "Output tokens/s", "Requests/s", "Peak host RSS",
    ]  # fmt: skip
    assert direct.lines[0].note.count("–") == 1
    assert ensemble.lines[0].note.startswith("+")
    assert ensemble.lines[-1].note == "server 266 MiB"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_planned_cell_has_a_row_and_every_gap_a_reason(variant: str) -> None:
    run = getattr(sample_run, f"{variant}_run")()
    matrix = page_of(run).matrix
    rows = [row for group in matrix.groups for row in group.rows]
    assert {row.cell_id for row in rows} == {*run["plan"]["cells"]}
    assert {cell_id for one in matrix.left_out for _, cell_id in one.cells} == {*run["plan"]["left_out"]}
    for row in rows:
        assert bool(row.values) == (row.reason is None)
        assert all(value.why for value in row.values if value.missing)


def test_no_value_is_a_dash_with_its_reason_and_never_zero() -> None:
    rows = {row.cell_id: row for group in page("full").matrix.groups for row in group.rows}
    whole = rows["who-are-you-direct-nostream-out0050-bs001"].values
    assert (whole[0].text, whole[0].why) == (
        "—", "without streaming, all tokens arrive at once: there is no first token to time",
    )  # fmt: skip
    (group,) = page("unbounded").matrix.groups
    assert group.rows[0].values[0].text == "—"
    assert "failed request" in (group.rows[0].values[0].why or "")


def test_a_percentile_with_too_few_requests_says_how_many_it_needs() -> None:
    table = page("one_cell").percentiles
    assert table
    p99 = table.rows[0][[column.title for column in table.columns].index("p99")]
    assert (p99.text, p99.why) == ("—", "p99 needs 662 requests")


def test_rounds_that_overlap_are_said_to() -> None:
    run = sample_run.full_run(paths=("direct", "ensemble"))
    names = ["novel-zh-direct-stream-out0128-bs008", "novel-zh-ensemble-stream-out0128-bs008"]
    run["cells"][names[1]]["metrics"]["ttft"] = run["cells"][names[0]]["metrics"]["ttft"]
    cells = {cell.id: cell for cell in cells_of(run)}
    base, other = (cells[name] for name in names)
    assert change(base, other, TTFT, metric_scale(TTFT, [base, other])) == "+0.0% (rounds overlap)"
    assert finding([base, other]).startswith(
        "At batch 8, ensemble against direct: TTFT p50 +0.0% (rounds overlap), TPOT"
    )


def test_many_paths_are_compared_in_percent() -> None:
    figures = load_figures(sample_run.full_run())
    assert figures["novel-zh, 128 tokens out"].finding == (
        "At batch 8, against direct: TTFT p50 core +8.0%, ensemble +23%, bls +29%; "
        "TPOT p50 core +3.5%, ensemble +8.1%, bls +13%; output tokens/s core −3.5%, ensemble −8.0%, bls −12%."
    )


def test_a_lone_path_is_compared_with_its_smaller_batch() -> None:
    run = sample_run.full_run(paths=("direct",))
    assert load_figures(run)["novel-zh, 128 tokens out"].finding.startswith(
        "direct alone, from batch 1 to 8: output tokens/s go from 81.9 to 566.5 (6.9×)"
    )


def test_without_streaming_the_charts_show_the_whole_answer() -> None:
    spec = {**sample_run.SCENARIOS["who-are-you"], "streaming": [False]}
    (figure,) = load_figures(sample_run.full_run(scenarios={"who-are-you": spec})).values()
    assert [plot.title for plot in figure.plots] == ["E2E p50", "Output tokens/s"]


def test_the_noisiest_cell_is_named() -> None:
    sentence = page("typical").rounds.sentence
    assert sentence.startswith("24 of 25 cells stay within 5%")
    assert "chat-mixed-ensemble-stream-out0096-bs008" in sentence


def test_a_finding_of_many_cells_is_one_sentence() -> None:
    run = sample_run.full_run(paths=("direct", "ensemble"))
    for cell in run["cells"].values():
        cell["findings"] = ["The answer was one token short."]
    (found,) = page_of(run).findings
    assert len(found.cells) == len(run["cells"])


def test_no_gpu_is_said_and_host_memory_is_called_what_it_is() -> None:
    memory = section("typical", "memory")
    assert memory.lead.startswith("No GPU: GPU memory was not measured.")
    assert [row[1].text for row in memory.tables[0].rows] == [
        "engine processes, host (RSS)",
        "server processes, host (RSS)",
        "client processes, host (RSS)",
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_record_gives_the_same_bytes(variant: str, tmp_path: Path) -> None:
    run = getattr(sample_run, f"{variant}_run")()
    one = write_report(sample_run.write_run(run, tmp_path / "one")).read_bytes()
    two = write_report(sample_run.write_run(run, tmp_path / "two")).read_bytes()
    assert one == two
    assert len(one) < 6_000_000


def test_a_run_of_many_cells_stays_below_six_megabytes(tmp_path: Path) -> None:
    spec = {**sample_run.SCENARIOS["novel-zh"], "batch_sizes": [1, 2, 4, 8, 16], "output_tokens": [64, 128, 256]}
    run = sample_run.full_run(scenarios={f"scenario-{number}": spec for number in range(6)})
    assert len(run["cells"]) == 360
    written = write_report(sample_run.write_run(run, tmp_path))
    assert written.stat().st_size < 6_000_000
    assert "more figures are left out" in written.read_text(encoding="utf-8")


def test_a_page_without_charts_carries_no_bundle(tmp_path: Path) -> None:
    assert write_report(sample_run.write_run(sample_run.failures_run(), tmp_path)).stat().st_size < 100_000


def test_names_cannot_end_the_data_that_they_stand_in(tmp_path: Path) -> None:
    html = write_report(sample_run.write_run(sample_run.hostile_run(), tmp_path)).read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img" not in html.split("<script", 1)[0]


def test_nothing_is_left_beside_the_page(tmp_path: Path) -> None:
    write_report(sample_run.write_run(sample_run.one_cell_run(), tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run.json"]


def test_a_missing_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json"):
        write_report(tmp_path)


def test_a_plan_that_names_no_cell_is_one_sentence(tmp_path: Path) -> None:
    run = sample_run.one_cell_run()
    run["plan"]["cells"].append("nonsense")
    with pytest.raises(RunError, match="'nonsense', which is not the id of a cell"):
        write_report(sample_run.write_run(run, tmp_path))


def test_a_cell_that_was_not_reached_is_read_from_its_id() -> None:
    run = sample_run.one_cell_run()
    cell = Cell("a-stream-out1-bs1", "ensemble", False, 1024, Batch(16))
    run["plan"]["cells"].append(cell.id)
    (view,) = [view for view in cells_of(run) if view.status == "missing"]
    assert (view.scenario, view.path, view.streaming, view.output_tokens, view.load.label) == (
        cell.scenario, cell.path, cell.streaming, cell.output_tokens, cell.load.label,
    )  # fmt: skip


def test_the_sample_is_what_the_store_writes(tmp_path: Path) -> None:
    run = sample_run.full_run()
    assert json.loads((sample_run.write_run(run, tmp_path) / "run.json").read_text(encoding="utf-8")) == run


@pytest.mark.parametrize(
    ("unit", "values", "text"),
    [
        ("s", [0.01205], "12.05 ms"),
        ("s", [0.0753], "75.3 ms"),
        ("s", [1.5, 60.25], "1.500 s"),
        ("bytes", [149 * 2**20], "149 MiB"),
        ("bytes", [int(20.5 * 2**30)], "20.50 GiB"),
        ("tokens/s", [1234.5], "1,234"),
        ("s", [None, float("inf")], ""),
    ],
)
def test_numbers_are_read_in_sensible_units(unit: str, values: list[float | None], text: str) -> None:
    scale = scale_for(unit, values)
    if values[0] is not None:
        assert scale.text(values[0]) == text


def test_small_words() -> None:
    assert [percent(0.042), percent(-0.18)] == ["+4.2%", "−18%"]
    assert [span(48), span(224), span(7500)] == ["48 s", "3 min 44 s", "2 h 05 min"]
    assert size(23 * 2**20) == "23 MiB"


def loads_run() -> sample_run.Run:
    """Two paths under closed and open loops."""
    loads = (Concurrency(4), Concurrency(16), Rate(2.0), Rate(8.0), Rate(8.0, "gamma", 0.5), Batch(8))
    cells = [Cell("chat", path, True, 64, load) for path in ("direct", "ensemble") for load in loads]
    return sample_run.run_of(cells)


def test_each_kind_of_load_has_a_chart_of_its_own() -> None:
    section = load_section(loads_run(), None)
    assert section
    charts = section.figures
    assert [(chart.title, chart.plots[0].x.title) for chart in charts] == [
        ("chat, 64 tokens out", "batch size"),
        ("chat, 64 tokens out", "requests in flight"),
        ("chat, 64 tokens out, Poisson arrivals", "requests/s"),
        ("chat, 64 tokens out, gamma 0.5 arrivals", "requests/s"),
    ]
    assert [[text for _, text in chart.plots[0].x.ticks] for chart in charts] == [["8"], ["4", "16"], ["2", "8"], ["8"]]
    assert charts[1].finding.startswith("At concurrency 16, ensemble against direct: ")
    assert charts[2].finding.startswith("At 8 requests/s, Poisson, ensemble against direct: ")


def test_loads_are_named_in_the_table_of_cells() -> None:
    (group,) = page_of(loads_run()).matrix.groups
    assert list(dict.fromkeys(row.shape[2] for row in group.rows)) == [
        "batch 8",
        "concurrency 4",
        "concurrency 16",
        "2 requests/s, Poisson",
        "8 requests/s, Poisson",
        "8 requests/s, gamma 0.5",
    ]


@pytest.mark.parametrize("load", [Concurrency(4), Rate(2.5), Rate(1, ramp_to_per_s=4), Rate(2, "gamma", 0.5)])
def test_a_load_that_was_not_reached_is_read_from_its_id(load: Load) -> None:
    run = sample_run.one_cell_run()
    run["plan"]["cells"].append(Cell("a", "direct", True, 8, load, output_stdev=2.5).id)
    (view,) = [view for view in cells_of(run) if view.status == "missing"]
    assert (view.scenario, view.output_words, view.load.kind) == ("a", "8 ± 2.5", load.kind)
    assert (view.load.label, view.load.level) == (load.label, load.level)
