"""From what a user types to the run that is meant. Reads directories' names, and no run."""

from pathlib import Path

from enginebench.errors import RunError

LATEST = "latest"
_SHOWN = 5


def runs_directory(root: Path) -> Path:
    """Where the runs of ``root`` are."""
    return root / "reports" / "runs"


def all_runs(root: Path) -> list[Path]:
    """The directories of all runs of ``root``, the oldest first: ids begin with the time."""
    return sorted(file.parent for file in runs_directory(root).glob("*/run.json"))


def find_run(text: str, root: Path) -> Path:
    """The directory of the run that ``text`` means.

    ``text``: a directory that holds a run.json, that file, the id of a run of ``root``, a prefix that only one id has,
    or ``latest``.

    Raises:
        RunError: no run is meant, or several are.
    """
    path = Path(text)
    if path.name == "run.json" and path.is_file():
        return path.parent
    if (path / "run.json").is_file():
        return path
    runs = all_runs(root)
    found = runs[-1:] if text == LATEST else [run for run in runs if run.name.startswith(text) and text]
    exact = [run for run in found if run.name == text]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    raise RunError(_ambiguous(text, found) if found else _unknown(text, runs, root))


def _ambiguous(text: str, found: list[Path]) -> str:
    names = ", ".join(run.name for run in found[:_SHOWN]) + (", …" if len(found) > _SHOWN else "")
    return f"{text!r} means {len(found)} runs ({names}): type more of the id."


def _unknown(text: str, runs: list[Path], root: Path) -> str:
    if not runs:
        return f"There is no run {text!r}: {runs_directory(root)} holds none; name a directory with a run.json."
    return (
        f"There is no run {text!r}: it is neither a directory with a run.json nor the beginning of an id in"
        f" {runs_directory(root)}; the latest there is {runs[-1].name}."
    )
