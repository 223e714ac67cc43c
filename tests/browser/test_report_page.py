"""The page in a real browser: drawn, offline, readable without scripts, accessible, and narrow enough for a phone."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page

from enginebench.report.page import write_report
from tests.support import detailed_run, sample_run
from tests.support.accessibility import violations
from tests.support.pages import PATIENCE_MS, copied_table, until

TITLES = "#load-1 .infolayer [class^=g-x][class$=title]"
PLACE = "title => Math.round(title.getBoundingClientRect().y / 20)"
VARIANTS = ("detailed", "typical", "gpu", "empty", "failures", "interrupted", "hostile", "unbounded")
Report = Callable[[str], Path]


@dataclass
class Visit:
    """A page that is open, and what happened since it was."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def draw(self) -> Page:
        """Scroll to every chart: it is drawn when it comes near."""
        for chart in self.page.locator(".chart").all():
            chart.scroll_into_view_if_needed()
            self.page.wait_for_selector(f"#{chart.get_attribute('id')}[data-drawn]")
        return self.page


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    written: dict[str, Path] = {}

    def report_of(variant: str) -> Path:
        if variant not in written:
            directory = tmp_path_factory.mktemp(variant)
            if variant == "detailed":
                detailed_run.write_detailed_run(directory)
            else:
                sample_run.write_run(getattr(sample_run, f"{variant}_run")(), directory)
            written[variant] = write_report(directory)
        return written[variant]

    return report_of


@pytest.fixture(scope="module")
def visit(browser: Browser, report: Report) -> Iterator[Open]:
    """Opens the page of a variant, once for all tests of it that want the same browser."""
    contexts: list[BrowserContext] = []
    known: dict[str, Visit] = {}

    def open_page(variant: str, **options: Any) -> Visit:
        key = f"{variant} {options}"
        if key not in known:
            context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, **options)
            context.set_default_timeout(PATIENCE_MS)
            contexts.append(context)
            known[key] = _watched(context.new_page())
            known[key].page.goto(report(variant).as_uri())
        opened = known[key]
        opened.page.set_viewport_size({"width": 1280, "height": 900})
        opened.page.emulate_media(color_scheme="light", media="screen")
        opened.page.evaluate("scrollTo(0, 0)")
        return opened

    yield open_page
    for context in contexts:
        context.close()


def _watched(page: Page) -> Visit:
    opened = Visit(page)

    def refuse(dialog: Dialog) -> None:
        opened.complaints.append(dialog.message)
        dialog.dismiss()

    page.on("request", lambda request: opened.requests.append(request.url))
    page.on("console", lambda message: opened.complaints.append(message.text))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("dialog", refuse)
    return opened


@pytest.mark.parametrize("variant", VARIANTS)
def test_opens_offline_without_a_complaint_and_fits_a_phone(visit: Open, variant: str) -> None:
    opened = visit(variant)
    opened.page.set_viewport_size({"width": 360, "height": 900})
    if variant in ("detailed", "hostile"):
        opened.draw()
    _open_details(opened.page)
    until(opened.page, "document.documentElement.scrollWidth === 360")  # once what was drawn wide is drawn anew
    assert opened.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)


def test_every_series_is_drawn_with_real_marks(visit: Open) -> None:
    page = visit("detailed").draw()
    charts = page.locator(".chart.js-plotly-plot")
    assert charts.count() == page.locator("script[data-chart]").count() > 5
    for number in range(charts.count()):
        specs = json.loads(page.locator("script[data-chart]").nth(number).text_content() or "")["data"]
        chart = charts.nth(number)
        scatters = [trace for trace in specs if trace["type"] == "scatter"]
        assert chart.locator(".scatterlayer .trace").count() == len(scatters)
        marked = sum(len(trace["x"]) for trace in scatters if "markers" in trace["mode"])
        assert chart.locator(".scatterlayer path.point").count() == marked
        bars = sum(len(trace["x"]) for trace in specs if trace["type"] == "bar")
        assert chart.locator(".barlayer .point path").count() == bars
        lines = chart.locator("path.js-line").evaluate_all("all => all.map(one => one.getAttribute('d') || '')")
        drawn = [trace for trace in scatters if "lines" in trace["mode"]]
        assert len(lines) >= len(drawn)  # a gap parts a line
        assert sum(any(mark in line for mark in "LHV") for line in lines) >= sum(len(trace["x"]) > 1 for trace in drawn)


def test_a_chart_is_drawn_when_it_comes_near(visit: Open) -> None:
    page = visit("interrupted").page
    page.locator("#load-1").scroll_into_view_if_needed()
    page.wait_for_selector("#load-1[data-drawn]")
    last = page.locator(".chart").last
    assert last.get_attribute("data-drawn") is None
    last.scroll_into_view_if_needed()
    page.wait_for_selector(f"#{last.get_attribute('id')}[data-drawn]")


