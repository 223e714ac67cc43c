"""``enginebench report`` on the command line: the page of a stored run again, of several, and the index of all runs."""

import argparse
import sys
import webbrowser
from pathlib import Path

from enginebench.cli.options import RUN
from enginebench.errors import RunError


def add_report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``report``."""
    report = commands.add_parser(
        "report", help="write the page of a stored run, of two that are compared, of several side by side, or of all"
    )
    report.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help=f"{RUN}; two, old and new, are compared; three to eight stand side by side, with ratios to the first. Of "
        "several, each may be a baseline, too",
    )
    report.add_argument("--index", action="store_true", help="write reports/index.html, the page of all runs")
    report.add_argument("--open", action="store_true", help="open the page in the browser")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the page there, alone (default: beside the run; of several runs in reports/comparisons, with "
        "comparison.json or lineup.json beside it)",
    )
    report.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    page = _write_index(options) if options.index else _write_page(options)
    if options.open:
        webbrowser.open(page.resolve().as_uri())


def _write_index(options: argparse.Namespace) -> Path:
    from enginebench.report.index import write_index

    if options.runs or options.out:
        raise RunError(
            "--index lists every run in reports/runs, always in reports/index.html: leave out RUN and --out."
        )
    page = write_index(Path.cwd())
    print(f"index: {page}")
    return page


def _write_page(options: argparse.Namespace) -> Path:
    from enginebench.report.page import write_report
    from enginebench.report.terminal import summary_text
    from enginebench.run_lookup import find_run

    if not options.runs:
        raise RunError(
            "Nothing says which run is meant: name one RUN, such as 'latest', two to compare them, more for a page of "
            "all side by side, or --index."
        )
    if len(options.runs) > 1:
        return _write_comparison(options) if len(options.runs) == 2 else _write_lineup(options)
    run_dir = find_run(options.runs[0], Path.cwd())
    page = write_report(run_dir, options.out)
    print(summary_text(run_dir, width=100, colour=sys.stdout.isatty()), end="")
    if options.out:
        print(f"written to: {page}")
    return page


def _write_comparison(options: argparse.Namespace) -> Path:
    from enginebench.report.comparison_words import headline
    from enginebench.run.pages import compare_stored, keep_comparison, publish_page

    root = Path.cwd()
    comparison, old, new = compare_stored(options.runs[0], options.runs[1], root)
    if options.out:
        page = publish_page(comparison, old, new, root, options.out)
    else:
        page = keep_comparison(comparison, old, new, root)
    print(f"{headline(comparison)}\npage: {page}")
    return page


def _write_lineup(options: argparse.Namespace) -> Path:
    from enginebench.report.lineup_page import write_lineup
    from enginebench.report.lineup_terminal import lineup_text
    from enginebench.run.lineups import keep_lineup, line_up_stored

    root = Path.cwd()
    lineup = line_up_stored(options.runs, root)
    page = write_lineup(lineup, options.out) if options.out else keep_lineup(lineup, root)
    print(lineup_text(lineup, colour=sys.stdout.isatty()), end="")
    print(f"page: {page}")
    return page
