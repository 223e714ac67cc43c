"""For tests that start the Triton server of the pip wheel."""

import importlib.util
import os

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("pytriton") is None and "CI" not in os.environ,
    reason="the embedded server is not installed: pip install 'enginebench[embedded]'",
)
