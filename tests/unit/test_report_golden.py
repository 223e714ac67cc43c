"""The words and numbers of a small page, as they were when somebody last looked; and the same bytes in any process.

After a wanted change: ``ENGINEBENCH_GOLDEN=write pytest tests/unit/test_report_golden.py``, and read the difference.
"""

import hashlib
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

from enginebench.report.page import write_report
from tests.support import detailed_run, sample_run

GOLDEN = Path(__file__).parent / "golden" / "report.txt"
ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, hashlib
from pathlib import Path
from enginebench.report.page import write_report
print(hashlib.sha256(write_report(Path(sys.argv[1])).read_bytes()).hexdigest())
"""


def words_of(page: Path) -> str:
    """What a reader without a browser sees: a line for each piece of text, and how each figure is drawn, in short."""
    html = page.read_text(encoding="utf-8")
    drawn = re.findall(r'data-chart="([^"]+)">(.*?)</script>', html, flags=re.DOTALL)
    bare = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    lines = [unescape(line).strip() for line in re.sub(r"<[^>]+>", "\n", bare).splitlines()]
    figures = [f"{name}: {hashlib.sha256(spec.encode()).hexdigest()[:16]}" for name, spec in drawn]
    return "\n".join([line for line in lines if line] + figures) + "\n"


def test_the_page_says_what_it_said(tmp_path: Path) -> None:
    words = words_of(write_report(sample_run.write_run(sample_run.one_cell_run(), tmp_path)))
    if os.environ.get("ENGINEBENCH_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(words, encoding="utf-8")
    assert words == GOLDEN.read_text(encoding="utf-8")


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    directory = detailed_run.write_detailed_run(tmp_path)
    mine = hashlib.sha256(write_report(directory).read_bytes()).hexdigest()
    command = [sys.executable, "-c", PROGRAM, str(directory)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "4711"}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == mine
