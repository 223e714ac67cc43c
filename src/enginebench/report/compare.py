"""Which cells stand beside each other, and the sentence that says how they differ.

Descriptive only: whether a difference matters is decided elsewhere, from blocks and margins.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.report import trust
from enginebench.report.cells import CellView, path_rank
from enginebench.report.units import Scale, count, percent, scale_for, times


@dataclass(frozen=True, slots=True)
class Shown:
    """A metric that the page shows, with its title there."""

    metric: str
    title: str
    unit: str  # as stored
    better: str
    key: str = ""  # of the summary; by default the p50 or the value

    def of(self, cell: CellView) -> float | None:
        """Its number in a cell."""
        return cell.statistic(self.metric, self.key) if self.key else cell.value(self.metric)


TTFT = Shown("ttft", "TTFT p50", "s", "lower")
TPOT = Shown("tpot", "TPOT p50", "s", "lower")
E2E = Shown("e2e_latency", "E2E p50", "s", "lower")
OUTPUT_RATE = Shown("output_tokens_per_s", "Output tokens/s", "tokens/s", "higher")
REQUEST_RATE = Shown("requests_per_s", "Requests/s", "requests/s", "higher")
STEADY_RATE = Shown("steady_output_tokens_per_s", "Steady tokens/s", "tokens/s", "higher")
ATTAINMENT = Shown("slo_attainment", "Within SLOs", "fraction", "higher")
SLIP = Shown("slip", "Slip max", "s", "lower", "max")
Scales = Mapping[str, Scale]
CONTAINS = {"core": ("direct",), "ensemble": ("direct", "core"), "bls": ("direct", "core")}
"""The paths whose work is all done within that of another one."""
_OUTPACED = (
    "{outer} was faster than {inner}, which it contains, by more than the spread of their rounds (E2E p50): the "
    "machine, or how the engine ran, changed between them. Their difference is not the price of the layers."
)
HEADLINES = (TTFT, TPOT, E2E, OUTPUT_RATE, REQUEST_RATE)


def metric_scale(shown: Shown, cells: Iterable[CellView]) -> Scale:
    """The scale on which ``cells`` are read together."""
    return scale_for(shown.unit, (shown.of(cell) for cell in cells))


def reference_load(cells: Sequence[CellView]) -> tuple[CellView, ...]:
    """A cell a path: the load that most paths share, then the longest streaming output, then the heaviest load."""
    loads: dict[tuple[str, bool, str, str], list[CellView]] = {}
    for cell in cells:
        if cell.measured:
            loads.setdefault((cell.scenario, cell.streaming, cell.output_words, cell.load.label), []).append(cell)
    if not loads:
        return ()
    best = max(loads, key=lambda load: _weight(loads[load]))
    return tuple(sorted(loads[best], key=lambda cell: path_rank(cell.path)))


def _weight(alike: Sequence[CellView]) -> tuple[bool, int, int, int, float]:
    """How well cells of one load stand for a run; batches before closed before open loops."""
    first = alike[0]
    return first.streaming, len(alike), first.output_tokens, -first.load.rank[0], first.load.level


def overlap(base: CellView, other: CellView, metric: str) -> bool:
    """Whether the ranges of their rounds overlap, so that rounds alone do not tell them apart."""
    one, two = base.per_round(metric), other.per_round(metric)
    return bool(one and two) and max(min(one), min(two)) <= min(max(one), max(two))


def change(base: CellView, other: CellView, shown: Shown, scale: Scale) -> str | None:
    """How ``other`` differs from ``base``, e.g. ``+3.1 ms (+4.2%)``; None without both."""
    before, after = base.value(shown.metric), other.value(shown.metric)
    if before is None or after is None or before == 0:
        return None
    if overlap(base, other, shown.metric):
        return f"{percent(after / before - 1)} (rounds overlap)"
    return f"{scale.signed(after - before)} ({percent(after / before - 1)})"


def outpaced(cells: Iterable[CellView]) -> Iterator[tuple[str, CellView]]:
    """Cells that were faster than the same load on a path that theirs contains, beyond the rounds' spread."""
    known = {_point(cell, cell.path): cell for cell in cells if len(cell.per_round(E2E.metric)) > 1}
    for cell in known.values():
        for path in CONTAINS.get(cell.path, ()):
            inner = known.get(_point(cell, path))
            if inner and max(cell.per_round(E2E.metric)) < min(inner.per_round(E2E.metric)):
                yield _OUTPACED.format(outer=cell.path, inner=path), cell


