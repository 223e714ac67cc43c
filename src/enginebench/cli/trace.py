"""``enginebench trace`` on the command line: a run as a trace for ui.perfetto.dev."""

import argparse
from pathlib import Path

from enginebench.cli.options import add_run

FILE = "trace.json.gz"


def add_trace(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``trace``."""
    trace = commands.add_parser(
        "trace", help="write requests, iterations, server spans and GPU samples of a run as one trace, for Perfetto"
    )
    add_run(trace)
    trace.add_argument("--out", type=Path, metavar="FILE", help=f"write it there (default: {FILE} in the run)")
    trace.set_defaults(run=_trace)


def _trace(options: argparse.Namespace) -> None:
    from enginebench.profile.timeline import write_timeline
    from enginebench.run_lookup import find_run
    from enginebench.store import load_run

    run = load_run(find_run(options.run_text, Path.cwd()))
    path = options.out or run.directory / FILE
    written = write_timeline(run, path)
    print(f"{written:,} events written to {path}: open it at ui.perfetto.dev, which keeps it on this machine.")
