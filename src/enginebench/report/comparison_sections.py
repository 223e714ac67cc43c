"""The quieter parts of a comparison's page, each a table: builds, causes, memory, and both environments."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median

from enginebench.builds.diff import rows as diff_rows
from enginebench.decide.causes import build_differences
from enginebench.decide.model import Cause
from enginebench.report.cells import Json
from enginebench.report.comparison_subject import Subject, endpoint_words
from enginebench.report.facts import facts
from enginebench.report.figures import Section
from enginebench.report.profile_changes import compare_profiles, profile_changes_table
from enginebench.report.units import DASH, count, percent, size
from enginebench.report.view import Column, Table, Text

MOST_CAUSES = 30
_STRENGTHS = ((0.7, "strong"), (0.4, "possible"), (0.0, "weak"))
_PHASES = (("after_load", "after load"), ("peak", "peak"))


def build_section(subject: Subject) -> Section:
    """What differs between the builds, by what is known of them."""
    old, new = subject.runs
    found = diff_rows(build_differences(old, new, every=True))
    columns = tuple(Column(title, numeric=False) for title in ("Fact", "Old", "New", "Part"))
    table = Table(
        "Differences of the builds",
        columns,
        tuple((Text(key), Text(one), Text(two), Text(part)) for part, key, one, two in found),
    )
    if found:
        verb = "differs" if len(found) == 1 else "differ"
        lead = f"{count(len(found), 'fact')} of the builds {verb}; all others are the same."
    elif old["build"]["fingerprint"] == new["build"]["fingerprint"]:
        lead = "None: both are the same files."
    else:
        lead = "The files differ, and nothing that is known of the builds does."
    return Section("builds", "Builds", lead, tables=(table,) if found else ())


def causes_section(subject: Subject) -> Section | None:
    """What may be why, ranked; None where nothing got worse."""
    comparison = subject.comparison
    if not comparison.causes:
        return None
    columns = (
        Column("What", numeric=False),
        Column("Old", numeric=False),
        Column("New", numeric=False),
        Column("Clue", numeric=False),
        Column("Weight"),
    )
    shown = comparison.causes[:MOST_CAUSES]
    table = Table("What differs, the likeliest cause first", columns, tuple(_cause(each) for each in shown))
    hidden = len(comparison.causes) - len(shown)
    notes = (f"{count(hidden, 'weaker clue')} in comparison.json.",) if hidden else ()
    return Section("causes", "Why?", _causes_lead(subject), tables=(table,), notes=notes)


def _cause(cause: Cause) -> tuple[Text, ...]:
    strength = next(word for least, word in _STRENGTHS if cause.weight >= least)
    sides = (Text(DASH, "none") if each is None else Text(_sized(cause.what, each)) for each in (cause.old, cause.new))
    return (Text(cause.what), *sides, Text(strength), Text(f"{cause.weight:.2f}", number=cause.weight))


def _sized(what: str, text: str) -> str:
    """Bytes as people read them."""
    return size(int(text)) if what.endswith("_bytes") and text.isdecimal() else text


def _causes_lead(subject: Subject) -> str:
    worse = [each for each in subject.comparison.gated if each.outcome == "regression"]
    first = subject.comparison.causes[0]
    about = ""
    if worse:
        most = max(worse, key=lambda each: abs(each.change or 0.0))
        about = f" of the regression in {endpoint_words(most, subject.names())}"
    return (
        f"What differs between the runs and may be the cause{about}. Likeliest: {first.sentence.rstrip('.')}. "
        "Differences, not proofs: a setting weighs as much as such settings usually matter, a measured number as much "
        "of the change as its own could make up."
    )


def memory_section(subject: Subject) -> Section | None:
    """Memory of both, by path and owner: medians over their sessions. None where neither run knows any."""
    held = [dict(_held(run["sessions"])) for run in subject.runs]
    names = list(dict.fromkeys([*held[0], *held[1]]))
    rows = tuple(_memory_row(name, *(each.get(name) for each in held)) for name in names)
    if not rows:
        return None
    titles = ("Path", "Memory of", "Old", "New", "Change")
    columns = tuple(Column(title, numeric=place > 1) for place, title in enumerate(titles))
    lead = (
        "Medians over the sessions, one engine load each. On the host: the resident set of the processes. What the "
        "ledger says is of the GPU, once the engine is loaded."
    )
    return Section("memory", "Memory", lead, tables=(Table("Memory of both builds", columns, rows),))


def _held(sessions: Iterable[Json]) -> Iterator[tuple[tuple[str, str], float]]:
    """By path and owner, the median in bytes."""
    found: dict[tuple[str, str], list[float]] = {}
    for session in sessions:
        for what, amount in _of_session(session):
            if amount is not None:
                found.setdefault((session["path"], what), []).append(float(amount))
    yield from ((name, median(amounts)) for name, amounts in found.items())


def _of_session(session: Json) -> Iterator[tuple[str, float | None]]:
    memory = session.get("memory") or {}
    for key, phase in _PHASES:
        yield f"GPU, {phase}", (memory.get("gpu") or {}).get(key)
        for role, phases in (memory.get("host") or {}).items():
            yield f"{role} processes, {phase}", (phases or {}).get(key)
    for line in session.get("ledger") or ():
        if line["owner"] == "gpu":
            yield f"GPU ledger: {line['what']}", line["bytes"]


def _memory_row(name: tuple[str, str], old: float | None, new: float | None) -> tuple[Text, ...]:
    path, what = name
    sides = (Text(DASH, "not known") if each is None else Text(size(each), number=each) for each in (old, new))
    change = (
        Text(DASH, "one side is not known")
        if not old or new is None
        else Text(percent(new / old - 1), number=new / old - 1)
    )
    return (Text(path, path=path), Text(what), *sides, change)


def environments(subject: Subject) -> tuple[Table, ...]:
    """Everything that both runs know about themselves, side by side, a table a list."""
    old, new = (_lists(run) for run in subject.runs)
    columns = tuple(Column(title, numeric=False) for title in ("Name", "Old", "New", "Same?"))
    return tuple(
        Table(title, columns, tuple(_side_by_side(old.get(title, {}), new.get(title, {}))))
        for title in dict.fromkeys([*old, *new])
    )


def _lists(run: Json) -> Mapping[str, Mapping[str, str]]:
    """Lists of names and values; of each path the first session, since later ones repeat it."""
    found: dict[str, Mapping[str, str]] = {}
    for each in facts(run):
        found.setdefault(each.title, dict(each.rows))
    return found


def _side_by_side(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[Text, ...]]:
    for name in dict.fromkeys([*old, *new]):
        values: Sequence[str | None] = (old.get(name), new.get(name))
        sides = (Text(DASH, "not there") if value is None else Text(value) for value in values)
        yield (Text(name), *sides, Text("✓ same" if values[0] == values[1] else "≠ differs"))


def profiles_section(subject: Subject) -> Section | None:
    """What both runs profiled of the same cells, side by side. Raises RunError for a profile that cannot be read."""
    old, new = subject.directories
    changes = compare_profiles(old, new) if old and new else ()
    if not changes:
        return None
    largest = max(changes, key=lambda change: abs(change.change_s or 0.0))
    lead = f"{largest.part} ({largest.group}) changed most, in {largest.cell_id}. Profiled reruns decide nothing."
    return Section("profiles", "Where the time went", lead, tables=(profile_changes_table(changes),))