def test_printing_draws_what_nobody_scrolled_to(visit: Open) -> None:
    page = visit("gpu").page
    until(page, "!!window.Plotly")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".chart.js-plotly-plot").count() == page.locator(".chart").count() > 1
    assert not page.locator("nav").is_visible()
    assert not page.locator(".tools").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")


def test_a_browser_that_cannot_draw_says_so(browser: Browser, report: Report) -> None:
    context = browser.new_context(offline=True)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    page.goto(report("one_cell").as_uri())
    page.get_by_text("This browser cannot draw the chart").wait_for()
    context.close()


@pytest.mark.parametrize("variant", ["detailed", "failures"])
def test_axe_finds_nothing_in_light_and_dark(visit: Open, variant: str) -> None:
    page = visit(variant).draw()
    page.evaluate(
        "document.querySelectorAll('details').forEach((one, number) => one.open = number < 4)"
    )  # one of a kind
    whole = {"exclude": [[".main-svg"]]}  # thousands of marks, none of which can be read or reached
    colours = {"include": [["header"], ["nav"], ["#cells"], ["#findings"]], "exclude": [[".main-svg"]]}
    assert violations(page, whole) == ""
    page.emulate_media(color_scheme="dark")
    assert violations(page, colours, ["color-contrast"]) == ""


def test_plots_stand_below_each_other_where_the_page_is_narrow(visit: Open) -> None:
    page = visit("one_cell").draw()
    until(page, f"new Set([...document.querySelectorAll('{TITLES}')].map({PLACE})).size === 1")
    assert page.locator(TITLES).count() == 3
    page.set_viewport_size({"width": 360, "height": 900})
    until(page, f"new Set([...document.querySelectorAll('{TITLES}')].map({PLACE})).size === 3")


def test_the_page_keeps_the_place_of_its_charts(visit: Open) -> None:
    page = visit("one_cell").page
    room = "one => [one.getBoundingClientRect().height, parseInt(getComputedStyle(one).minHeight)]"
    page.set_viewport_size({"width": 1280, "height": 900})
    until(page, "document.getElementById('load-1').layout?.height < 400")
    until(page, f"(([drawn, kept]) => Math.abs(drawn - kept) <= 1)(({room})(document.getElementById('load-1')))")


def test_the_numbers_need_no_script(visit: Open) -> None:
    page = visit("typical", java_script_enabled=False).page
    assert "1 failed, 25 of 28 cells measured" in page.locator(".verdict").inner_text()
    assert page.locator(".card .number").first.is_visible()
    assert page.locator(".matrix tbody tr:not(.group)").count() == 28
    assert page.locator(".ids li").count() == 2
    assert not page.locator(".tools").is_visible()
    page.locator("#load summary").first.click()
    assert page.locator("#load details table").first.is_visible()
    assert page.locator("noscript").count() == 1
    assert not page.locator(".chart").first.is_visible()


def test_every_figure_has_a_finding_and_a_table_of_its_numbers(visit: Open) -> None:
    page = visit("detailed").page
    figures = page.locator("figure")
    assert figures.count() == page.locator(".block .finding").count() == page.locator(".block details table").count()
    assert all(len(text) > 20 for text in page.locator(".block .finding").all_inner_texts())


def test_the_table_shows_the_numbers_of_the_record(visit: Open) -> None:
    page = visit("typical", java_script_enabled=False).page
    run = json.loads(page.locator("#run-data").text_content() or "")
    shown = {row[0]: row for row in _measured_rows(page)}
    assert len(shown) == sum(cell["status"] == "measured" for cell in run["cells"].values())
    for cell_id, row in shown.items():
        metrics = run["cells"][cell_id]["metrics"]
        assert float(row[4]) == pytest.approx(metrics["output_tokens_per_s"]["summary"]["value"], abs=0.06)
        if "ttft" in metrics:
            assert float(row[1].replace(",", "")) == pytest.approx(metrics["ttft"]["summary"]["p50"] * 1e3, abs=0.06)
        else:
            assert row[1].startswith("—")


def test_a_column_sorts_the_cells_of_all_scenarios_and_gaps_come_last(visit: Open) -> None:
    page = visit("typical").page
    planned = _ids(page)
    head = page.locator("#matrix thead").get_by_role("button", name="TTFT p50")
    for direction, falling in (("ascending", False), ("descending", True)):
        head.click()
        values = [_number(row[1]) for row in _measured_rows(page)]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=falling)
        assert values[: len(known)] == known
        assert page.locator("#matrix th[aria-sort]").get_attribute("aria-sort") == direction
        assert page.locator("#matrix tr.group:visible").count() == 0
    assert page.locator("#matrix .scenario:visible").count() == len(planned)
    head.click()
    assert _ids(page) == planned
    assert page.locator("#matrix tr.group:visible").count() == 4