def _point(cell: CellView, path: str) -> tuple[str, bool, str, str, str]:
    return cell.scenario, cell.streaming, cell.output_words, cell.load.label, path


def finding(cells: Sequence[CellView]) -> str:
    """The sentence of a chart: the paths against the first one at the heaviest load that they share, and doubts."""
    at_load = reference_load(cells)
    if not at_load:
        return "Nothing was measured."
    scales = {shown.metric: metric_scale(shown, cells) for shown in (TTFT, TPOT, OUTPUT_RATE)}
    if len(at_load) > 1:
        return _paths_sentence(at_load, scales) + doubts(at_load)
    alone = at_load[0]
    family = [cell for cell in cells if cell.measured and cell.path == alone.path and cell.streaming == alone.streaming]
    smallest = min(family, key=lambda cell: cell.load.level)
    if smallest.load.level < alone.load.level:
        return _growth_sentence(smallest, alone, scales) + doubts((smallest, alone))
    return _single_sentence(alone, scales) + doubts((alone,))


def doubts(cells: Iterable[CellView]) -> str:
    """Which of ``cells`` are INVALID and which DEGRADED, to follow the sentence about them; nothing without any."""
    found: dict[str, list[str]] = {level: [] for level in trust.DOUBTFUL}
    for cell in cells:
        if (level := trust.level_of(cell.record)) in found:
            found[level].append(f"{cell.path} at {cell.load.words}")
    return "".join(f" {level.upper()}: {', '.join(names)}." for level, names in found.items() if names)


def rounds_sentence(cells: Iterable[CellView]) -> str:
    """How far apart the rounds of a cell lie, and which cell is the worst."""
    spreads = {cell.id: spread(cell.makespans_s) for cell in cells if len(cell.makespans_s) > 1}
    if not spreads:
        return "No cell has two measured rounds: nothing can be said about noise."
    worst = max(spreads, key=lambda cell_id: spreads[cell_id])
    widest = percent(spreads[worst])[1:]
    calm = sum(value <= 0.05 for value in spreads.values())
    if calm == len(spreads):
        return f"No cell's slowest round is more than {widest} slower than its fastest."
    cells_text = count(len(spreads), "cell")
    return f"{calm} of {cells_text} stay within 5% from fastest to slowest round; {worst} spans {widest}."


def spread(values: Sequence[float]) -> float:
    """The slowest over the fastest, less one."""
    return max(values) / min(values) - 1


def _paths_sentence(at_load: Sequence[CellView], scales: Scales) -> str:
    base, *others = at_load
    several = len(others) > 1
    parts = []
    for shown in (TTFT, TPOT, OUTPUT_RATE):
        changes = ((other.path, change(base, other, shown, scales[shown.metric])) for other in others)
        texts = [f"{path} {_relative(text)}" if several else text for path, text in changes if text]
        if texts:
            parts.append(f"{_in_sentence(shown.title)} {', '.join(texts)}")
    who = "against" if several else f"{others[0].path} against"
    return f"At {base.load.words}, {who} {base.path}: {('; ' if several else ', ').join(parts)}."


def _relative(text: str) -> str:
    """The percentage of a change without its amount, to keep a sentence about many paths short."""
    return text if text.endswith("overlap)") else text[text.index("(") + 1 : -1]


def _growth_sentence(small: CellView, large: CellView, scales: Scales) -> str:
    parts = []
    for shown, verb in ((OUTPUT_RATE, "go"), (TPOT, "goes"), (TTFT, "goes")):
        before, after = small.value(shown.metric), large.value(shown.metric)
        if before and after is not None:
            scale = scales[shown.metric]
            growth = f" ({times(after / before)})" if shown is OUTPUT_RATE else ""
            parts.append(
                f"{_in_sentence(shown.title)} {verb} from {scale.number(before)} to {scale.text(after)}{growth}"
            )
    return f"{large.path} alone, from {small.load.words} to {large.load.number}: {', '.join(parts)}."


def _single_sentence(cell: CellView, scales: Scales) -> str:
    values = [(shown, cell.value(shown.metric)) for shown in (TTFT, TPOT, OUTPUT_RATE)]
    parts = [
        f"{_in_sentence(one.title)} {scales[one.metric].text(value)}" for one, value in values if value is not None
    ]
    return f"{cell.path} alone, at {cell.load.words}: {', '.join(parts)}."


def _in_sentence(title: str) -> str:
    """``Output tokens/s`` loses its capital, ``TTFT p50`` keeps its capitals."""
    return title if title[1].isupper() or title[1].isdigit() else title[0].lower() + title[1:]
