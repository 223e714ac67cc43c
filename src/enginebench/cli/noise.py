"""``enginebench noise`` on the command line: A/A sessions of one build, kept for comparisons of stored runs."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.cli.options import add_choices
from enginebench.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from enginebench.run.noise import Known

SESSIONS = 6


def add_noise(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``noise``."""
    noise = commands.add_parser(
        "noise",
        help="how much sessions of one build differ on this machine: what a stored baseline is worth",
        description="Measures one build again and again, an engine load each, and keeps the numbers under "
        "reports/noise by hardware and scenario. Sessions of several days tell more than those of one hour: add "
        "--sessions 1 to a nightly job, or give runs of an unchanged build with --add.",
    )
    noise.add_argument("--build", metavar="NAME=DIR", help="as for pytest bench/ (default: the reference engine)")
    add_choices(noise)
    noise.add_argument(
        "--sessions", type=int, default=None, metavar="N", help=f"how many more (default: {SESSIONS}; with --add 0)"
    )
    noise.add_argument(
        "--add", action="append", default=[], metavar="RUN", help="take a stored run as a session; may be repeated"
    )
    noise.set_defaults(run=_noise)


def _noise(options: argparse.Namespace) -> int:
    from enginebench.run.noise import keep_sessions
    from enginebench.run_lookup import find_run
    from enginebench.store import load_run

    root = Path.cwd()
    sessions = (0 if options.add else SESSIONS) if options.sessions is None else options.sessions
    if sessions < 0 or not (sessions or options.add):
        raise RunError(f"--sessions {sessions} measures nothing: give 1 or more, or runs with --add.")
    kept, interrupted = [load_run(find_run(text, root)).data for text in options.add], False
    if sessions:
        directory, interrupted = _measure(options, sessions)
        run = load_run(directory).data
        if interrupted and not any(cell["status"] == "measured" for cell in run["cells"].values()):
            print("Stopped before anything was measured: nothing is kept of it.")
        else:
            kept.append(run)
    files = [file for run in kept for file in keep_sessions(run, root)]
    for run in kept[-1:]:
        _show(run)
    print("".join(f"kept in {file.relative_to(root)}\n" for file in dict.fromkeys(files)), end="")
    return 130 if interrupted else 0


def _measure(options: argparse.Namespace, sessions: int) -> tuple[Path, bool]:
    from enginebench.run.ab_plan import attached_of, check_servers, plan_one, wishes_of
    from enginebench.run.builds import build_from_option
    from enginebench.run.noise_run import measure_sessions

    root = Path.cwd()
    build = build_from_option(options.build, root, options.tokenizer, options.trust_remote_code)
    wishes = wishes_of(options)
    plan = plan_one(build, wishes, root)
    attached = attached_of(wishes, plan)
    print("".join(f"! {warning}\n" for warning in check_servers(plan, attached)), end="", flush=True)
    return measure_sessions(plan, root, ["enginebench", *sys.argv[1:]], sessions, attached)


def _show(run: "Mapping[str, Any]") -> None:
    from enginebench.run.noise import known_noise

    known = known_noise(Path.cwd(), run["environment"], run["plan"]["scenarios"])
    if known is None or not known.noise.endpoints:
        print("One session tells nothing about noise: measure more.")
        return
    _print_table(known)


def _print_table(known: "Known") -> None:
    from rich.console import Console
    from rich.table import Table

    from enginebench.report.units import DASH
    from enginebench.run.noise_run import noise_lines

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("number", no_wrap=True)
    for title in ("sessions", "sd between\nsessions", "sd of a\npair", "stored runs\nfind", "20 pairs\nfind"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in noise_lines(known):
        shares = (line.session_sd, line.pair_sd, line.stored, line.ab)
        texts = [DASH if share is None else f"{share:.1%}" if share < 10 else "nothing" for share in shares]
        table.add_row(line.key, str(line.degrees + 1), *texts)
    console = Console(width=150, highlight=False)
    console.print(table)
    console.print("find: the smallest slowdown beyond a margin of 5% that is found four times out of five", style="dim")
