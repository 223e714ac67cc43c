"""Which scenarios a run takes: named sets, names, paths to files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.errors import ScenarioError
from enginebench.plan.messages import did_you_mean
from enginebench.plan.scenario import SETS_FILE, Scenario, ScenarioSet, load_scenario, load_sets, scenario_names

DEFAULT_SET = "default"


@dataclass(frozen=True, slots=True)
class Selection:
    """The scenarios of a run, in the order in which they were asked for."""

    scenarios: tuple[Scenario, ...]
    max_output_tokens: int | None  # cells with longer answers are left out; None: no limit
    set_name: str | None  # when one named set was asked for, and nothing else


def load_selection(names: Sequence[str], directory: Path) -> Selection:
    """Load what ``names`` ask for: each is a set, a scenario in ``directory``, or a path to a scenario file.

    Without names it is the set "default". The limit on output tokens holds only when all names are sets with a limit.
    Raises ScenarioError for an unknown name, an unusable file, and two files with the same name.
    """
    names = list(names) or [DEFAULT_SET]
    sets = load_sets(directory / SETS_FILE) if (directory / SETS_FILE).is_file() else {}
    files = dict.fromkeys(path for name in names for path in _files(name, sets, directory))
    return Selection(
        scenarios=_distinct([load_scenario(path) for path in files], list(files)),
        max_output_tokens=_limit([sets.get(name) for name in names]),
        set_name=names[0] if len(names) == 1 and names[0] in sets else None,
    )


def _files(name: str, sets: dict[str, ScenarioSet], directory: Path) -> list[Path]:
    if name in sets:
        return [directory / f"{scenario}.yaml" for scenario in sets[name].scenarios]
    if "/" in name or name.endswith((".yaml", ".yml")):
        return [Path(name)]
    known = scenario_names(directory)
    if name not in known:
        near = did_you_mean(name, [*sets, *known])
        raise ScenarioError(f"there is no scenario or set '{name}' in {directory}; {near}")
    return [directory / f"{name}.yaml"]


def _distinct(scenarios: list[Scenario], files: list[Path]) -> tuple[Scenario, ...]:
    by_name: dict[str, Path] = {}
    for scenario, path in zip(scenarios, files, strict=True):
        if scenario.name in by_name:
            raise ScenarioError(f"{by_name[scenario.name]} and {path} have the same name; rename one of them")
        by_name[scenario.name] = path
    return tuple(scenarios)


def _limit(chosen: list[ScenarioSet | None]) -> int | None:
    limits = [each.max_output_tokens if each else None for each in chosen]
    return None if None in limits else max(limit for limit in limits if limit is not None)
