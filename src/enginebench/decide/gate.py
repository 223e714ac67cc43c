"""From verdicts to an exit code: what CI acts on."""

from collections.abc import Sequence

from enginebench.decide.changes import percent
from enginebench.decide.model import GateResult, Policy, Problem, Verdict, open_problems

PASS, REGRESSED, UNDECIDED, UNUSABLE = 0, 10, 11, 12
"""Exit codes; 1 and 2 stay what Python and shells make of them, so that a crash never reads as a regression."""


def gate(verdicts: Sequence[Verdict], problems: Sequence[Problem] = (), policy: Policy = "pr") -> GateResult:
    """Judge a comparison. Watched endpoints decide nothing.

    In this order: runs that cannot be compared are unusable; a regression of a gated endpoint; a cell that is missing,
    a gated endpoint that is invalid, or none at all: unusable; an inconclusive one lets a pull request pass with a
    warning, and stops a release.
    """
    gated = [verdict for verdict in verdicts if verdict.endpoint.kind == "gated"]
    in_the_way = open_problems(problems)
    runs = tuple(each.sentence for each in in_the_way if each.what != "cell")
    cells = tuple(each.sentence for each in in_the_way if each.what == "cell")
    if runs:
        return GateResult(UNUSABLE, policy, runs + cells)
    if regressed := _sentences(gated, "regression"):
        return GateResult(REGRESSED, policy, regressed, cells)
    broken = cells + _sentences(gated, "invalid")
    if broken or not gated:
        return GateResult(UNUSABLE, policy, broken or ("No endpoint is gated: name one in the scenario's gate.",))
    undecided = _sentences(gated, "inconclusive")
    if undecided and policy == "release":
        return GateResult(UNDECIDED, policy, undecided)
    return GateResult(PASS, policy, warnings=undecided)


def _sentences(verdicts: Sequence[Verdict], outcome: str) -> tuple[str, ...]:
    return tuple(sentence(verdict) for verdict in verdicts if verdict.outcome == outcome)


def sentence(verdict: Verdict) -> str:
    """A verdict in one line: which endpoint, which outcome, the change with its interval, and what there is to say."""
    parts = [f"{verdict.endpoint.key}: {verdict.outcome}"]
    if verdict.change is not None:
        parts.append(percent(verdict.change))
    if verdict.low is not None and verdict.high is not None:
        ends = f"{percent(verdict.low)} to {percent(verdict.high)}"
        parts.append(f"({ends}, margin {verdict.endpoint.margin * 100:.3g}%)")
    if verdict.pairs_needed is not None:
        parts.append(f"about {verdict.pairs_needed} more pairs needed")
    return ". ".join([" ".join(parts), *(reason.rstrip(".") for reason in verdict.reasons)]) + "."
