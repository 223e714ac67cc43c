"""Gathers what the page of a comparison shows beside it: samples of each pair, tables on disk, and earlier runs.

What the page looks like is in ``report``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from enginebench.decide.model import Policy, Samples
from enginebench.files import write_text
from enginebench.report.comparison import COMPARISONS, FILE, Comparison, comparison_json
from enginebench.report.comparison_page import NAME, write_comparison
from enginebench.report.comparison_subject import Subject
from enginebench.report.index import write_index
from enginebench.report.trend import Series
from enginebench.run.baselines import Stored, find_stored
from enginebench.run.comparison import compare, take_samples
from enginebench.run.machine import workload_key
from enginebench.run.terms import stored_terms
from enginebench.run.trend import Json, series_of
from enginebench.run_lookup import all_runs
from enginebench.store import load_run

LATEST = 60
"""So many stored runs are looked through for a trend."""
ENOUGH = 3
"""Runs that make a history."""
MOST_SERIES = 4


def compare_stored(
    old_text: str,
    new_text: str,
    root: Path,
    policy: Policy = "release",
    allow: Sequence[str] = (),
    gates: Sequence[str] = (),
) -> tuple[Comparison, Stored, Stored]:
    """Compare the runs or baselines that two texts mean, on what is known of this machine's noise.

    Raises:
        RunError: one of them is none, or they cannot be compared at all.
    """
    new = find_stored(new_text, root)
    old = find_stored(old_text, root, new.data["environment"])
    terms = stored_terms(root, old, new, policy=policy, allow=allow, gates=gates)
    directories = [str(each.directory) if each.directory else None for each in (old, new)]
    return compare(old.data, new.data, terms, (directories[0], directories[1])), old, new


def keep_comparison(comparison: Comparison, old: Stored, new: Stored, root: Path, out: Path | None = None) -> Path:
    """Write comparison.json into ``out``, else among all comparisons, and the page beside it; return the page.

    Raises:
        RunError: one of them cannot be written.
    """
    page = (out or COMPARISONS / comparison.id) / NAME  # relative to where the user stands
    write_text(page.parent / FILE, comparison_json(comparison))
    return publish_page(comparison, old, new, root, page)


def publish_page(comparison: Comparison, old: Stored, new: Stored, root: Path, target: Path) -> Path:
    """Write the page of ``comparison`` to ``target``, list it in the index of ``root``, and return it.

    Raises:
        RunError: it cannot be written.
    """
    subject = subject_of(comparison, old, new, history_of(comparison, (old.data, new.data), root))
    write_comparison(subject, target)
    if target.resolve().is_relative_to((root / COMPARISONS).resolve()):
        write_index(root)
    return target


def subject_of(
    comparison: Comparison, old: Stored, new: Stored, history: tuple[tuple[str, tuple[Series, ...]], ...] = ()
) -> Subject:
    """What the page shows of two stored runs."""
    return Subject(
        comparison=comparison,
        runs=(old.data, new.data),
        directories=(old.directory, new.directory),
        samples=_samples(comparison, old.data, new.data),
        history=history,
    )


def _samples(comparison: Comparison, old: Json, new: Json) -> Mapping[str, Samples]:
    gated = [verdict.endpoint for verdict in comparison.gated]
    return {each.key: take_samples(each, old, new, ()) for each in gated}


def history_of(
    comparison: Comparison, runs: tuple[Json, Json], root: Path
) -> tuple[tuple[str, tuple[Series, ...]], ...]:
    """By the name of a build: series of the gated numbers over its stored runs, where there are enough."""
    names = dict.fromkeys((comparison.old.build, comparison.new.build))
    stored = [load_run(place).data for place in all_runs(root)[-LATEST:]]
    found = []
    for name in names:
        of_build = [run for run in stored if run["build"]["name"] == name and _alike(run, runs[1])]
        of_build.sort(key=lambda run: str(run["created"]))
        if len(of_build) >= ENOUGH:
            found.append((name, tuple(_gated_series(comparison, of_build))))
    return tuple(found)


def _alike(run: Json, other: Json) -> bool:
    """Whether they share a scenario that asks the same."""
    return not _workloads(run).isdisjoint(_workloads(other))


def _workloads(run: Json) -> set[str]:
    return {workload_key(scenario) for scenario in run["plan"]["scenarios"].values()}


def _gated_series(comparison: Comparison, runs: Sequence[Json]) -> list[Series]:
    wanted = [verdict.endpoint for verdict in comparison.gated if not verdict.endpoint.exact][:MOST_SERIES]
    keys = {each.key for each in wanted}
    found = series_of(runs, list(dict.fromkeys(each.name for each in wanted))) if wanted else ()
    return [each for each in found if f"{each.cell_id}/{each.metric}" in keys]
