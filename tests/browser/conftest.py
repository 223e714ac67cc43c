"""Chromium as Debian and Google install it, for every test of a page."""

import os
import shutil
from typing import Any

import pytest

from tests.support.pages import PATIENCE_MS


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if chromium is None:
        reason = "no Chromium: apt-get install --no-install-recommends chromium"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return {
        **browser_type_launch_args, "executable_path": chromium, "args": ["--no-sandbox"], "timeout": PATIENCE_MS
    }  # fmt: skip
