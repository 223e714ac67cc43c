"""The page in a real browser: drawn, offline, readable without scripts, accessible, and narrow enough for a phone."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Dialog, Page

from enginebench.report.page import write_report
from tests.support import sample_run

VARIANTS = ("typical", "gpu", "empty", "failures", "interrupted", "hostile", "unbounded")
Report = Callable[[str], Path]


@dataclass
class Visit:
    """A page that is open, and what happened while it loaded."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


Open = Callable[..., Visit]


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if chromium is None:
        reason = "no Chromium: apt-get install --no-install-recommends chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return {**browser_type_launch_args, "executable_path": chromium, "args": ["--no-sandbox"]}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    written: dict[str, Path] = {}

    def report_of(variant: str) -> Path:
        if variant not in written:
            run = getattr(sample_run, f"{variant}_run")()
            written[variant] = write_report(sample_run.write_run(run, tmp_path_factory.mktemp(variant)))
        return written[variant]

    return report_of


@pytest.fixture
def visit(browser: Browser, report: Report) -> Iterator[Open]:
    contexts = []

    def open_page(variant: str, *, width: int = 1280, **options: Any) -> Visit:
        context = browser.new_context(offline=True, viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        opened = Visit(context.new_page())

        def refuse(dialog: Dialog) -> None:
            opened.complaints.append(dialog.message)
            dialog.dismiss()

        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", refuse)
        opened.page.goto(report(variant).as_uri())
        if options.get("java_script_enabled", True):
            _draw(opened.page)
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("variant", VARIANTS)
def test_opens_offline_without_a_complaint_and_fits_a_phone(visit: Open, variant: str) -> None:
    opened = visit(variant)
    opened.page.set_viewport_size({"width": 360, "height": 900})
    _open_details(opened.page)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    assert opened.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in opened.requests)


def test_every_series_is_drawn_with_real_lines_and_markers(visit: Open) -> None:
    page = visit("typical").page
    charts = page.locator(".chart.js-plotly-plot")
    assert charts.count() == page.locator("script[data-chart]").count() > 0
    for number in range(charts.count()):
        traces = charts.nth(number).locator(".scatterlayer .trace")
        specs = json.loads(page.locator("script[data-chart]").nth(number).text_content() or "")
        assert traces.count() == len(specs["data"])
        assert traces.locator("path.point").count() == sum(len(trace["y"]) for trace in specs["data"])
    lines = page.locator("#load-1 path.js-line")
    assert all("L" in (lines.nth(number).get_attribute("d") or "") for number in range(lines.count()))


@pytest.mark.parametrize("variant", ["gpu", "failures"])
def test_axe_finds_nothing_in_light_and_dark(visit: Open, variant: str) -> None:
    page = visit(variant, color_scheme="light", bypass_csp=True).page
    _open_details(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()


def test_panels_stand_below_each_other_where_the_page_is_narrow(visit: Open) -> None:
    page = visit("one_cell").page
    assert len(_panel_tops(page)) == 1
    page.set_viewport_size({"width": 360, "height": 900})
    page.wait_for_function("document.getElementById('load-1').layout.height > 400")
    page.wait_for_timeout(100)
    assert len(_panel_tops(page)) == 3


def test_the_numbers_need_no_script(visit: Open) -> None:
    page = visit("typical", java_script_enabled=False).page
    assert "1 failed, 25 of 28 cells measured" in page.locator(".verdict").inner_text()
    assert page.locator(".card .number").first.is_visible()
    assert page.locator(".matrix tbody tr:not(.group)").count() == 28
    assert page.locator(".ids li").count() == 2
    page.locator("#load summary").first.click()
    assert page.locator("#load details table").first.is_visible()
    assert page.locator("noscript").count() == 1
    assert not page.locator(".chart").first.is_visible()


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


def test_nothing_offers_to_share(visit: Open) -> None:
    page = visit("typical").page
    page.locator("#load-1").hover()
    titles = page.evaluate(
        "[...document.querySelectorAll('[data-title],[title]')].map(e => e.dataset.title || e.title)"
    )
    assert not any(word in title.lower() for title in titles for word in ("share", "cloud", "upload"))
    assert page.locator(".modebar-btn").count() == 0


def test_hostile_names_are_only_text(visit: Open) -> None:
    opened = visit("hostile")
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("h1").inner_text().startswith("</script><script>alert(1)")
    assert "{{7*7}}" in opened.page.locator("h1").inner_text()
    assert opened.complaints == []


def test_dark_is_dark_and_its_axes_can_be_read(visit: Open) -> None:
    page = visit("one_cell", color_scheme="light").page
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


def test_the_page_stays_light_in_the_browser(visit: Open) -> None:
    page = visit("full").page
    assert page.locator(".chart").count() <= 20
    assert page.evaluate("document.querySelectorAll('*').length") <= 20_000


def _draw(page: Page) -> None:
    """Scroll to every chart: it is drawn when it comes near."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        page.wait_for_selector(f"#{chart.get_attribute('id')}[data-drawn]")


def _panel_tops(page: Page) -> set[int]:
    boxes = [title.bounding_box() for title in page.locator("#load-1 .infolayer [class^=g-x][class$=title]").all()]
    assert len(boxes) == 3
    return {round(box["y"] / 20) for box in boxes if box}


def _measured_rows(page: Page) -> list[list[str]]:
    """Id and numbers of each measured row."""
    script = "rows => rows.map(r => [r.title, ...[...r.querySelectorAll('td.num:not(.shape)')].map(c => c.innerText)])"
    rows: list[list[str]] = page.locator(".matrix tbody tr:has(td.barred)").evaluate_all(script)
    return rows


def _open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
