"""What commands share on the command line: the run, what is measured, how strict, what may differ, what is written."""

import argparse
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.errors import RunError
from enginebench.files import write_text

if TYPE_CHECKING:
    from enginebench.report.comparison import Comparison


RUN = "a directory, the beginning of an id in reports/runs, or 'latest'"


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add ``RUN``, the stored run that is meant, as ``run_text``."""
    parser.add_argument("run_text", metavar="RUN", help=RUN)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add what is measured: scenarios, paths, cells, rounds, and how builds are read."""
    parser.add_argument("--scenario", action="append", default=[], metavar="NAME", help="as for pytest bench/")
    parser.add_argument("--path", action="append", default=[], metavar="PATH", help="as for pytest bench/")
    parser.add_argument(
        "--cell",
        action="append",
        default=[],
        metavar="TEXT",
        help="only cells whose id holds this, or fits it as a pattern such as *-bs008; may be repeated",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="measured rounds a block, in place of the scenario's")
    parser.add_argument("--engine", action="append", default=[], metavar="KEY=VALUE", help="as for pytest bench/")
    parser.add_argument("--templates", type=Path, metavar="DIR", help="as for pytest bench/")
    parser.add_argument(
        "--set", action="append", default=[], metavar="MODEL.VARIABLE=VALUE", help="as for pytest bench/"
    )
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="of builds that hold none")
    parser.add_argument("--trust-remote-code", action="store_true", help="let the tokenizer run its own Python")


def add_judging(parser: argparse.ArgumentParser) -> None:
    """Add what decides: ``--gate``, ``--policy``."""
    parser.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="CELL:METRIC:MARGIN",
        help="a number that decides, e.g. direct-stream-out1024-bs008:tpot_p50:5%%; may be repeated, four at most "
        "(default: those of the scenario, else TPOT p50 and output tokens/s of the first streaming cell, 5%%)",
    )
    parser.add_argument(
        "--policy",
        choices=("release", "pr"),
        default="release",
        help="pr: what is inconclusive passes with a warning (default: release, where it exits with 11)",
    )


def add_allowing(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow``."""
    from enginebench.decide.comparable import ALLOWABLE

    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=ALLOWABLE,
        metavar="WHAT",
        help=f"compare although this differs, which is recorded: {', '.join(ALLOWABLE)}; may be repeated",
    )


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add ``--out``: where the page and comparison.json go."""
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where report.html and comparison.json go (default: reports/comparisons/<id>)",
    )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add where the comparison is written beside the terminal."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything, as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="a comment for a pull request")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="a test case a gated number, as JUnit XML")
    parser.add_argument("--gated-only", action="store_true", help="leave watched numbers out of the terminal's table")


def publish(comparison: "Comparison", options: argparse.Namespace) -> None:
    """Print the comparison and write what ``add_files`` asks for, with GitHub's step summary where there is one.

    Raises:
        RunError: a file cannot be written.
    """
    from enginebench.report.comparison import comparison_json
    from enginebench.report.comparison_junit import comparison_junit
    from enginebench.report.comparison_markdown import comparison_markdown
    from enginebench.report.comparison_terminal import comparison_text

    width, colour = shutil.get_terminal_size((150, 24)).columns, sys.stdout.isatty()
    print(comparison_text(comparison, width=width, colour=colour, watched=not options.gated_only), end="")
    markdown = comparison_markdown(comparison)
    write(options.json, comparison_json(comparison))
    write(options.markdown, markdown)
    write(options.junit, comparison_junit(comparison))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with suppress(OSError), Path(summary).open("a", encoding="utf-8") as file:  # a summary is no reason to fail
            file.write(f"{markdown}\n")


def write(path: Path | None, text: str) -> None:
    """Write a file with the directories that lead to it; None: nothing. Raises RunError."""
    if path is None:
        return
    if path.is_dir():
        raise RunError(f"{path} is a directory, and a file is to be written: name one.")
    write_text(path, text)
