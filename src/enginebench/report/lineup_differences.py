"""What differs between several runs: their builds, and the conditions under which they were measured."""

from collections.abc import Iterator, Sequence

from enginebench.decide.causes import build_differences
from enginebench.report import trust
from enginebench.report.figures import Section
from enginebench.report.lineup import Entrant, Lineup
from enginebench.report.same_or_not import STOPS, conditions
from enginebench.report.summary import REFERENCE_LABEL, date, hardware, is_reference
from enginebench.report.units import DASH, count
from enginebench.report.view import Column, Table, Text

SAME = "="
_OF_THE_BUILD = ("Build", "Engine version")
"""Conditions that the table of builds has."""


def runs_section(lineup: Lineup) -> Section:
    """Which runs they are, what their builds are, and under which conditions they were measured."""
    tables = (_runs(lineup), _builds(lineup), *_conditions(lineup))
    reference = lineup.reference.label
    lead = f"{SAME} is what {reference}, the reference, has. Facts and conditions in no table are the same in all runs."
    return Section("differences", "What differs", lead, tables=tables)


def _runs(lineup: Lineup) -> Table:
    titles = ("Build", "Engine", "Machine", "Began", "Cells measured", "Client error, at most", "Run")
    columns = tuple(Column(title, numeric=False) for title in titles)
    return Table("The runs", columns, tuple(_run(each) for each in lineup.entrants))


def _run(entrant: Entrant) -> tuple[Text, ...]:
    run, cells = entrant.run, [cell for cell in entrant.cells.values() if cell.status != "left_out"]
    measured = [cell for cell in cells if cell.measured]
    errors = [error for cell in measured if (error := trust.error_of(cell.record)) is not None]
    build = run["build"]
    return (
        Text(entrant.label, path=entrant.role),
        Text(REFERENCE_LABEL if is_reference(run) else f"TensorRT-LLM {build.get('version') or 'of unknown version'}"),
        Text(hardware(run["environment"]) or DASH, "not known"),
        Text(date(run["created"])),
        Text(f"{len(measured)} of {len(cells)}"),
        Text(f"{max(errors) * 100:.1f}%") if errors else Text(DASH, "uncalibrated"),
        Text(entrant.given.named),
    )


def _builds(lineup: Lineup) -> Table:
    """A row a fact of the builds that is not the same in all; their fingerprints first."""
    first, *others = lineup.entrants
    values: dict[tuple[str, str], list[str]] = {}
    for place, other in enumerate(others, 1):
        for each in build_differences(first.run, other.run, every=True):
            row = values.setdefault((each.section, each.key), [each.old_text, *[SAME] * len(others)])
            row[place] = each.new_text
    rows = [(key, section, *texts) for (section, key), texts in values.items()]
    own, *prints = [str(each.run["build"]["fingerprint"]).removeprefix("sha256:")[:12] for each in lineup.entrants]
    rows.insert(0, ("fingerprint", "build", own, *(SAME if each == own else each for each in prints)))
    return _table("Builds", ("Fact", "Part"), lineup, rows)


def _conditions(lineup: Lineup) -> Iterator[Table]:
    """A row a condition that is not the same in all, those first that keep runs from being compared."""
    first, *others = lineup.entrants
    values: dict[str, list[str]] = {}
    stopped: set[str] = set()
    for place, other in enumerate(others, 1):
        problems = lineup.problems[other.label]
        named = {each.what: False for each in problems}
        for each in conditions(first.run, other.run, problems):
            if each.old != each.new and each.what not in _OF_THE_BUILD:
                values.setdefault(each.what, [each.old, *[SAME] * len(others)])[place] = each.new
                stopped |= {each.what} if each.answer(named) == STOPS else set()
    rows = [(what, "no" if what in stopped else "yes", *texts) for what, texts in values.items()]
    if rows:
        yield _table("Conditions", ("Condition", "Comparable"), lineup, sorted(rows, key=lambda row: row[1]))


def _table(caption: str, heads: tuple[str, str], lineup: Lineup, rows: Sequence[Sequence[str]]) -> Table:
    labels = [each.label for each in lineup.entrants]
    columns = tuple(Column(title, numeric=False) for title in (heads[0], *labels, heads[1]))
    return Table(caption, columns, tuple((Text(name), *map(Text, texts), Text(last)) for name, last, *texts in rows))


def warnings_of(lineup: Lineup) -> tuple[str, ...]:
    """Why runs cannot be compared with the reference, a sentence a reason, with all runs that it is about."""
    about: dict[str, list[str]] = {}
    for label, problems in lineup.problems.items():
        for what in dict.fromkeys(each.what for each in problems):
            first, *more = [each.sentence for each in problems if each.what == what]
            others = f" And {count(len(more), 'more difference')} of this kind." if more else ""
            about.setdefault(f"{first}{others}", []).append(label)
    reference = lineup.reference.label
    return tuple(f"{', '.join(labels)} against {reference}: {sentence}" for sentence, labels in about.items())
