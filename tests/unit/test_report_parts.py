"""What the parts of a page say of a run with tables: curves with honest ends, limits, fronts, time, single requests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from enginebench.errors import RunError
from enginebench.report.aggregates import SAMPLED, SLOWEST
from enginebench.report.bands import over_time_section
from enginebench.report.cells import cells_of
from enginebench.report.curves import load_section
from enginebench.report.detail import Detail
from enginebench.report.distributions import FEW, distributions_section
from enginebench.report.figures import Figure, Section
from enginebench.report.model import page_of
from enginebench.report.pareto import pareto_section
from enginebench.report.sections import gather
from enginebench.report.slo import limit_words, limits_of, sentence
from enginebench.report.timeline import timeline_section
from tests.support import detailed_run, sample_run


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detailed_run.write_detailed_run(tmp_path_factory.mktemp("detailed"))


@pytest.fixture(scope="module")
def detail(directory: Path) -> Detail:
    return Detail(detailed_run.detailed_run(), directory)


def only(section: Section | None) -> Figure:
    assert section
    return section.figures[0]


def test_a_curve_ends_where_its_requests_do_and_greys_where_few_are_left(detail: Detail) -> None:
    ttft = only(distributions_section(detail)).plots[0]
    beyond = f"fewer than {FEW} requests beyond"
    assert [one.name for one in ttft.marks] == ["direct", beyond, "ensemble", beyond]
    sure, tail = ttft.marks[:2]
    requests = 2 * detailed_run.REQUESTS
    shares = [share for share in sure.y if isinstance(share, float)]
    assert round((100 - max(shares)) / 100 * requests) == FEW
    assert (tail.y[-1], tail.role, sure.role) == (100.0, "muted", "direct")


def test_percentiles_are_marked_only_where_enough_requests_bear_them(detail: Detail) -> None:
    figure = only(distributions_section(detail))
    assert [text for _, text in figure.plots[0].y.ticks] == ["0", "p50", "p90", "100"]
    heads = [column.title for column in figure.table.columns]
    row = dict(zip(heads, figure.table.rows[0], strict=True))
    assert (row["p95"].missing, row["p99"].text, row["p99"].why) == (False, "—", "p99 needs 662 requests")
    assert (row["requests"].text, row["failed"].text) == ("140", "0")


def test_the_curve_says_what_the_record_says(detail: Detail) -> None:
    figure = only(distributions_section(detail))
    cell = next(cell for cell in detail.cells if cell.id == "chat-direct-stream-out0012-c008")
    p50 = cell.statistic("ttft", "p50")
    assert p50
    assert f"direct p50 {p50 * 1e3:.1f} ms, p95" in figure.finding


def test_few_requests_have_no_distribution(tmp_path: Path) -> None:
    run = sample_run.one_cell_run()
    assert distributions_section(Detail(run, tmp_path)) is None
    assert distributions_section(Detail(run, None)) is None
    assert timeline_section(Detail(run, None)) is None
    assert over_time_section(Detail(run, None)) is None


def test_the_slo_and_the_heaviest_load_within_it_are_drawn(detail: Detail) -> None:
    figure = only(load_section(detail.run, None))
    assert figure.finding.endswith(
        "99% of requests within TTFT 75 ms and TPOT 36 ms: direct up to concurrency 8, ensemble up to concurrency 2."
    )
    assert [[rule.label for rule in plot.rules] for plot in figure.plots] == [["SLO 75 ms"], ["SLO 36 ms"], []]
    for plot in figure.plots:
        (ring,) = [marks for marks in plot.marks if marks.role == "good"]
        assert [text.split(":")[0] for text in ring.texts] == ["direct, concurrency 8", "ensemble, concurrency 2"]
        assert all(y in [value for marks in plot.marks[:-1] for value in marks.y] for y in ring.y)


def test_without_limits_nothing_is_said_of_them() -> None:
    run = sample_run.full_run()
    assert limits_of(run, "novel-zh") == {}
    assert sentence({}, cells_of(run)) == ""
    assert [limit_words(value) for value in (0.5, 0.0125, 2.0)] == ["500 ms", "12.5 ms", "2 s"]


def test_the_share_within_the_slos_stands_in_the_table_of_cells(detail: Detail) -> None:
    matrix = page_of(detail.run).matrix
    place = [column.title for column in matrix.columns].index("Within SLOs")
    shown = {row.cell_id: row.values[place].text for row in matrix.groups[0].rows}
    assert matrix.columns[place].unit == "%"
    assert shown["chat-direct-stream-out0012-c002"] == "99.3"  # the one that stalled, of 140


def test_the_front_holds_what_nothing_beats_on_both(detail: Detail) -> None:
    figure = only(pareto_section(detail.run, None))
    front = figure.plots[0].marks[0]
    points = [point for marks in figure.plots[0].marks[1:] for point in zip(marks.x, marks.y, strict=True)]
    on_it = set(zip(front.x, front.y, strict=True))
    for x, y in points:
        beaten = any(other[0] <= x and other[1] >= y and other != (x, y) for other in points)  # type: ignore[operator]
        assert ((x, y) in on_it) == (not beaten)
    assert figure.plots[0].y.title == "Output tokens/s"


def test_throughput_is_that_of_one_gpu_where_their_number_is_known() -> None:
    run = sample_run.gpu_run()
    for session in run["sessions"]:
        session["gpus"] = [{"index": 0}, {"index": 1}]
    figure = only(pareto_section(run, None))
    assert figure.plots[0].y.title == "Output tokens/s per GPU"
    rates = {cell.value("output_tokens_per_s") for cell in cells_of(run)}
    assert {2 * y for marks in figure.plots[0].marks[1:] for y in marks.y if isinstance(y, float)} == rates


@pytest.mark.parametrize("used", [[], [2, 0]])
def test_a_machines_gpus_count_only_where_every_path_used_them(used: list[int]) -> None:
    """A build that computes on the host of a GPU box, and a server elsewhere beside an engine here."""
    run = sample_run.gpu_run()
    for session, number in zip(run["sessions"], used, strict=False):
        session["gpus"] = [{"index": place} for place in range(number)]
    assert only(pareto_section(run, None)).plots[0].y.title == "Output tokens/s"


def test_two_cells_make_no_front() -> None:
    assert pareto_section(sample_run.one_cell_run(), None) is None


def test_time_counts_from_the_first_measured_round_and_warm_ups_are_shaded(detail: Detail) -> None:
    figure = only(over_time_section(detail))
    (shade,) = figure.plots[0].rules
    assert shade.to is not None
    assert shade.at < shade.to < 0
    assert shade.label == "warm-up"
    assert not figure.columns
    assert [plot.title for plot in figure.plots] == ["TTFT", "TPOT", "Output tokens/s", "Requests in flight"]
    assert sum(int(row[1].text) for row in figure.table.rows) == 3 * detailed_run.REQUESTS
    assert figure.finding.startswith("TTFT p50 from ")


def test_a_stall_is_seen_in_its_request(detail: Detail) -> None:
    section = timeline_section(detail)
    figure = only(section)
    assert "20 of 140 requests shown, of which 1 stalled for" in figure.finding
    (stall,) = [marks for marks in figure.plots[0].marks if marks.name == "stalled"]
    assert stall.y == ("slow · round 2, no. 40",)
    assert isinstance(stall.x[0], float)
    assert stall.x[0] == pytest.approx(detailed_run.STALL_MS / 1e3, rel=0.05)
    assert section
    assert len(section.figures) == 2
    assert all(len(one.table.rows) == SLOWEST + SAMPLED for one in section.figures)


def test_the_parts_of_a_request_add_up_to_its_latency(detail: Detail) -> None:
    figure = only(timeline_section(detail))
    ends: dict[object, float] = {}
    for marks in figure.plots[0].marks:
        for name, length in zip(marks.y, marks.x, strict=True):
            assert isinstance(length, float)
            ends[name] = ends.get(name, 0.0) + length
    heads = [column.title for column in figure.table.columns]
    for row in figure.table.rows:
        assert ends[row[0].text] == pytest.approx(float(row[heads.index("Last token")].text), abs=0.002)


def test_the_queue_and_the_prefill_are_apart_where_the_engine_tells(tmp_path: Path) -> None:
    run = detailed_run.detailed_run()
    directory = detailed_run.write_detailed_run(tmp_path)
    (cell,) = [one for one in detailed_run.CELLS if one.path == "direct" and one.load == detailed_run.CELLS[0].load]
    (directory / "logs").mkdir()
    with (directory / "logs" / "worker-direct.engine.jsonl").open("w", encoding="utf-8") as file:
        for record in detailed_run.rounds_of(cell):
            told = [{"request": int(index), "first_scheduled_s": 0.004} for index in record.requests.index if index % 2]
            file.write(json.dumps({"started_ns": record.started_ns, "ended_ns": record.ended_ns, "requests": told}))
            file.write("\n")
        file.write('{"started_ns": 1, half a line')
    run["plan"]["cells"] = [cell.id]
    run["cells"] = {cell.id: run["cells"][cell.id]}
    figure = only(timeline_section(Detail(run, directory)))
    marks = {mark.name: mark for mark in figure.plots[0].marks}
    odd = [name for name in marks["waiting in the client"].y if int(str(name).rpartition(" ")[2]) % 2]
    assert set(marks["waiting for a batch slot"].y) == set(marks["prefill"].y) == set(odd) != set()
    assert set(marks["until the first token"].y) == set(marks["waiting in the client"].y) - set(odd)
    assert all(length == pytest.approx(4e-3 * _factor(figure)) for length in marks["waiting for a batch slot"].x)


def _factor(figure: Figure) -> float:
    """Of the unit of its times."""
    return {"s": 1.0, "ms": 1e3}[figure.plots[0].x.unit]


def test_tables_that_cannot_be_read_are_said_and_the_rest_stands(directory: Path, tmp_path: Path) -> None:
    run = detailed_run.detailed_run()
    cells = tmp_path / "cells"
    for cell in detailed_run.CELLS:
        (cells / cell.id).mkdir(parents=True)
        (cells / cell.id / "requests.parquet").write_bytes(b"not a table")
    page = page_of(run, tmp_path)
    assert "cannot be read" in page.verdict.notes[0]
    assert {"load", "pareto", "memory"} <= {section.id for section in page.sections}
    assert "distributions" not in {section.id for section in page.sections}


def test_a_part_with_nothing_to_say_is_left_out_and_troubles_are_said_once() -> None:
    part = Section("a", "A", "")

    def broken(run: object, directory: object) -> Section | None:
        raise RunError("The table is torn.")

    sections, troubles = gather({}, None, [lambda *_: part, broken, lambda *_: None, broken])
    assert (sections, troubles) == ((part,), ("The table is torn.",))


def test_failed_cells_come_before_other_findings() -> None:
    found = page_of(sample_run.typical_run()).findings
    assert found[0].text.startswith("Failed: the server died")
    assert len(found) == 2


def test_doubtful_cells_are_counted_in_the_headline() -> None:
    run = sample_run.full_run()
    for place, cell in enumerate(run["cells"].values()):
        level = "invalid" if place == 0 else "degraded" if place < 4 else "valid"
        cell["validity"] = {"level": level, "client_error": 0.01, "reasons": []}
    verdict = page_of(run).verdict
    assert verdict.headline == "All 52 cells measured, 1 INVALID, 3 DEGRADED."
    assert [count for _, _, count in verdict.counts] == [1, 3, 48]


def test_the_figures_of_a_page_have_ids_of_their_own(detail: Detail, directory: Path) -> None:
    page = page_of(detail.run, directory)
    ids = [section.id for section in page.sections] + [one.id for section in page.sections for one in section.figures]
    assert len(ids) == len(set(ids))
    assert replace(page).nav[0] == ("results", "Results")
