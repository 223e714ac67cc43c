"""``enginebench compare`` and ``enginebench gate`` on the command line: two stored runs, and what they decide."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.compare_options import (
    add_allowing,
    add_files,
    add_judging,
    add_place,
    comparison_json,
    publish,
    write,
)

if TYPE_CHECKING:
    from enginebench.report.comparison import Comparison
    from enginebench.run.baselines import Stored

_RUN = "a run: a directory, the beginning of an id in reports/runs, or latest; or the name or file of a baseline"


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
    from enginebench.run.pages import page_place, publish_page

    comparison, old, new = _comparison(options)
    publish(comparison, options)
    place = page_place(comparison, options.out)
    write(place.parent / "comparison.json", comparison_json(comparison))
    print(f"page: {publish_page(comparison, old, new, Path.cwd(), place)}")
    return comparison


def _comparison(options: argparse.Namespace) -> "tuple[Comparison, Stored, Stored]":
    from enginebench.run.baselines import find_stored
    from enginebench.run.comparison import compare
    from enginebench.run.terms import stored_terms

    root = Path.cwd()
    new = find_stored(options.new, root)
    old = find_stored(options.old, root, new.data["environment"])
    terms = stored_terms(root, old, new, policy=options.policy, allow=options.allow, gates=options.gate)
    directories = [str(each.directory) if each.directory else None for each in (old, new)]
    return compare(old.data, new.data, terms, (directories[0], directories[1])), old, new
