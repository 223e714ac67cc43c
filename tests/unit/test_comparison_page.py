"""What the page of a comparison says: the verdict, the conditions, every number, and the charts' points."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.cli import main
from enginebench.decide.model import Endpoint
from enginebench.report.charts import chart_json
from enginebench.report.comparison_page import comparison_page, write_comparison
from enginebench.report.comparison_subject import Subject, harm, harm_ticks
from enginebench.report.figures import Figure
from enginebench.report.overlays import overlay_section
from tests.support import sample_run
from tests.support.ab_runs import CELL, sides, stored
from tests.support.compared import HOSTILE, LOST, at_different_times, in_turns, incomparable, of_names, with_history


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return with_history(in_turns(), tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return at_different_times(tmp_path_factory.mktemp("apart"))


def figures_of(subject: Subject) -> dict[str, Figure]:
    page = comparison_page(subject)
    return {figure.id: figure for part in (*page.before, *page.after) for figure in part.figures}


def test_the_banner_says_what_decided_and_the_exit_code(turns: Subject) -> None:
    page = comparison_page(turns)
    assert (page.level, page.headline.split(":")[0]) == ("bad", "Regression")
    assert page.notes[0].startswith("TPOT p50, batch 2: regression, +20% (")
    assert "2 numbers decide, named by the scenario; policy release; exit code 10." in page.notes
    assert [(card.title, card.outcome) for card in page.cards] == [
        ("TPOT p50", "regression"),
        ("GPU memory outside the KV pool", "equivalent"),
    ]


def test_parts_stand_in_their_order(turns: Subject, apart: Subject) -> None:
    assert [anchor for anchor, _ in comparison_page(turns).nav] == [
        "result", "same", "changes", "cells", "builds", "pairs", "causes", "memory", "trend", "environment", "reading",
    ]  # fmt: skip
    assert [part.id for part in comparison_page(apart).after[:3]] == ["builds", "distributions", "load"]


def test_every_id_is_there_once(turns: Subject, apart: Subject, tmp_path: Path) -> None:
    for subject in (turns, apart):
        html = write_comparison(subject, tmp_path / "page.html").read_text(encoding="utf-8")
        ids = re.findall(r'<[^>]+ id="([^"]+)"', html)
        assert len(ids) == len(set(ids))


def test_what_differs_comes_first_with_both_values() -> None:
    subject = incomparable()
    (table,) = comparison_page(subject).before[0].tables
    rows = [tuple(text.text for text in row) for row in table.rows]
    assert rows[0] == ("GPUs", "none", "NVIDIA H200", "✕ differs: not comparable")
    assert len(rows) == 4
    page = comparison_page(subject)
    same = [tuple(text.text for text in row) for row in page.same.rows]
    assert ("Kernel", "6.1.0-18-amd64", "6.1.0-18-amd64", "✓ same") in same
    assert [part.id for part in page.before] == ["same"]  # nothing was judged: there is no change to draw
    assert [row.reason for group in page.changes.groups for row in group.rows] == [
        "old: measured; new: measured; the runs cannot be compared"
    ]


def test_the_forest_has_the_worst_on_top_and_right_of_the_margin(turns: Subject) -> None:
    (plot,) = figures_of(turns)["forest-watched"].plots
    order, *outcomes = plot.marks
    assert order.y[0] == "Output tokens/s, batch 2"
    for marks in outcomes:
        assert marks.role == marks.name == "regression"
        assert all(low > math.log(1.05) for low in marks.low)
    middles = [value for marks in outcomes for value in marks.x if isinstance(value, float)]
    assert middles == sorted(middles, reverse=True)
    assert (plot.rules[1].at, plot.rules[1].to) == pytest.approx((-math.log1p(0.05), math.log1p(0.05)))


def test_marks_of_several_outcomes_stand_in_the_middle_of_their_rows(turns: Subject) -> None:
    kinds = dict(zip(("ttft_p50", "e2e_latency_p50"), ("improvement", "inconclusive"), strict=True))
    verdicts = [
        replace(each, outcome=kinds.get(each.endpoint.name, each.outcome))  # type: ignore[arg-type]
        for each in turns.comparison.verdicts
    ]
    mixed = replace(turns, comparison=replace(turns.comparison, verdicts=tuple(verdicts)))
    spec = json.loads(chart_json(figures_of(mixed)["forest-watched"]))
    marked = [trace for trace in spec["data"] if trace["mode"] == "markers"]
    assert len(marked) == 3
    assert sorted(place for trace in marked for place in trace["y"]) == [0, 1, 2]


def test_margins_that_differ_are_drawn_row_by_row(apart: Subject) -> None:
    (plot,) = figures_of(apart)["forest-gated"].plots
    margins = next(marks for marks in plot.marks if marks.name == "margin")
    assert margins.high == pytest.approx((math.log1p(0.03), math.log1p(0.05)))
    assert len(plot.rules) == 1


def test_a_cell_that_is_lost_has_a_row_with_its_reason(apart: Subject) -> None:
    changes = comparison_page(apart).changes
    (row,) = [row for group in changes.groups for row in group.rows if row.cell_id == LOST]
    assert row.status == "failed"
    assert row.reason == "old: measured; new: failed (the server died: exit status 139)"
    assert ("failed", "failed") in changes.statuses
    judged = [row for group in changes.groups for row in group.rows if row.values]
    assert len(judged) == len(apart.comparison.verdicts)


def test_memory_stands_below_the_cells(turns: Subject) -> None:
    groups = comparison_page(turns).changes.groups
    assert [group.cell_id for group in groups] == [CELL, "direct"]


def test_discarded_pairs_are_marked_with_their_reason(turns: Subject) -> None:
    plots = figures_of(turns)["pairs-1"].plots
    roles = {marks.name: marks for marks in plots[0].marks}
    assert roles["discarded"].x == (3.0,)
    assert "requests left late: slip p50 is 20.0 ms" in roles["discarded"].texts[0]
    assert roles["a pair"].x == (1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    section = next(part for part in comparison_page(turns).after if part.id == "pairs")
    assert section.notes[0].startswith("Pair 3 does not count in batch 2 (new build)")


def test_the_difference_of_the_builds_is_in_words(turns: Subject) -> None:
    builds = next(part for part in comparison_page(turns).after if part.id == "builds")
    assert [text.text for text in builds.tables[0].rows[0]] == ["max_batch_size", "8", "64", "limits"]
    assert builds.lead == "1 fact of the builds differs; all others are the same."


def test_a_step_in_the_history_is_marked_with_what_was_new(turns: Subject) -> None:
    figure = figures_of(turns)["trend-1"]
    assert figure.finding.startswith("TPOT p50 (new): +30%, worse, since 2026-11-07; new there: files of the build")
    assert [(rule.at, rule.label) for rule in figure.plots[0].rules] == [(6.5, "+30% worse")]


def test_curves_of_requests_are_of_both_builds(apart: Subject) -> None:
    section = overlay_section(apart)
    assert section is not None
    assert len(section.figures) == 3
    for plot in section.figures[0].plots:
        assert {marks.role for marks in plot.marks} == {"old", "new", "muted"}


def test_tables_that_cannot_be_read_cost_a_sentence(tmp_path: Path) -> None:
    subject = at_different_times(tmp_path)
    for file in (tmp_path / "new" / "cells").glob("*/requests.parquet"):
        file.write_bytes(b"no table")
    page = comparison_page(subject)
    assert "cannot be read" in page.notes[0]
    assert "distributions" not in [part.id for part in page.after]


def test_the_same_comparison_makes_the_same_bytes(turns: Subject, tmp_path: Path) -> None:
    one, two = (write_comparison(turns, tmp_path / name).read_bytes() for name in ("one.html", "two.html"))
    assert one == two
    assert len(one) < 6_000_000


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    html = write_comparison(of_names(), tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img" not in html
    assert HOSTILE.replace("<", "\\u003c").replace('"', '\\"') in html  # in the record


@given(change=st.floats(-0.9, 9.0))
def test_harm_is_mirrored_by_the_better_direction_and_by_swapping(change: float) -> None:
    lower, higher = (Endpoint("c", "m", "p50", 0.05, better) for better in ("lower", "higher"))
    size = harm(lower, change)
    assert size is not None
    assert harm(higher, change) == -size
    assert harm(lower, 1 / (1 + change) - 1) == pytest.approx(-size, abs=1e-12)


@given(values=st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=9))
def test_ticks_rise_lie_within_reach_and_are_few(values: list[float]) -> None:
    ticks = harm_ticks(values)
    places = [at for at, _ in ticks]
    assert places == sorted(set(places))
    assert (0.0, "0") in ticks
    assert len(ticks) <= 7
    assert all(-1.03 * max(0.0, -min(values)) <= at <= 1.03 * max(0.0, *values) for at in places)


def test_two_runs_have_a_page_that_the_index_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in sides(0.2):
        sample_run.write_run(run, tmp_path / "reports" / "runs" / run["id"])
    monkeypatch.chdir(tmp_path)
    assert main(["gate", "new-run", "--baseline", "old-run"]) == 10
    page = Path("reports/comparisons/old-run_new-run/report.html")
    assert capsys.readouterr().out.splitlines()[-1] == f"page: {page}"
    assert json.loads((page.parent / "comparison.json").read_text(encoding="utf-8"))["gate"]["exit_code"] == 10
    index = Path("reports/index.html").read_text(encoding="utf-8")
    assert 'href="comparisons/old-run_new-run/report.html">old → new</a>' in index
    assert main(["report", "old-run", "new-run", "--out", "mail.html"]) == 0
    assert capsys.readouterr().out.splitlines() == ["Regression: new against old", "page: mail.html"]
    assert Path("mail.html").stat().st_size > 1_000_000
    assert not Path("comparison.json").exists()
    (page.parent / "comparison.json").write_text("{}")
    assert main(["report", "--index"]) == 0
    assert "comparison.json is damaged" in Path("reports/index.html").read_text(encoding="utf-8")


def test_a_trend_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        run = stored(0.01 if number < 5 else 0.02, f"2026-11-{number + 1:02d}")
        sample_run.write_run(run | {"created": f"2026-11-{number + 1:02d}T00:00:00Z"}, tmp_path / run["id"])
    monkeypatch.chdir(tmp_path)
    assert main(["trend", ".", "--html", "trend.html"]) == 0
    html = Path("trend.html").read_text(encoding="utf-8")
    assert "TPOT p50: +100%, worse, since 2026-11-06" in html
    assert html.count("data-chart=") == 1
