"""The page of a comparison in a real browser: drawn, offline, readable without scripts, accessible, narrow, dark."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from enginebench.report.comparison_page import write_comparison
from enginebench.report.comparison_subject import Subject
from tests.support.accessibility import violations
from tests.support.compared import LOST, at_different_times, in_turns, incomparable, of_names, with_history
from tests.support.pages import Open, copied_table, draw, opened, until

Make = Callable[[Path], Subject]
MAKERS: dict[str, Make] = {
    "turns": lambda root: with_history(in_turns(), root),
    "apart": at_different_times,
    "hostile": lambda _: of_names(),
    "incomparable": lambda _: incomparable(),
}


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What pages said on the console or asked of the network."""
    return []


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory, complaints: list[str]) -> Iterator[Open]:
    def write(name: str) -> Path:
        root = tmp_path_factory.mktemp(name)
        return write_comparison(MAKERS[name](root), root / "report.html")

    with opened(browser, write, complaints) as open_page:
        yield open_page


@pytest.mark.parametrize("name", MAKERS)
def test_opens_offline_without_a_complaint_and_fits_a_phone(visit: Open, complaints: list[str], name: str) -> None:
    page = visit(name)
    page.set_viewport_size({"width": 360, "height": 900})
    if name in ("turns", "apart"):
        draw(page)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    until(page, "document.documentElement.scrollWidth === 360")  # once what was drawn wide is drawn anew
    assert page.locator("img").count() == 0
    assert complaints == []


@pytest.mark.parametrize("name", ["turns", "apart"])
def test_every_mark_is_drawn(visit: Open, name: str) -> None:
    page = draw(visit(name))
    assert page.locator(".chart.js-plotly-plot").count() == page.locator("script[data-chart]").count() > 3
    for chart in page.locator(".chart").all():
        spec = json.loads(page.locator(f"script[data-chart='{chart.get_attribute('id')}']").text_content() or "")
        marked = [trace for trace in spec["data"] if "markers" in trace["mode"]]
        drawn = chart.locator(".scatterlayer path.point").count()
        assert drawn == sum(len(trace["x"]) for trace in marked)
        intervals = [trace for trace in marked if "error_x" in trace]
        assert chart.locator(".errorbar path.xerror").count() == sum(len(trace["x"]) for trace in intervals)


def test_axe_finds_nothing_in_light_and_dark(visit: Open) -> None:
    page = draw(visit("turns"))
    assert violations(page) == ""
    page.emulate_media(color_scheme="dark")
    words = {"exclude": [[".chart"]]}  # whose colours are those of the page of a run
    assert violations(page, words, ["color-contrast"]) == ""


def test_the_numbers_need_no_script(visit: Open) -> None:
    page = visit("turns", java_script_enabled=False)
    assert "Regression" in page.locator(".verdict").inner_text()
    record = json.loads(page.locator("#run-data").text_content() or "")
    rows = page.locator("#matrix tbody tr:not(.group)")
    assert rows.count() == len(record["verdicts"])
    tpot = next(each for each in record["verdicts"] if each["name"] == "tpot_p50")
    shown = rows.filter(has_text="TPOT p50").locator("td.num").all_inner_texts()
    assert float(shown[1]) == pytest.approx(tpot["new"] * 1e3, abs=0.006)
    assert float(shown[2]) == pytest.approx(tpot["change"] * 100, abs=0.6)
    assert page.locator(".gate").count() == 2
    assert not page.locator(".tools").is_visible()


def test_numbers_are_filtered_sorted_and_copied(visit: Open) -> None:
    page = visit("apart")
    page.locator("#find").fill("tpot gated")
    assert page.locator("#found").inner_text() == "1 of 76 rows"
    page.locator("#find").fill("")
    failed = page.locator(".tools").get_by_role("button", name="failed")
    failed.click()
    rows = page.locator("#matrix tbody tr:not(.group):visible")
    assert [row.get_attribute("title") for row in rows.all()] == [LOST]
    failed.click()
    page.locator("#matrix thead").get_by_role("button", name="Change").click()
    values = [
        float(text or "nan") for text in rows.evaluate_all("all => all.map(one => one.cells[4]?.dataset.n ?? '')")
    ]
    known = [value for value in values if not math.isnan(value)]
    assert known == sorted(known) == values[: len(known)]
    head, *copied = csv.reader(copied_table(page).splitlines())
    assert head[:6] == ["Cell", "Metric", "Old", "New", "Unit", "Change (%)"]
    assert all(len(row) == len(head) for row in copied)
    assert [row[5] for row in copied[: len(known)]] == [f"{value:.6g}" for value in known]


def test_the_navigation_leads_to_every_part(visit: Open) -> None:
    page = visit("turns")
    anchors = page.locator("nav a").evaluate_all("all => all.map(one => one.hash.slice(1))")
    assert anchors == page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
