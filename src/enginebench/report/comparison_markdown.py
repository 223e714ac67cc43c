"""A comparison as Markdown: a comment on a pull request, or the summary of a step in GitHub Actions."""

from collections.abc import Sequence

from enginebench.decide.model import Verdict
from enginebench.report import comparison_words as words
from enginebench.report.comparison import Comparison

_ICONS = {0: "✅", 10: "❌", 11: "❔", 12: "⛔"}
_COLUMNS = ("", "cell", "metric", "old", "new", "change", "interval", "margin", "q")
_RULE = ("---", "---", "---", "--:", "--:", "--:", "--:", "--:", "--:")
_MOST_CAUSES = 8


def comparison_markdown(comparison: Comparison) -> str:
    """The whole comment; numbers that decide nothing are folded away."""
    gate = comparison.gate
    parts = [f"### {_ICONS[gate.exit_code]} {_plain(words.headline(comparison))}"]
    if comparison.reference:
        parts.append(f"_{_plain(words.REFERENCE)}_")
    if comparison.gated:
        parts.append(_table(comparison.gated))
    parts += _list("", [f"**{_plain(reason)}**" for reason in gate.reasons])
    parts += _list("", [_plain(warning) for warning in gate.warnings])
    parts += _list("Allowed:", [_plain(each.sentence) for each in comparison.problems if each.allowed])
    parts += _list(
        "What differs, the likeliest first:", [_plain(each.sentence) for each in comparison.causes[:_MOST_CAUSES]]
    )
    if comparison.watched:
        watched = f"{_table(comparison.watched)}\n\n{words.Q}"
        parts.append(_folded(words.watch_summary(comparison.watched), watched))
    if discarded := comparison.design.discarded:
        rows = [f"- pair {each.pair + 1}, {each.cell_id}, {each.side}: {_plain(each.reason)}" for each in discarded]
        parts.append(_folded("discarded pairs", "\n".join(rows)))
    parts += [_plain(note) for note in comparison.notes]
    parts.append(f"<sub>{_plain(words.design_sentence(comparison.design))} {_sides(comparison)}</sub>")
    return "\n\n".join(parts) + "\n"


def _table(verdicts: Sequence[Verdict]) -> str:
    return "\n".join(_line(cells) for cells in (_COLUMNS, _RULE, *(_row(verdict) for verdict in verdicts)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(verdict: Verdict) -> tuple[str, ...]:
    return (
        f"{words.MARKS[verdict.outcome]} {verdict.outcome}",
        f"`{verdict.endpoint.cell_id}`",
        words.metric_title(verdict),
        *words.numbers(verdict),
    )


def _list(title: str, lines: Sequence[str]) -> list[str]:
    body = "\n".join(f"- {line}" for line in lines)
    return [f"{title}\n\n{body}" if title else body] if lines else []


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _sides(comparison: Comparison) -> str:
    return f"old: {comparison.old.run_id} on {_plain(comparison.old.host)}; new: {comparison.new.run_id}."


def _plain(text: str) -> str:
    """Text from elsewhere, which must not become markup."""
    for sign in ("\\", "|", "<", "*", "_", "`"):
        text = text.replace(sign, "&lt;" if sign == "<" else f"\\{sign}")
    return " ".join(text.split())
