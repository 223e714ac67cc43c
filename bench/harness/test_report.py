"""What the page of a run with 1,000,000 requests and 100,000,000 tokens costs, and summing up its stored arrivals.

``pytest bench/harness/test_report.py --benchmark-only`` needs some minutes, most of them to make the run, and 1 GB of
disk. Seconds and peak memory are in extra_info beside those of a small run: nothing is asserted of them.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.big_run import CELL, write_big_run

SIZES = {"small": 1_000, "large": 1_000_000}
# VmHWM, since a child's ru_maxrss begins with that of its parent.
FRAME = """
import json, sys, time
from pathlib import Path
start, place = time.perf_counter(), Path(sys.argv[1])
{body}
seconds = time.perf_counter() - start
peak_kib = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps(dict(seconds=seconds, peak_mib=int(peak_kib) / 1024)))
"""
BODIES = {
    "page": """
from enginebench.report.page import write_report
write_report(place)
""",
    "aggregates": f"""
from enginebench.report.aggregates import cell_aggregates
from enginebench.store import load_run
assert cell_aggregates(load_run(place), {CELL.id!r}) is not None
""",
}


@pytest.fixture(scope="module", params=SIZES)
def run_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_big_run(tmp_path_factory.mktemp("runs") / str(request.param), SIZES[request.param])


@pytest.mark.parametrize("what", BODIES)
def test_large_run(benchmark: Any, run_dir: Path, what: str) -> None:
    """A process of its own does it, imports included: as ``enginebench report`` does."""

    def write() -> dict[str, float]:
        command = [sys.executable, "-c", FRAME.format(body=BODIES[what]), str(run_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    benchmark.group = what
    figures = benchmark.pedantic(write, rounds=1, iterations=1)
    page = run_dir / "report.html"
    figures["page_mb"] = page.stat().st_size / 1e6 if what == "page" else None
    benchmark.extra_info.update(requests=SIZES[run_dir.name], figures=figures)
