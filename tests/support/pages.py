"""Pages in a browser: opened once, watched for complaints, and waited for, however slow the machine is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page

PATIENCE_MS = 180_000.0
CLIPBOARD = ["clipboard-read", "clipboard-write"]
Open = Callable[..., Page]


@contextmanager
def opened(browser: Browser, write: Callable[[str], Path], complaints: list[str]) -> Iterator[Open]:
    """What opens a page by name, once for all that want the same browser; it is written when first asked for.

    ``complaints`` gets what pages say on the console or ask of the network.
    """
    contexts: list[BrowserContext] = []
    files: dict[str, Path] = {}
    known: dict[str, Page] = {}

    def refuse(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    def open_page(name: str, **options: Any) -> Page:
        if name not in files:
            files[name] = write(name)
        key = f"{name} {options}"
        if key not in known:
            contexts.append(browser.new_context(offline=True, permissions=CLIPBOARD, **options))
            contexts[-1].set_default_timeout(PATIENCE_MS)
            page = known[key] = contexts[-1].new_page()
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("dialog", refuse)
            page.on("request", lambda request: None if _local(request.url) else complaints.append(request.url))
            page.goto(files[name].as_uri())
        known[key].set_viewport_size({"width": 1280, "height": 900})
        known[key].emulate_media(color_scheme="light")
        return known[key]

    yield open_page
    for context in contexts:
        context.close()


def _local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


def draw(page: Page) -> Page:
    """Scroll to every chart, so that it is drawn."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        page.wait_for_selector(f"#{chart.get_attribute('id')}[data-drawn]")
    return page


def until(page: Page, true: str) -> None:
    """Wait until an expression is true; Playwright's own waiting needs what the page's CSP forbids."""
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(true):
        if time.monotonic() > deadline_s:
            pytest.fail(f"never came true: {true}")
        page.wait_for_timeout(50)


def copied_table(page: Page) -> str:
    """Press the button that copies the table; what is on the clipboard once it has said so, which it does briefly."""
    page.evaluate(
        """() => {
            const button = document.querySelector(".tools .copy");
            window.said = [];
            new MutationObserver(() => window.said.push(button.textContent)).observe(button, { childList: true });
        }"""
    )
    page.locator(".tools .copy").click()
    until(page, "window.said.includes('Copied')")
    return str(page.evaluate("navigator.clipboard.readText()"))
