"""What is said of the client: never nothing, and never more than was found."""

from typing import Any

import pytest

from enginebench.measure.validity import with_machine
from enginebench.report import trust
from enginebench.report.cells import cells_of
from enginebench.report.compare import reference_load
from enginebench.report.figures import Figure
from enginebench.report.model import page_of
from enginebench.report.pareto import pareto_section
from tests.support.sample_run import full_run


def judged(level: str, error: float | None = 0.004, *reasons: str) -> dict[str, Any]:
    return {"validity": {"level": level, "client_error": error, "reasons": list(reasons)}}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (judged("valid"), "0.4%"),
        (judged("valid", 0.0), "<0.1%"),
        (judged("degraded", 0.031), "3.1% DEGRADED"),
        (judged("invalid", 0.2), "20.0% INVALID"),
        (judged("uncalibrated", None), "uncalibrated"),
        ({}, "uncalibrated"),
        ({"validity": None}, "uncalibrated"),
    ],
)
def test_words(record: dict[str, Any], words: str) -> None:
    assert trust.error_words(record) == words


def test_what_made_the_level_stands_beside_the_error_where_that_did_not() -> None:
    record = judged("invalid", 0.007)
    for cause, words in (
        ("merged reads", "0.7% INVALID (merged reads)"),
        ("client error", "0.7% INVALID"),
        (None, "0.7% INVALID"),
    ):
        record["validity"]["cause"] = cause
        assert trust.error_words(record) == words
    run = full_run()
    first = next(iter(run["cells"]))
    run["cells"][first]["validity"] = record["validity"] | {"cause": "slip"}
    (row,) = [row for group in page_of(run).matrix.groups for row in group.rows if row.cell_id == first]
    assert (row.status_words, row.remark) == ("INVALID", "slip")


def test_reasons_are_findings_of_doubtful_cells_alone() -> None:
    assert trust.reasons_of(judged("degraded", 0.03, "late")) == ("late",)
    assert trust.reasons_of(judged("uncalibrated", None, "client error: uncalibrated")) == ()


def test_caveats_say_the_worst_first_and_count_what_is_unknown() -> None:
    records = [judged("valid"), judged("invalid", 0.5), judged("degraded", 0.03), {}]
    invalid, degraded, error = trust.caveats(records)
    assert invalid.startswith("INVALID: the client could not resolve 1 cell; see the findings. Stop other programs")
    assert degraded.startswith("DEGRADED")
    assert error == "Client error, against known truth: at most 50.0% of any median; 1 cell uncalibrated."
    assert list(trust.caveats([{}])) == ["Client error: uncalibrated."]


def test_whose_doubt_it_is_is_said() -> None:
    capped = {"validity": with_machine(judged("valid")["validity"], "degraded", ["power cap"])}
    both = {"validity": with_machine(judged("degraded", 0.03, "late")["validity"], "degraded", ["power cap"])}
    worse = {"validity": with_machine(judged("degraded", 0.03, "late")["validity"], "invalid", ["XID 79"])}
    assert trust.error_words(capped) == "0.4% DEGRADED (machine)"
    assert trust.error_words(both) == "3.0% DEGRADED"
    invalid, client, machine, _ = trust.caveats([capped, both, worse])
    assert invalid == "INVALID: the machine or its server was not fit to measure 1 cell; see the findings."
    assert client.startswith("DEGRADED: the client is close to what is to be told apart in 1 cell;")
    assert machine == "DEGRADED: the machine or its server was not at its best in 2 cells; see the findings."


def test_what_is_found_later_does_not_become_the_clients() -> None:
    once = with_machine(judged("valid")["validity"], "degraded", ["power cap"])
    twice = with_machine(once, "invalid", ["counts differ"])
    assert twice["levels"] == {"client": "valid", "machine": "invalid"}
    assert twice["reasons"] == ["power cap", "counts differ"]


def test_the_page_shows_error_level_and_reason() -> None:
    run = full_run()
    first = next(iter(run["cells"]))
    run["cells"][first] |= judged("invalid", 0.21, "client error of TPOT p50 is 21.0%")
    shown = page_of(run)
    (row,) = [row for group in shown.matrix.groups for row in group.rows if row.cell_id == first]
    assert shown.matrix.columns[-1].title == trust.COLUMN
    assert (row.values[-1].text, row.status, row.status_words) == ("21.0%", "invalid", "INVALID")
    assert any(finding.text.startswith("client error of TPOT") for finding in shown.findings)
    assert shown.verdict.level == "warn"


def test_cards_charts_and_sentences_mark_what_is_not_to_be_trusted() -> None:
    run = full_run()
    shown = page_of(run)
    assert {card.status_words for card in shown.cards} == {""}
    cells = reference_load(cells_of(run))
    doubtful = cells[-1]
    run["cells"][doubtful.id] |= judged("invalid", 0.21, "late")
    shown = page_of(run)
    assert [card.status_words for card in shown.cards] == [*[""] * (len(cells) - 1), "INVALID"]
    told = f" INVALID: {doubtful.path} at {doubtful.load.words}."
    told_in = {section.id: figure for section in shown.sections for figure in section.figures if told in figure.finding}
    for plot in (*told_in["load"].plots, *told_in["pareto"].plots):
        (ring,) = [marks for marks in plot.marks if marks.name == "INVALID"]
        assert (ring.role, len(ring.x)) == ("bad", 1)
        assert ring.texts[0].endswith(", INVALID")


def test_no_front_goes_through_an_invalid_cell() -> None:
    run = full_run()
    best = on_the_front(run)
    assert best
    for cell_id in best:
        run["cells"][cell_id] |= judged("invalid", 0.21, "late")
    assert not on_the_front(run) & best
    for cell_id in run["cells"]:
        run["cells"][cell_id] |= judged("invalid", 0.21, "late")
    assert not on_the_front(run)
    assert "no cell is on the front" in front_figure(run).finding


def on_the_front(run: dict[str, Any]) -> set[str]:
    """The cells on the front of the first plot."""
    (edge,) = [marks for marks in front_figure(run).plots[0].marks if marks.name == "front"]
    words = {text.split(":")[0] for text in edge.texts}
    title = front_figure(run).title
    return {
        cell.id
        for cell in cells_of(run)
        if cell.streaming and title == f"{cell.scenario}, {cell.output_words} tokens out"
        if f"{cell.path}, {cell.load.words}" in words
    }


def front_figure(run: dict[str, Any]) -> Figure:
    section = pareto_section(run, None)
    assert section
    return section.figures[0]


def test_a_path_that_outpaced_one_inside_of_it_is_a_finding() -> None:
    run = full_run()
    assert not any("which it contains" in finding.text for finding in page_of(run).findings)
    inner, outer = (next(cell for cell in cells_of(run) if cell.path == path) for path in ("direct", "ensemble"))
    rounds = run["cells"][inner.id]["metrics"]["e2e_latency"]["per_round"]
    assert (inner.scenario, inner.load) == (outer.scenario, outer.load)
    told = run["cells"][outer.id]["metrics"]["e2e_latency"]
    told["per_round"] = [min(rounds) * 0.9] * len(rounds)
    (found,) = [
        finding for finding in page_of(run).findings if finding.text.startswith("ensemble was faster than direct")
    ]
    assert [cell_id for _, cell_id in found.cells] == [outer.id]
    told["per_round"] = [min(rounds) * 0.9, max(rounds)]
    assert not any("faster than direct" in finding.text for finding in page_of(run).findings)
