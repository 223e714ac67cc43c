"""Pair by pair: what each two blocks, measured one after the other, say of the numbers that decide."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.decide.model import Endpoint, Verdict
from enginebench.report import comparison_words as words
from enginebench.report.comparison_subject import Subject, endpoint_words, harm, harm_ticks, harms
from enginebench.report.figures import Axis, Figure, Marks, Plot, Rule, Section
from enginebench.report.units import DASH, count, percent, span
from enginebench.report.view import Column, Table, Text

LEAD = (
    "One dot a pair of blocks: the change from the old build to the new one, with the same seed. "
    "Higher is worse. The shade between the dots is the interval of their mean, which decides; the grey one the margin."
)
MOST_TICKS = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """What one pair says of a number. ``discarded``: why it does not count; empty: it does."""

    number: int  # from 1
    change: float | None  # new/old − 1
    harm: float | None
    discarded: str


def pairs_section(subject: Subject) -> Section | None:
    """A plot for each gated number with paired samples; None for runs of different times."""
    comparison = subject.comparison
    found = [(each, _pairs(subject, each.endpoint)) for each in comparison.gated]
    drawn = [(verdict, pairs) for verdict, pairs in found if any(pair.harm is not None for pair in pairs)]
    if not comparison.design.paired or not drawn:
        return None
    names = subject.names()
    figure = Figure(
        id="pairs-1",
        title="Change of each pair",
        finding=_finding(drawn, names),
        plots=tuple(_plot(verdict, pairs, names) for verdict, pairs in drawn),
        table=_table(drawn, names),
    )
    return Section("pairs", "Pair by pair", LEAD, (figure,), notes=tuple(_notes(subject, names)))


def _pairs(subject: Subject, endpoint: Endpoint) -> list[Pair]:
    samples = (subject.samples or {}).get(endpoint.key)
    if samples is None:
        return []
    spoilt = {
        each.pair: f"{each.side}: {each.reason}"
        for each in subject.comparison.design.discarded
        if each.cell_id == endpoint.cell_id
    }
    old, new = (
        {each.pair: each.value for each in side if each.pair is not None} for side in (samples.old, samples.new)
    )
    return [_pair(pair, old[pair], new[pair], endpoint, spoilt) for pair in sorted(old.keys() & new.keys())]


def _pair(pair: int, old: float | None, new: float | None, endpoint: Endpoint, spoilt: Mapping[int, str]) -> Pair:
    known = bool(old and new and math.isfinite(old) and math.isfinite(new))
    change = new / old - 1 if known else None  # type: ignore[operator]
    return Pair(pair + 1, change, harm(endpoint, change), spoilt.get(pair, ""))


def _plot(verdict: Verdict, pairs: Sequence[Pair], names: Mapping[str, str]) -> Plot:
    known = [pair for pair in pairs if pair.harm is not None]
    edge = math.log1p(verdict.endpoint.margin)
    interval = harms(verdict)
    values = [pair.harm or 0.0 for pair in known]
    rules = (Rule("y", -edge, "", to=edge), Rule("y", 0.0, ""), Rule("y", edge, f"margin {words.margin(verdict)[1:]}"))
    every = -(-len(pairs) // MOST_TICKS)
    x = Axis("pair", ticks=tuple((float(pair.number), str(pair.number)) for pair in pairs[::every]), from_zero=False)
    y = Axis("worse by", from_zero=False, ticks=harm_ticks([*values, *(interval or ()), edge, -edge]))
    counting = [pair for pair in known if not pair.discarded]
    others = [pair for pair in known if pair.discarded]
    marks = [_band(interval, pairs)] if interval else []
    marks += [_dots("a pair", "new", counting)] if counting else []
    marks += [_dots("discarded", "muted", others)] if others else []
    return Plot(endpoint_words(verdict, names), x, y, tuple(marks), rules)


def _band(interval: tuple[float, float, float], pairs: Sequence[Pair]) -> Marks:
    low, middle, high = interval
    ends = (0.5, pairs[-1].number + 0.5)
    return Marks("interval of their mean", "band", ends, (middle,) * 2, (low,) * 2, (high,) * 2, role="new")


def _dots(name: str, role: str, pairs: Sequence[Pair]) -> Marks:
    return Marks(
        name=name,
        kind="dots",
        x=tuple(float(pair.number) for pair in pairs),
        y=tuple(pair.harm for pair in pairs),
        texts=tuple(_words(pair) for pair in pairs),
        role=role,
    )


def _words(pair: Pair) -> str:
    reason = f", discarded: {pair.discarded}" if pair.discarded else ""
    return f"pair {pair.number}: {percent(pair.change or 0.0)}{reason}"


def _finding(drawn: Sequence[tuple[Verdict, list[Pair]]], names: Mapping[str, str]) -> str:
    parts = []
    for verdict, pairs in drawn:
        counting = [pair.harm for pair in pairs if pair.harm is not None and not pair.discarded]
        worse = sum(value > 0 for value in counting)
        parts.append(f"{endpoint_words(verdict, names)}: worse in {worse} of {count(len(counting), 'pair')}")
    return f"{'; '.join(parts)}."


def _table(drawn: Sequence[tuple[Verdict, list[Pair]]], names: Mapping[str, str]) -> Table:
    columns = (Column("Number", numeric=False), Column("Pair"), Column("Change"), Column("Counts", numeric=False))
    rows = []
    for verdict, pairs in drawn:
        for pair in pairs:
            change = (
                Text(DASH, "a block has no finite number")
                if pair.change is None
                else Text(percent(pair.change), number=pair.change)
            )
            counts = Text(f"no: {pair.discarded}" if pair.discarded else "yes")
            rows.append((Text(endpoint_words(verdict, names)), Text(str(pair.number)), change, counts))
    return Table("Change of each pair", columns, tuple(rows))


def _notes(subject: Subject, names: Mapping[str, str]) -> Iterator[str]:
    design = subject.comparison.design
    for each in design.discarded:
        name = names.get(each.cell_id, each.cell_id)
        yield f"Pair {each.pair + 1} does not count in {name} ({each.side} build): {each.reason}."
    order = "".join({"old": "A", "new": "B"}.get(turn.side, "?") for turn in design.turns)
    if order:
        took_s = sum(turn.duration_s for turn in design.turns)
        looks = ", ".join(map(str, design.looks))
        yield f"Order of the blocks, A old and B new: {order}; {span(took_s)} in all; looks after {looks} pairs."
    known = [turn.temperature_c for turn in design.turns if turn.temperature_c is not None]
    if known:
        yield f"The GPU was at {min(known):.0f} to {max(known):.0f} °C when blocks began."
