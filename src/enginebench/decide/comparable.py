"""Whether two stored runs may be compared at all: what has to be equal, and what was found on both sides."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from enginebench.decide.model import Problem

Json = Mapping[str, Any]

ALLOWABLE = ("hardware", "driver", "power", "scenario", "path", "tokens", "cell")
"""What a user may allow to differ, by name; it stays recorded."""

NOT_THE_LOAD = ("description", "gate", "name")
"""Keys of a scenario that say nothing of what is measured."""


def comparable(old: Json, new: Json, allow: Collection[str] = ()) -> tuple[Problem, ...]:
    """Everything that keeps ``new`` from being compared with ``old``, both run.json; empty when nothing does.

    ``allow``: names of ``ALLOWABLE``; their problems are marked as allowed.
    """
    found = [*_machine(old, new), *_scenarios(old, new), *_cells(old, new)]
    return tuple(replace(each, allowed=each.what in allow) for each in found)


def asked(scenario: Json) -> dict[str, Any]:
    """What a scenario, as run.json has it, asks of an engine: all but words, gates and how often it is repeated."""
    return {key: value for key, value in scenario.items() if key not in (*NOT_THE_LOAD, "rounds")}


def _machine(old: Json, new: Json) -> Iterator[Problem]:
    one, two = old["environment"], new["environment"]
    yield from _unlike("hardware", "GPUs", *(", ".join(_gpus(each, "name")) or "none" for each in (one, two)))
    if not one.get("gpus") and not two.get("gpus"):
        yield from _unlike("hardware", "CPUs", _cpu(one), _cpu(two))
    for what, name, key in (("driver", "drivers", "driver"), ("power", "power limits in watts", "power_limit_w")):
        yield from _unlike(what, name, *(", ".join(dict.fromkeys(_gpus(each, key))) or "none" for each in (one, two)))
    yield from _unlike("path", "ways to the server", way_to_server(old), way_to_server(new))


def _unlike(what: str, name: str, old: str, new: str) -> Iterator[Problem]:
    if old != new:
        yield Problem(what, f"The runs have other {name}: {old} and {new}.", old, new)


def _gpus(environment: Json, key: str) -> list[str]:
    return [str(gpu.get(key)) for gpu in environment.get("gpus") or ()]


def _cpu(environment: Json) -> str:
    cpu = environment.get("cpu") or {}
    return f"{cpu.get('model')}, {cpu.get('usable_cores')} usable cores"


def attached_urls(run: Json) -> list[str]:
    """The servers that a run was attached to; of a run from before there could be several, its one."""
    named = [url for urls in run["plan"].get("servers", {}).values() for url in urls]
    return named or [url for url in [run["attached_url"]] if url]


def way_to_server(run: Json) -> str:
    """Who started the server, and how many stood for one endpoint."""
    if not attached_urls(run):
        return "started by enginebench"
    replicas = max(map(len, run["plan"].get("servers", {}).values()), default=1)
    return "a running server" if replicas == 1 else f"{replicas} running servers, measured as one"


def _scenarios(old: Json, new: Json) -> Iterator[Problem]:
    ours, theirs = old["plan"]["scenarios"], new["plan"]["scenarios"]
    for name in ours.keys() & theirs.keys():
        keys = (ours[name].keys() | theirs[name].keys()).difference(NOT_THE_LOAD)
        for key in sorted(keys):
            one, two = (_text(facts.get(key)) for facts in (ours[name], theirs[name]))
            if one != two:
                yield Problem("scenario", f"Scenario {name} has another {key}: {one} and {two}.", one, two)


def _text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _cells(old: Json, new: Json) -> Iterator[Problem]:
    """A cell of the old run that the new one does not have is a failure, whatever the reason: it may be slower."""
    for cell_id, cell in old["cells"].items():
        if cell["status"] == "measured":
            yield from (
                _missing(cell_id, new) if not _measured(new, cell_id) else _alike(cell_id, cell, new["cells"][cell_id])
            )
    renamed = [cell_id for cell_id in new["cells"] if cell_id not in old["cells"]]
    if renamed and any(cell_id not in new["cells"] for cell_id in old["cells"]):
        listed = ", ".join(renamed[:3]) + (" …" if len(renamed) > 3 else "")
        yield Problem("cell", f"Only the new run has {listed}: renamed cells cannot be compared.", None, listed)


def _measured(run: Json, cell_id: str) -> bool:
    return bool(run["cells"].get(cell_id, {}).get("status") == "measured")


def _missing(cell_id: str, new: Json) -> Iterator[Problem]:
    cell = new["cells"].get(cell_id)
    left_out = new["plan"].get("left_out", {}).get(cell_id)
    if cell is not None:
        found = f"{cell['status']}: {cell['reason']}"
    elif left_out:
        found = f"left out: {left_out}"
    else:
        found = "not reached" if cell_id in new["plan"]["cells"] else "not there"
    yield Problem(
        "cell", f"Cell {cell_id} was measured in the old run, and in the new one it is {found}.", "measured", found
    )


def _alike(cell_id: str, old: Json, new: Json) -> Iterator[Problem]:
    for key, name in (("prompt_tokens", "prompt lengths in tokens"), ("requests_per_round", "requests a round")):
        one, two = (_span(cell.get(key)) for cell in (old, new))
        if one != two:
            yield Problem("tokens", f"Cell {cell_id} has other {name}: {one} and {two}.", one, two)
    if old.get("stamp_kind") != new.get("stamp_kind"):
        one, two = str(old.get("stamp_kind")), str(new.get("stamp_kind"))
        yield Problem("path", f"Cell {cell_id} was stamped elsewhere: {one} and {two}.", one, two)


def _span(value: Any) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)
