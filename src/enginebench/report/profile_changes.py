"""Two builds' profiles side by side: the parts of each rerun that both took, and what differs. Judges nothing."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.report.profile_tables import MS
from enginebench.report.profiles import engine_parts, family_parts, gpu_parts, request_parts
from enginebench.report.units import DASH, percent
from enginebench.report.view import Column, Table, Text
from enginebench.store_profiles import Profile, read_profiles

GROUPS: Mapping[str, Callable[[Profile], dict[str, float]]] = {
    "a request, mean": request_parts,
    "the engine, over the round": engine_parts,
    "kernels by family": family_parts,
    "the GPU, over the round": gpu_parts,
}


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """One part of one rerun in both runs, seconds; None: that run has no such part."""

    cell_id: str
    kind: str
    group: str
    part: str
    old_s: float | None
    new_s: float | None

    @property
    def change_s(self) -> float | None:
        """New less old; None where either is missing."""
        return None if self.old_s is None or self.new_s is None else self.new_s - self.old_s


def compare_profiles(old: Path, new: Path) -> tuple[ProfileChange, ...]:
    """Part by part, what both runs (their directories) profiled of the same cell with the same kind.

    Raises:
        RunError: a profile cannot be read.
    """
    mine = {(profile.kind, profile.cell_id): profile for profile in read_profiles(old) if profile.taken}
    both = [(mine[key], theirs) for theirs in read_profiles(new) if theirs.taken
            and (key := (theirs.kind, theirs.cell_id)) in mine]  # fmt: skip
    return tuple(change for before, after in both for change in _changes(before, after))


def profile_changes_table(changes: tuple[ProfileChange, ...]) -> Table:
    """The same as a table for the page of a comparison."""
    columns = (
        Column("Rerun", numeric=False),
        Column("Of", numeric=False),
        Column("Part", numeric=False),
        Column("Old", "ms"),
        Column("New", "ms"),
        Column("Difference", "ms"),
        Column("Relative"),
    )
    return Table("Profiles side by side; under a profiler, so no verdict", columns, tuple(map(_row, changes)))


def _changes(before: Profile, after: Profile) -> Iterator[ProfileChange]:
    for group, parts_of in GROUPS.items():
        old, new = parts_of(before), parts_of(after)
        for part in dict.fromkeys((*old, *new)):
            yield ProfileChange(after.cell_id, after.kind, group, part, old.get(part), new.get(part))


def _row(change: ProfileChange) -> tuple[Text, ...]:
    missing = Text(DASH, "not in both")
    sides = [Text(DASH, "not there") if s is None else Text(MS.number(s)) for s in (change.old_s, change.new_s)]
    difference, relative = missing, missing
    if change.change_s is not None:
        difference = Text(MS.signed(change.change_s).removesuffix(" ms"))
        relative = Text(percent(change.change_s / change.old_s)) if change.old_s else missing
    head = (Text(f"{change.cell_id}, {change.kind}"), Text(change.group), Text(change.part))
    return (*head, *sides, difference, relative)
