"""What is said of a comparison, in words that the terminal, Markdown and JUnit share. Strings out, nothing else."""

from collections.abc import Sequence

from enginebench.decide.gate import UNDECIDED
from enginebench.decide.looks import ALPHA
from enginebench.decide.model import Outcome, Verdict
from enginebench.measure.metrics import BY_NAME
from enginebench.report.comparison import Comparison, Design
from enginebench.report.units import DASH, count, percent, scale_for

HEADLINES = {0: "Pass", 10: "Regression", 11: "Inconclusive", 12: "Cannot be decided"}
"""By exit code."""

MARKS: dict[Outcome, str] = {
    "regression": "✗",
    "improvement": "✓",
    "equivalent": "✓",
    "inconclusive": "?",
    "invalid": "!",
}
Q = (
    "q: the p-value of “worse by more than the margin”, corrected for the other gated or the other watched numbers; a "
    f"regression needs {ALPHA:g} or less."
)
REFERENCE = "reference engine: these numbers say nothing about TensorRT-LLM"


def headline(comparison: Comparison) -> str:
    """The outcome in one line."""
    said = HEADLINES[comparison.gate.exit_code]
    if comparison.gate.passed and comparison.gate.warnings:
        said = "Pass with doubts"
    return f"{said}: {comparison.new.build} against {comparison.old.build}"


def level_of(comparison: Comparison) -> str:
    """``good``, ``warn`` or ``bad``: how a page marks the outcome."""
    if comparison.gate.passed:
        return "warn" if comparison.gate.warnings else "good"
    return "warn" if comparison.gate.exit_code == UNDECIDED else "bad"


def metric_title(verdict: Verdict) -> str:
    """``TPOT p50``, ``Output tokens/s``, ``GPU memory outside the KV pool``."""
    endpoint = verdict.endpoint
    if endpoint.metric not in BY_NAME:
        return "GPU memory outside the KV pool"
    title = BY_NAME[endpoint.metric].title
    return title if endpoint.statistic == "value" else f"{title} {endpoint.statistic}"


def both_values(verdict: Verdict) -> tuple[str, str]:
    """Old and new with one unit."""
    metric = BY_NAME.get(verdict.endpoint.metric)
    scale = scale_for(metric.unit if metric else "bytes", (verdict.old, verdict.new))
    texts = [DASH if value is None else scale.text(value) for value in (verdict.old, verdict.new)]
    return texts[0], texts[1]


def change(verdict: Verdict) -> str:
    """``+4.2%``."""
    return DASH if verdict.change is None else percent(verdict.change)


def interval(verdict: Verdict) -> str:
    """``+3.1% … +5.3%``."""
    if verdict.low is None or verdict.high is None:
        return DASH
    return f"{percent(verdict.low)} … {percent(verdict.high)}"


def margin(verdict: Verdict) -> str:
    """``±5%``."""
    return f"±{verdict.endpoint.margin * 100:.3g}%"


def q_value(verdict: Verdict) -> str:
    """``0.086``, ``<0.001``."""
    if verdict.q_value is None:
        return DASH
    return "<0.001" if verdict.q_value < 0.001 else f"{verdict.q_value:.3f}"


def numbers(verdict: Verdict) -> tuple[str, ...]:
    """Old, new, change, interval, margin and q, side by side in a table."""
    return (*both_values(verdict), change(verdict), interval(verdict), margin(verdict), q_value(verdict))


def more_pairs(verdict: Verdict) -> str:
    """How many more pairs are probably needed; empty where none are."""
    return "" if verdict.pairs_needed is None else f"about {count(verdict.pairs_needed, 'more pair')} needed"


def design_sentence(design: Design) -> str:
    """How the numbers came about."""
    if not design.paired:
        known = f"A/A noise of {count(design.noise_sessions, 'session')}" if design.noise_sessions else "no A/A noise"
        return f"Two runs made at different times, compared unpaired ({known})."
    return (
        f"{count(design.pairs, 'pair')} of blocks in ABBA order{_discards(design)}; {design.stopped or 'all measured'}."
    )


def _discards(design: Design) -> str:
    pairs = {each.pair for each in design.discarded}
    return f", {count(len(pairs), 'pair')} discarded in part or whole" if pairs else ""


def watch_summary(watched: Sequence[Verdict]) -> str:
    """What the numbers that decide nothing look like, in one line."""
    worse = [each for each in watched if each.outcome == "regression"]
    better = [each for each in watched if each.outcome == "improvement"]
    parts = [f"{count(len(watched), 'number')} watched", f"{len(worse)} worse", f"{len(better)} better"]
    return ", ".join(parts)
