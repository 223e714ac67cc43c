"""A page in a browser, held against axe's rules."""

from collections.abc import Mapping, Sequence
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page, parts: Mapping[str, Any] | None = None, rules: Sequence[str] = ()) -> str:
    """What ``parts`` of the page (default: all) break of ``rules`` (default: all), as a report; empty: nothing."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}  # what passes need not be described, element by element
    if rules:
        options["runOnly"] = rules
    results = Axe().run(page, parts, options)
    return str(results.generate_report()) if results.violations_count else ""
