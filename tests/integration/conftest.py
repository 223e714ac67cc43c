"""What several files of integration tests begin with."""

from pathlib import Path

import pytest

from tests.support.bench_project import BenchProject


@pytest.fixture
def project(tmp_path: Path) -> BenchProject:
    """A project to run ``pytest bench/`` in."""
    return BenchProject.make(tmp_path)
