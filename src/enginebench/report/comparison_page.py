"""The page of a comparison: two runs of two builds, one offline file. From a :class:`Subject` to strings, and to HTML.

What is compared and decided comes in; nothing is decided here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enginebench.decide.gate import sentence
from enginebench.decide.model import Verdict
from enginebench.files import write_text
from enginebench.report import comparison_words as words
from enginebench.report.change_table import Changes, changes_of
from enginebench.report.comparison import Comparison
from enginebench.report.comparison_sections import (
    build_section,
    causes_section,
    environments,
    memory_section,
    profiles_section,
)
from enginebench.report.comparison_subject import Subject, endpoint_words
from enginebench.report.figures import Section
from enginebench.report.forest import forest_section
from enginebench.report.overlays import load_section, overlay_section
from enginebench.report.page import render
from enginebench.report.pairs import pairs_section
from enginebench.report.same_or_not import same_section, same_table
from enginebench.report.sections import gather
from enginebench.report.summary import date
from enginebench.report.trend_figures import Line, trend_section
from enginebench.report.units import count
from enginebench.report.view import Table

NAME = "report.html"
_MEANINGS = {
    0: "the new build may replace the old one",
    10: "a number that decides got worse by more than its margin",
    11: "the measurement does not suffice to decide",
    12: "the runs cannot be compared, or something that decides is missing",
}


@dataclass(frozen=True, slots=True)
class GateCard:
    """A number that decides. ``outcome`` with its sign; ``numbers``: old and new."""

    title: str
    cell: str
    outcome: str
    mark: str
    change: str
    interval: str
    numbers: str
    remark: str


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """The page, top to bottom: ``before`` the table of every number, and ``after`` it."""

    title: str
    heading: tuple[str, str]
    subtitle: tuple[str, ...]
    comparison_id: str
    date: str
    level: str
    headline: str
    notes: tuple[str, ...]
    cards: tuple[GateCard, ...]
    before: tuple[Section, ...]
    same: Table
    changes: Changes
    after: tuple[Section, ...]
    environments: tuple[Table, ...]
    alpha: str

    @property
    def nav(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of every part, top to bottom."""
        return (
            ("result", "Result"),
            *((part.id, part.title) for part in self.before),
            ("cells", "Every number"),
            *((part.id, part.title) for part in self.after),
            ("environment", "Environments"),
            ("reading", "How to read"),
        )

    @property
    def draws(self) -> bool:
        """Whether there is any figure."""
        return any(part.figures for part in (*self.before, *self.after))


def write_comparison(subject: Subject, target: Path) -> Path:
    """Write the page of ``subject`` to ``target`` and return it.

    Raises:
        RunError: the page cannot be written.
    """
    write_text(target, render("comparison.html.j2", comparison_page(subject), subject.comparison.as_json()))
    return target


def comparison_page(subject: Subject) -> ComparisonPage:
    """Everything that the page shows."""
    comparison = subject.comparison
    before, troubles = _gathered(subject, (same_section, forest_section))
    after, more = _gathered(
        subject,
        (
            build_section,
            overlay_section,
            load_section,
            pairs_section,
            causes_section,
            profiles_section,
            memory_section,
            _history,
        ),
    )
    return ComparisonPage(
        title=f"{words.headline(comparison)}, {date(comparison.created)[:10]}",
        heading=(comparison.old.build, comparison.new.build),
        subtitle=tuple(_subtitle(comparison)),
        comparison_id=comparison.id,
        date=date(comparison.created),
        level=words.level_of(comparison),
        headline=_headline(comparison),
        notes=(*troubles, *more, *_notes(subject)),
        cards=tuple(_card(each, subject) for each in comparison.gated),
        before=before,
        same=same_table(subject),
        changes=changes_of(subject),
        after=after,
        environments=environments(subject),
        alpha=_confidence(comparison),
    )


def _gathered(
    subject: Subject, makers: Sequence[Callable[[Subject], Section | None]]
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """As for the page of a run: a part whose tables cannot be read costs a sentence."""
    return gather(subject.runs[1], None, [lambda *_, make=make: make(subject) for make in makers])


def _headline(comparison: Comparison) -> str:
    said, meaning = words.headline(comparison).split(":", 1)[0], _MEANINGS[comparison.gate.exit_code]
    return f"{said}: {meaning}."


def _subtitle(comparison: Comparison) -> Iterator[str]:
    if comparison.reference:
        yield words.REFERENCE
    yield comparison.new.host
    yield date(comparison.created)


def _notes(subject: Subject) -> Iterator[str]:
    comparison, gate = subject.comparison, subject.comparison.gate
    yield from (_in_words(each, subject) for each in (*gate.reasons, *gate.warnings))
    yield from (f"Allowed: {each.sentence}" for each in comparison.problems if each.allowed)
    source = f", named by {comparison.design.gate_source}" if comparison.design.gate_source else ""
    decide = f"{count(len(comparison.gated), 'number')} decide{'s' if len(comparison.gated) == 1 else ''}{source}"
    yield f"{decide if comparison.gated else 'No number was judged'}; policy {gate.policy}; exit code {gate.exit_code}."
    yield words.design_sentence(comparison.design)
    yield from comparison.notes


def _in_words(reason: str, subject: Subject) -> str:
    """What the gate says of a number, with the cell in words; other reasons as they are."""
    verdict = next((each for each in subject.comparison.gated if sentence(each) == reason), None)
    if verdict is None:
        return reason
    change = f", {words.change(verdict)} ({words.interval(verdict)}, margin {words.margin(verdict)})"
    said = (
        f"{endpoint_words(verdict, subject.names())}: {verdict.outcome}{change if verdict.change is not None else ''}"
    )
    remarks = (*verdict.reasons, words.more_pairs(verdict))
    return f"{'; '.join([said, *(each.rstrip('.') for each in remarks if each)])}."


def _card(verdict: Verdict, subject: Subject) -> GateCard:
    cell_id = verdict.endpoint.cell_id
    old, new = words.both_values(verdict)
    return GateCard(
        title=words.metric_title(verdict),
        cell=subject.names().get(cell_id, cell_id),
        outcome=verdict.outcome,
        mark=words.MARKS[verdict.outcome],
        change=words.change(verdict),
        interval=f"{'exact' if verdict.endpoint.exact else words.interval(verdict)}, margin {words.margin(verdict)}",
        numbers=f"{old} → {new}",
        remark=words.more_pairs(verdict),
    )


def _confidence(comparison: Comparison) -> str:
    known = {each.confidence for each in comparison.gated if each.confidence is not None}
    return f"{max(known) * 100:.4g}%" if known else ""


def _history(subject: Subject) -> Section | None:
    """What stored runs of these builds' names were like before, where there are enough of them."""
    roles = dict(zip((subject.comparison.old.build, subject.comparison.new.build), ("old", "new"), strict=True))
    lines = [Line(name, roles.get(name, ""), series) for name, found in subject.history for series in found]
    made = trend_section(lines)
    if made is None:
        return None
    return replace(made, lead=f"{made.lead} Runs of builds with these names.")
