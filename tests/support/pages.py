"""Waiting for a page in a browser, however slow the machine is."""

import time

import pytest
from playwright.sync_api import Page

PATIENCE_MS = 180_000.0


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
