"""Whether the two runs were measured under the same conditions: everything that matters, with both values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from enginebench.decide.comparable import way_to_server
from enginebench.decide.model import Problem
from enginebench.report.cells import Json
from enginebench.report.comparison_subject import Subject
from enginebench.report.figures import Section
from enginebench.report.units import count
from enginebench.report.view import Column, Table, Text

COLUMNS = tuple(Column(title, numeric=False) for title in ("What", "Old", "New", "Same?"))
SAME, DIFFERS, ALLOWED, STOPS = "✓ same", "≠ differs", "≠ differs, allowed", "✕ differs: not comparable"
MOST_LETTERS = 120
_RANK = (STOPS, ALLOWED, DIFFERS, SAME)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that both runs have. ``problem``: the name under which a difference keeps them apart, if any does."""

    what: str
    old: str
    new: str
    problem: str = ""

    def answer(self, problems: Mapping[str, bool]) -> str:
        """``problems``: by name, whether it was allowed."""
        if self.old == self.new:
            return SAME
        if self.problem in problems:
            return ALLOWED if problems[self.problem] else STOPS
        return DIFFERS


def same_section(subject: Subject) -> Section:
    """What differs, the worst first, with both values."""
    answered = _answered(subject)
    rows = tuple(_row(*pair) for pair in answered if pair[0] != SAME)
    tables = (Table("What differs", COLUMNS, rows),) if rows else ()
    cells = tuple(each.sentence for each in subject.comparison.problems if each.what == "cell")
    return Section("same", "Same or not?", _lead([answer for answer, _ in answered]), tables=tables, notes=cells)


def same_table(subject: Subject) -> Table:
    """What is the same."""
    rows = tuple(_row(*pair) for pair in _answered(subject) if pair[0] == SAME)
    return Table("What is the same", COLUMNS, rows)


def _answered(subject: Subject) -> list[tuple[str, Condition]]:
    problems = subject.comparison.problems
    allowed: dict[str, bool] = {}
    for each in problems:
        allowed[each.what] = allowed.get(each.what, True) and each.allowed
    answered = [(each.answer(allowed), each) for each in conditions(*subject.runs, problems)]
    return sorted(answered, key=lambda pair: _RANK.index(pair[0]))


def _row(answer: str, condition: Condition) -> tuple[Text, ...]:
    return Text(condition.what), Text(condition.old), Text(condition.new), Text(answer)


def _lead(answers: list[str]) -> str:
    same, differ = answers.count(SAME), len(answers) - answers.count(SAME)
    if stops := answers.count(STOPS):
        return (
            f"{count(stops, 'thing')} must not differ, and {'does' if stops == 1 else 'do'}: nothing can be compared."
        )
    if not differ:
        return f"All {same} things that could explain a change beside the build are the same."
    allowed = f"; {count(answers.count(ALLOWED), 'difference')} allowed by the user" if ALLOWED in answers else ""
    return f"{same} of {len(answers)} are the same, and nothing keeps the runs from being compared{allowed}."


def conditions(old: Json, new: Json, problems: tuple[Problem, ...]) -> Iterator[Condition]:
    """Everything that could explain a change, the build included, with both values."""
    one, two = old["environment"], new["environment"]
    yield Condition("Build", _build(old), _build(new))
    yield Condition("Engine version", str(old["build"].get("version")), str(new["build"].get("version")))
    yield Condition("GPUs", _gpus(one, "name"), _gpus(two, "name"), "hardware")
    yield Condition("CPU", _cpu(one), _cpu(two), "" if one.get("gpus") or two.get("gpus") else "hardware")
    if one.get("gpus") or two.get("gpus"):
        yield Condition("GPU driver", _gpus(one, "driver"), _gpus(two, "driver"), "driver")
        yield Condition("Power limit, W", _gpus(one, "power_limit_w"), _gpus(two, "power_limit_w"), "power")
    for key, what in (("os", "Operating system"), ("kernel", "Kernel"), ("python", "Python")):
        yield Condition(what, str(one.get(key)), str(two.get(key)))
    yield from _packages(one.get("packages") or {}, two.get("packages") or {})
    yield Condition("Server", _server(old), _server(new), "path")
    yield Condition("Settings of the engine", _settings(old), _settings(new))
    yield Condition("Commit of the working directory", _commit(one), _commit(two))
    yield from _scenarios(old, new)
    yield from _cells(problems, old, new)


def _build(run: Json) -> str:
    return f"{run['build']['name']} ({str(run['build']['fingerprint']).removeprefix('sha256:')[:12]})"


def _gpus(environment: Json, key: str) -> str:
    return ", ".join(str(gpu.get(key)) for gpu in environment.get("gpus") or ()) or "none"


def _cpu(environment: Json) -> str:
    cpu = environment.get("cpu") or {}
    return f"{cpu.get('model')}, {cpu.get('usable_cores')} usable cores"


def _packages(old: Json, new: Json) -> Iterator[Condition]:
    names = sorted({**old, **new})
    differ = [name for name in names if old.get(name) != new.get(name)]
    for name in differ:
        yield Condition(f"Package {name}", str(old.get(name)), str(new.get(name)))
    same = len([name for name in names if name not in differ and old.get(name)])
    if same:
        words = count(same, "version")
        yield Condition("Other packages" if differ else "Packages", words, words)


def _server(run: Json) -> str:
    paths = {cell["path"] for cell in run["cells"].values()}
    if not paths - {"direct"}:
        return "none: the engine runs in process"
    return way_to_server(run)


def _settings(run: Json) -> str:
    settings = run["plan"].get("engine") or {}
    return ", ".join(f"{key}={value}" for key, value in sorted(settings.items())) or "defaults"


def _commit(environment: Json) -> str:
    git = environment.get("git") or {}
    return f"{str(git['commit'])[:10]}{' with changes' if git.get('dirty') else ''}" if git.get("commit") else "none"


def _scenarios(old: Json, new: Json) -> Iterator[Condition]:
    ours, theirs = old["plan"]["scenarios"], new["plan"]["scenarios"]
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in ours or name not in theirs:
            there = ["there" if name in each else "not there" for each in (ours, theirs)]
            yield Condition(f"Scenario {name}", there[0], there[1])
            continue
        keys = [key for key in {**ours[name], **theirs[name]} if ours[name].get(key) != theirs[name].get(key)]
        for key in keys:
            loaded = "" if key in ("description", "gate", "name") else "scenario"
            one, two = (_short(each[name].get(key)) for each in (ours, theirs))
            yield Condition(f"Scenario {name}: {key}", one, two, loaded)
        if not keys:
            yield Condition(f"Scenario {name}", "every key", "every key")


def _cells(problems: tuple[Problem, ...], old: Json, new: Json) -> Iterator[Condition]:
    """What each cell asked: the same in all of them, or each difference with its cell."""
    shared = [
        cell_id for cell_id, cell in old["cells"].items() if _measured(cell) and _measured(new["cells"].get(cell_id))
    ]
    found = [each for each in problems if each.what == "tokens" or (each.what == "path" and "Cell" in each.sentence)]
    for each in found:
        yield Condition(each.sentence.split(":")[0], str(each.old), str(each.new), each.what)
    if shared and not any(each.what == "tokens" for each in found):
        words = f"alike in {count(len(shared), 'cell')}"
        yield Condition("Prompt lengths and requests a round", words, words)


def _measured(cell: Any) -> bool:
    return bool(cell) and cell["status"] == "measured"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