def test_words_and_chips_filter_the_cells(visit: Open) -> None:
    page = visit("typical").page
    chips = page.locator(".tools")
    page.locator("#find").fill("novel batch 8")
    assert page.locator("#found").inner_text() == "2 of 28 cells"
    assert page.locator("#matrix tr.group:visible").all_inner_texts()[0].startswith("novel-zh")
    chips.get_by_role("button", name="ensemble").click()
    assert [one for one in _ids(page) if "novel-zh-ensemble" in one] == _ids(page) != []
    page.locator("#find").fill("[(\\")
    assert page.locator("#found").inner_text() == "0 of 28 cells"
    page.locator("#find").fill("")
    chips.get_by_role("button", name="failed").click()
    assert _ids(page) == ["long-prompt-ensemble-stream-out0016-bs008"]
    for name in ("ensemble", "failed"):
        chips.get_by_role("button", name=name).click()
    assert page.locator("#found").inner_text() == "28 cells"


def test_the_table_is_copied_as_it_stands(visit: Open) -> None:
    page = visit("typical", permissions=["clipboard-read", "clipboard-write"]).page
    page.locator("#find").fill("long-prompt")
    head, *rows = csv.reader(copied_table(page).splitlines())
    assert head[:5] == ["Cell", "Answer", "Tokens (out)", "Load", "Path"]
    assert [row[0] for row in rows] == _ids(page)
    assert all(len(row) == len(head) for row in rows)
    run = json.loads(page.locator("#run-data").text_content() or "")
    for row in rows:
        cell = dict(zip(head, row, strict=True))
        record = run["cells"][cell["Cell"]]
        if record["status"] == "measured":
            assert float(cell["TTFT p50 (ms)"]) == pytest.approx(
                record["metrics"]["ttft"]["summary"]["p50"] * 1e3, rel=1e-5
            )
        else:
            assert (cell["TTFT p50 (ms)"], cell["Reason"]) == ("", record["reason"])


def test_nothing_offers_to_share(visit: Open) -> None:
    page = visit("one_cell").draw()
    page.locator("#load-1").hover()
    titles = page.evaluate(
        "[...document.querySelectorAll('[data-title],[title]')].map(e => e.dataset.title || e.title)"
    )
    assert not any(word in title.lower() for title in titles for word in ("share", "cloud", "upload"))
    assert page.locator(".modebar-btn").count() == 0


def test_hostile_names_are_only_text(visit: Open) -> None:
    opened = visit("hostile")
    page = opened.draw()
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text().startswith("</script><script>alert(1)")
    assert "{{7*7}}" in page.locator("h1").inner_text()
    point = page.locator("#load-1 path.point").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert opened.complaints == []


def test_dark_is_dark_and_its_axes_can_be_read(visit: Open) -> None:
    page = visit("one_cell").draw()
    colours = (
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('#load-1 .xtick text')).fill]"
    )
    light = page.evaluate(colours)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(colours)
    assert [light[0], dark[0]] == ["rgb(255, 255, 255)", "rgb(13, 17, 23)"]
    assert light[1] != dark[1]


def test_a_finding_leads_to_its_cell(visit: Open) -> None:
    page = visit("typical").page
    link = page.locator(".findings a").first
    link.click()
    assert page.locator("tr:target").get_attribute("title") == link.inner_text()


def test_the_navigation_leads_to_every_part(visit: Open) -> None:
    page = visit("detailed").page
    anchors = page.locator("nav a").evaluate_all("all => all.map(one => one.hash.slice(1))")
    assert anchors == page.locator("main > section").evaluate_all("all => all.map(one => one.id)")


def test_the_page_stays_light_in_the_browser(visit: Open) -> None:
    page = visit("full").page
    assert page.evaluate("document.querySelectorAll('*').length") <= 20_000


def _ids(page: Page) -> list[str]:
    """The cells of the visible rows, top to bottom."""
    script = "rows => rows.map(row => row.title)"
    ids: list[str] = page.locator("#matrix tbody tr:not(.group):visible").evaluate_all(script)
    return ids


def _measured_rows(page: Page) -> list[list[str]]:
    """Id and numbers of each measured row."""
    script = "rows => rows.map(r => [r.title, ...[...r.querySelectorAll('td.num:not(.shape)')].map(c => c.innerText)])"
    rows: list[list[str]] = page.locator(".matrix tbody tr:has(td.barred)").evaluate_all(script)
    return rows


def _number(text: str) -> float | None:
    return None if text.startswith("—") else float(text.replace(",", ""))


def _open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
