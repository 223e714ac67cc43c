"""The chart that answers the question: how much each number changed, with its interval, right is worse."""

import math
from collections.abc import Iterator, Mapping, Sequence

from enginebench.decide.model import OUTCOMES, Outcome, Verdict
from enginebench.report import comparison_words as words
from enginebench.report.comparison_subject import Subject, endpoint_words, harm, harm_ticks, harms
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.units import count
from enginebench.report.view import Column, Table, Text

MOST_WATCHED = 24
"""Of the numbers that decide nothing, those that changed most are drawn; the table has all."""
PLURALS: dict[Outcome, str] = {
    "regression": "regressions",
    "improvement": "improvements",
    "equivalent": "equivalent",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}
LEAD = (
    "Each mark is the change of the new build against the old one, each bar its interval. Right is worse, whether the "
    "number should be low or high. Equal distances are equal factors: half the tokens/s is worse by 100%, as is twice "
    "the latency. Inside the shade, or the grey bar of its row, a change is too small to count."
)


def forest_section(subject: Subject) -> Section | None:
    """Gated numbers, and below them the watched ones that changed most; None where nothing was judged."""
    names = subject.names()
    comparison = subject.comparison
    drawn = [
        ("forest-gated", "The numbers that decide", _drawable(comparison.gated)),
        ("forest-watched", "Numbers that are only watched", _most_changed(_drawable(comparison.watched))),
    ]
    figures = tuple(_figure(each, title, found, names) for each, title, found in drawn if found)
    if not figures:
        return None
    return Section("changes", "Changes", LEAD, figures, notes=tuple(_notes(subject, names)))


def _drawable(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Those with an interval, the worst first."""
    known = [(each, found[1]) for each in verdicts if (found := harms(each)) is not None]
    return [each for each, _ in sorted(known, key=lambda pair: -pair[1])]


def _most_changed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    ranked = sorted(verdicts, key=lambda each: -abs(harm(each.endpoint, each.change) or 0.0))[:MOST_WATCHED]
    return [each for each in verdicts if each in ranked]


def _figure(figure_id: str, title: str, verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Figure:
    ends = [value for each in verdicts for value in harms(each) or ()]
    margins = sorted({each.endpoint.margin for each in verdicts})
    reach = [*ends, *(edge for margin in margins for edge in _edges(margin))]
    x = Axis("← better by · worse by →", from_zero=False, ticks=harm_ticks(reach))
    marks = [*_series(verdicts, names)]
    if len(margins) > 1:
        marks.append(_margins(verdicts, names))
    rules = (Rule("x", 0.0, ""), *(_margin_rules(margins[0]) if len(margins) == 1 else ()))
    plot = Plot("Change of the new build", x, Axis("number"), tuple(marks), rules, horizontal=True)
    return Figure(figure_id, title, _finding(verdicts, names), (plot,), change_table(title, verdicts, names))


def _series(verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Iterator[Marks]:
    """First one without marks, which keeps the rows in their order; then one for each outcome."""
    rows = tuple(endpoint_words(each, names) for each in verdicts)
    yield Marks("", "line", (math.nan,) * len(rows), rows, role="muted")
    for outcome in OUTCOMES:
        found = [each for each in verdicts if each.outcome == outcome]
        if found:
            yield _of_outcome(outcome, found, names)


def _of_outcome(outcome: Outcome, verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Marks:
    lows, middles, highs = zip(*(harms(each) or (0.0, 0.0, 0.0) for each in verdicts), strict=True)
    return Marks(
        name=outcome,
        kind="intervals",
        x=middles,
        y=tuple(endpoint_words(each, names) for each in verdicts),
        low=lows,
        high=highs,
        texts=tuple(f"{endpoint_words(each, names)}: {_said(each)}, {outcome}" for each in verdicts),
        role=outcome,
    )


def _said(verdict: Verdict) -> str:
    return f"{words.change(verdict)} ({words.interval(verdict)})"


def _edges(margin: float) -> tuple[float, float]:
    return -math.log1p(margin), math.log1p(margin)


def _margin_rules(margin: float) -> tuple[Rule, ...]:
    better, worse = _edges(margin)
    return Rule("x", better, "", to=worse), Rule("x", better, ""), Rule("x", worse, f"margin {margin * 100:.3g}%")


def _margins(verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Marks:
    """Where they differ, each row shows its own."""
    edges = [_edges(each.endpoint.margin) for each in verdicts]
    rows = tuple(endpoint_words(each, names) for each in verdicts)
    texts = tuple(f"{row}: margin {words.margin(each)}" for row, each in zip(rows, verdicts, strict=True))
    lows, highs = zip(*edges, strict=True)
    return Marks("margin", "intervals", (0.0,) * len(rows), rows, lows, highs, texts, role="muted")


def _finding(verdicts: Sequence[Verdict], names: Mapping[str, str]) -> str:
    counts = [(sum(each.outcome == outcome for each in verdicts), outcome) for outcome in OUTCOMES]
    parts = [f"{number} {outcome if number == 1 else PLURALS[outcome]}" for number, outcome in counts if number]
    worst = verdicts[0]
    return f"{', '.join(parts)}. Worst: {endpoint_words(worst, names)}, {_said(worst)}."


def change_table(caption: str, verdicts: Sequence[Verdict], names: Mapping[str, str]) -> Table:
    """The numbers of a chart of changes, in its order."""
    titles = ("Number", "Old", "New", "Change", "Interval", "Margin", "Outcome")
    columns = tuple(Column(title, numeric=title not in ("Number", "Outcome")) for title in titles)
    return Table(caption, columns, tuple(_row(each, names) for each in verdicts))


def _row(verdict: Verdict, names: Mapping[str, str]) -> tuple[Text, ...]:
    old, new = words.both_values(verdict)
    return (
        Text(endpoint_words(verdict, names)),
        Text(old, number=verdict.old),
        Text(new, number=verdict.new),
        Text(words.change(verdict), number=verdict.change),
        Text(words.interval(verdict)),
        Text(words.margin(verdict)),
        Text(f"{words.MARKS[verdict.outcome]} {verdict.outcome}"),
    )


def _notes(subject: Subject, names: Mapping[str, str]) -> Iterator[str]:
    comparison = subject.comparison
    for verdict in comparison.gated:
        if harms(verdict) is None:
            yield f"Not drawn: {endpoint_words(verdict, names)}, {verdict.outcome}, which has no interval."
    watched = _drawable(comparison.watched)
    if len(watched) > MOST_WATCHED:
        yield (
            f"Of {count(len(watched), 'watched number')}, the {MOST_WATCHED} that changed most are drawn; all are in "
            "the table of every number."
        )
