"""``enginebench show`` on the command line: a stored run in the terminal."""

import argparse
import shutil
import sys
from pathlib import Path

from enginebench.cli.options import add_run


def add_show(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``show``."""
    show = commands.add_parser("show", help="show a stored run, or one of its cells, in the terminal")
    add_run(show)
    show.add_argument("--cell", metavar="ID", help="everything about one cell; a part of its id will do")
    show.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    from enginebench.report.terminal import summary_text
    from enginebench.report.terminal_cell import cell_text
    from enginebench.run_lookup import find_run

    run_dir = find_run(options.run_text, Path.cwd())
    width, colour = shutil.get_terminal_size((100, 24)).columns, sys.stdout.isatty()
    if options.cell:
        print(cell_text(run_dir, options.cell, width=width, colour=colour), end="")
    else:
        print(summary_text(run_dir, width=width, colour=colour), end="")
