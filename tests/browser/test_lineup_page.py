"""The page of several runs in a real browser: drawn, offline, readable without scripts, accessible, narrow, dark."""

import csv
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from enginebench.report.lineup_page import write_lineup
from tests.support import lined_up
from tests.support.accessibility import violations
from tests.support.pages import Open, copied_table, draw, opened, until

NAMES = ("five", "unlike", "on_a_laptop", "hostile")


@pytest.fixture(scope="module")
def complaints() -> list[str]:
    """What pages said on the console or asked of the network."""
    return []


@pytest.fixture(scope="module")
def visit(browser: Browser, tmp_path_factory: pytest.TempPathFactory, complaints: list[str]) -> Iterator[Open]:
    def write(name: str) -> Path:
        root = tmp_path_factory.mktemp(name)
        return write_lineup(lined_up.lined_up(getattr(lined_up, name)(), root), root / "report.html")

    with opened(browser, write, complaints) as open_page:
        yield open_page


@pytest.mark.parametrize("name", NAMES)
def test_opens_offline_without_a_complaint_and_fits_a_phone(visit: Open, complaints: list[str], name: str) -> None:
    page = visit(name)
    page.set_viewport_size({"width": 360, "height": 900})
    draw(page)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    until(page, "document.documentElement.scrollWidth === 360")  # once what was drawn wide is drawn anew
    assert page.locator("img").count() == 0
    assert complaints == []


def test_every_mark_is_drawn_and_no_words_lie_on_each_other(visit: Open) -> None:
    page = draw(visit("five", viewport={"width": 1280, "height": 900}))  # which was never narrow
    assert page.locator(".chart.js-plotly-plot").count() == page.locator("script[data-chart]").count() == 4
    for chart in page.locator(".chart").all():
        spec = json.loads(page.locator(f"script[data-chart='{chart.get_attribute('id')}']").text_content() or "")
        marked = [trace for trace in spec["data"] if "markers" in trace["mode"]]
        drawn = chart.locator(".scatterlayer path.point").count()
        assert drawn == sum(len(trace["x"]) for trace in marked)
        words = chart.locator(".textpoint text").evaluate_all(
            "all => all.filter(one => one.textContent).map(one => one.getBoundingClientRect().toJSON())"
        )
        assert len(words) > 15
        assert not any(_overlap(one, other) for one, other in combinations(words, 2))


def _overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    across = one["left"] < other["right"] and other["left"] < one["right"]
    return across and one["top"] < other["bottom"] and other["top"] < one["bottom"]


def test_axe_finds_nothing_in_light_and_dark(visit: Open) -> None:
    page = draw(visit("five"))
    page.evaluate("document.querySelectorAll('details').forEach((one, number) => one.open = number < 2)")
    assert violations(page, {"exclude": [[".main-svg"]]}) == ""
    page.emulate_media(color_scheme="dark")
    words = {"exclude": [[".chart"]]}  # whose colours are those of the page of a run
    assert violations(page, words, ["color-contrast"]) == ""


def test_the_numbers_need_no_script(visit: Open) -> None:
    page = visit("five", java_script_enabled=False)
    record = json.loads(page.locator("#run-data").text_content() or "")
    rows = page.locator("#matrix tbody tr:not(.group)")
    assert rows.count() == 5 * len(record["cells"])
    place = [run["label"] for run in record["runs"]].index("int4-awq")
    entry = record["cells"][lined_up.CELL][place]
    row = page.locator(f"#matrix tr[title='{lined_up.CELL}']").nth(place)
    shown = row.locator("td.num").all_inner_texts()
    assert float(shown[2]) == pytest.approx(entry["values"]["tpot_p50_s"]["value"] * 1e3, abs=0.006)
    assert shown[3] == f"×{entry['values']['tpot_p50_s']['ratio']:.2f}"
    assert "out of memory" in page.locator(f"#matrix tr[title='{lined_up.FAILED}']").first.inner_text()
    assert not page.locator(".tools").is_visible()


def test_rows_are_filtered_sorted_and_copied(visit: Open) -> None:
    page = visit("five")
    page.locator("#find").fill("int4 direct streaming")
    assert page.locator("#found").inner_text() == "5 of 100 rows"
    page.locator("#find").fill("fp8")
    page.get_by_role("button", name="× TPOT").click()
    rows = page.locator("#matrix tbody tr:not(.group):visible")
    ratios = rows.evaluate_all("all => all.map(one => one.cells[4]?.dataset.n ?? '')")
    known = [float(text) for text in ratios if text]
    assert known == sorted(known) == [float(text) for text in ratios[: len(known)]]
    head, *copied = csv.reader(copied_table(page).splitlines())
    assert head[:5] == ["Cell", "Build", "TTFT p50 (ms)", "× TTFT", "TPOT p50 (ms)"]
    assert all(len(row) == len(head) for row in copied)
    assert {row[1] for row in copied} == {"fp8-tp2"}
    assert [row[5] for row in copied[: len(known)]] == [f"{value:.6g}" for value in known]


def test_the_navigation_leads_to_every_part_and_a_doubt_to_its_row(visit: Open) -> None:
    page = visit("five")
    anchors = page.locator("nav a").evaluate_all("all => all.map(one => one.hash.slice(1))")
    assert anchors == page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
    page.locator("#cells details").evaluate("one => one.open = true")
    page.locator(".findings a").first.click()
    assert page.locator("tr:target").get_attribute("title") == lined_up.INVALID
