"""``enginebench compare`` and ``enginebench gate`` on the command line: two stored runs, and what they decide."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.cli.options import RUN, add_allowing, add_files, add_judging, add_place, publish

if TYPE_CHECKING:
    from enginebench.report.comparison import Comparison

_RUN = f"a run: {RUN}; or the name or file of a baseline"


def add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the commands ``compare`` and ``gate``."""
    compare = commands.add_parser(
        "compare",
        help="compare two stored runs; decides nothing for CI",
        description="Runs of one enginebench ab are compared in pairs, others as runs made at different times.",
    )
    compare.add_argument("old", metavar="OLD", help=_RUN)
    compare.add_argument("new", metavar="NEW", help="the same, of what is to be judged")
    _add_common(compare)
    compare.set_defaults(run=_compare)

    gate = commands.add_parser(
        "gate",
        help="exit with 0, 10, 11 or 12: whether a run may replace its baseline",
        description="Exits with 0 pass, 10 regression, 11 inconclusive, 12 invalid or not comparable. A cell that is "
        "missing is never a pass.",
    )
    gate.add_argument("new", metavar="RUN", help=_RUN)
    gate.add_argument("--baseline", required=True, metavar="BASELINE", dest="old", help="what it is held against")
    _add_common(gate)
    gate.set_defaults(run=_gate)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_judging(parser)
    add_allowing(parser)
    add_place(parser)
    add_files(parser)


def _compare(options: argparse.Namespace) -> int:
    _judged(options)
    return 0


def _gate(options: argparse.Namespace) -> int:
    return _judged(options).gate.exit_code


def _judged(options: argparse.Namespace) -> "Comparison":
    """Compare, print, and write what is asked for and the page."""
    from enginebench.run.pages import compare_stored, keep_comparison

    root = Path.cwd()
    comparison, old, new = compare_stored(options.old, options.new, root, options.policy, options.allow, options.gate)
    publish(comparison, options)
    print(f"page: {keep_comparison(comparison, old, new, root, options.out)}")
    return comparison
