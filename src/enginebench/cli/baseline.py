"""``enginebench baseline`` on the command line: runs kept small, to hold later runs against."""

import argparse
from pathlib import Path

from enginebench.cli.options import add_run


def add_baseline(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command ``baseline`` and its own commands."""
    baseline = commands.add_parser("baseline", help="keep a run as a baseline under reports/baselines, list, show one")
    kinds = baseline.add_subparsers(required=True, metavar="COMMAND")
    save = kinds.add_parser("save", help="keep what a comparison needs of a run; small enough for git")
    add_run(save)
    save.add_argument("--name", metavar="NAME", help="by which it is found (default: the name of its build)")
    save.add_argument("--replace", action="store_true", help="when there is one of that name already")
    save.set_defaults(run=_save)
    kinds.add_parser("list", help="all baselines, by hardware").set_defaults(run=_list)
    show = kinds.add_parser("show", help="what a baseline is of, and its numbers")
    show.add_argument("baseline", metavar="NAME", help="its name, or its file")
    show.set_defaults(run=_show)


def _save(options: argparse.Namespace) -> None:
    from enginebench.run.baselines import save_baseline
    from enginebench.run_lookup import find_run

    root = Path.cwd()
    file = save_baseline(find_run(options.run_text, root), root, options.name, replace=options.replace)
    print(f"{file.relative_to(root)}: {file.stat().st_size / 1024:.0f} KiB")


def _list(_: argparse.Namespace) -> None:
    from enginebench.run.baselines import all_baselines, read_baseline

    files = all_baselines(Path.cwd())
    if not files:
        print("There is no baseline; keep one with enginebench baseline save RUN.")
    for file in files:
        run = read_baseline(file)["run"]
        cells = sum(cell["status"] == "measured" for cell in run["cells"].values())
        print(f"{file.parent.name}/{file.stem}  {run['build']['name']}  {run['created']}  {cells} cells")


def _show(options: argparse.Namespace) -> None:
    from enginebench.report.terminal import headline
    from enginebench.run.baselines import find_baseline, read_baseline
    from enginebench.run.machine import machine_words

    data = read_baseline(find_baseline(options.baseline, Path.cwd()))
    run = data["run"]
    print(f"{data['name']}: build {run['build']['name']} ({run['build']['fingerprint']})")
    print(f"measured {run['created']} as {run['id']} on {machine_words(run['environment'])}")
    for cell_id, cell in run["cells"].items():
        words = headline(cell) if cell["status"] == "measured" else f"{cell['status']}: {cell['reason']}"
        print(f"  {cell_id}  {words}")
