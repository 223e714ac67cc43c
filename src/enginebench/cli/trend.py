"""``enginebench trend`` on the command line: where the numbers of stored runs changed for good."""

import argparse
from pathlib import Path


def add_trend(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``trend``."""
    trend = commands.add_parser(
        "trend",
        help="find the runs at which a number changed for good",
        description="Takes runs of one machine and workload as a series, oldest first, and finds its steps.",
    )
    trend.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs, or directories of runs (default: all of reports/runs)"
    )
    trend.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="tpot_p50, output_tokens_per_s …; may be repeated (default: the headline numbers)",
    )
    trend.add_argument("--cell", default="", metavar="TEXT", help="only cells whose id holds this")
    trend.add_argument("--json", type=Path, metavar="FILE", help="every series with its steps, as JSON")
    trend.add_argument("--html", type=Path, metavar="FILE", help="a page with a chart of every cell")
    trend.set_defaults(run=_trend)


def _trend(options: argparse.Namespace) -> None:
    from enginebench.cli.options import write
    from enginebench.report.trend import trend_json, trend_text
    from enginebench.report.trend_page import write_trend
    from enginebench.run.trend import runs_of, series_of

    runs, unreadable = runs_of(options.runs, Path.cwd())
    found = series_of(runs, options.metric, options.cell)
    print(trend_text(found, len(runs)), end="")
    for sentence in unreadable:
        print(f"passed over: {sentence}")
    write(options.json, trend_json(found))
    if options.html is not None:
        print(f"page: {write_trend(found, len(runs), options.html)}")
