"""The load generator against known truth: ``pytest bench/harness --benchmark-only``. The figures are in extra_info.

A row takes seconds, so that it runs once; ``enginebench selftest client`` prints the same rows as a table.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from enginebench.measure.calibrator import Calibrator
from enginebench.run.selftest import ROWS, Effort, Row

EFFORT = Effort(seconds=4.0, repeats=1)


@pytest.fixture(scope="module")
def calibrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calibrator]:
    with Calibrator(tmp_path_factory.mktemp("logs")) as made:
        yield made


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_client(benchmark: Any, calibrator: Calibrator, row: Row) -> None:
    outcome = benchmark.pedantic(row.measure, args=(calibrator, EFFORT), rounds=1, iterations=1)
    benchmark.group = "client"
    benchmark.extra_info.update(
        load=row.load, reach=row.reach, text=outcome.text, reached=outcome.reached, figures=dict(outcome.figures)
    )
