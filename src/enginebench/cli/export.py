"""``enginebench export`` on the command line: a stored run as CSV, JSON or Markdown."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.cli.options import add_run
from enginebench.errors import RunError

if TYPE_CHECKING:
    from enginebench.store import Run


def add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``export``."""
    export = commands.add_parser("export", help="write a stored run as CSV, JSON or Markdown")
    add_run(export)
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--csv", action="store_const", dest="form", const="csv", help="a line per cell, every metric")
    form.add_argument("--json", action="store_const", dest="form", const="json", help="all that the run's page says")
    form.add_argument(
        "--markdown", action="store_const", dest="form", const="markdown", help="verdict, tables and findings"
    )
    export.add_argument("--requests", action="store_true", help="with --csv: a line per request instead")
    export.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: print it)")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from enginebench.run_lookup import find_run
    from enginebench.store import load_run

    if options.requests and options.form != "csv":
        raise RunError("--requests goes with --csv alone: add --csv, or leave it out.")
    text = _text(options, load_run(find_run(options.run_text, Path.cwd())))
    if options.out is None:
        _print(text)
    else:
        _write(text, options.out)


def _text(options: argparse.Namespace, run: "Run") -> Iterable[str]:
    from enginebench.report.export import cells_csv, requests_csv, view_json
    from enginebench.report.markdown import run_markdown

    if options.form == "csv":
        return requests_csv(run) if options.requests else cells_csv(run)
    return [view_json(run) if options.form == "json" else run_markdown(run)]


def _print(text: Iterable[str]) -> None:
    for part in text:
        sys.stdout.write(part)


def _write(text: Iterable[str], path: Path) -> None:
    from enginebench.files import write_aside, writing

    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(text)

    with writing(path):
        write_aside(path, write)
    print(f"written to: {path}")
