"""What differs between two runs and may be why an endpoint got worse, the likeliest first.

Differences, not proofs. Two kinds: what was configured (builds, versions, settings), ranked by how often such a thing
matters; and what was measured beside the endpoint (clocks, batches, KV pressure, shares of time), ranked by how much
of the endpoint's change its own change could make up. Keys that a run does not have are passed over.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.builds.diff import Difference
from enginebench.decide.changes import percent
from enginebench.decide.model import Cause, Endpoint, Verdict

Json = Mapping[str, Any]

NOTICED = 0.02
"""Measured numbers that differ by less than this share explain nothing."""


@dataclass(frozen=True, slots=True)
class Clue:
    """A number of a cell that may explain another. ``path``: where run.json has it. ``most``: its greatest weight."""

    what: str
    path: tuple[str, ...]
    unit: str = ""
    scale: float = 1.0  # from the stored unit to the shown one
    most: float = 0.95


CLUES = (
    Clue("SM clock, median", ("gpu", "sm_clock_mhz", "p50"), "MHz"),
    Clue("SM clock, lowest", ("gpu", "sm_clock_mhz", "min"), "MHz"),
    Clue("GPU temperature, highest", ("gpu", "temperature_c", "max"), "°C"),
    Clue("average power", ("gpu", "average_power_w"), "W"),
    Clue("peak GPU memory", ("memory", "gpu_peak_bytes"), "GiB", 2**-30),
)
_WAITS = (
    Clue("client slip, median", ("metrics", "slip", "summary", "p50"), "ms", 1e3),
    Clue("process lateness, median", ("metrics", "lateness", "summary", "p50"), "ms", 1e3),
    Clue("waiting for a slot, p50", ("engine", "queue", "p50"), "ms", 1e3),
)
"""These count once in each request: beside how long it took, most changes of them are nothing."""
_PARTS = {
    "ttft": Clue("prefill: TTFT p50", (), "ms", 1e3, most=0.5),
    "tpot": Clue("decode: TPOT p50", (), "ms", 1e3, most=0.5),
}
"""These say where the time went rather than why. Their numbers are those of their own verdicts."""
_OF_THE_ENGINE = {"batch": "batch size", "active": "requests in a step", "kv": "KV cache", "paused": "paused requests",
                  "queue": "waiting for a slot"}  # fmt: skip
"""Words in the names of an engine's or a server's numbers that tell how full it was."""

_WEIGHT_OF_SECTION = {"plugins": 0.7, "limits": 0.6, "parallelism": 0.8, "model": 0.8, "llm_args": 0.6, "size": 0.3}
_WEIGHT_OF_KEY = {"quantisation": 0.9, "dtype": 0.9, "kv_dtype": 0.85, "in_flight_batching": 0.9, "version": 0.8,
                  "kind": 1.0, "min_step_ms": 0.95}  # fmt: skip
_ENGINE_PACKAGES = ("tensorrt_llm", "nvidia-pytriton", "torch")
_STAMPED = ("queue", "prefill", "decode")
"""Times of requests by the engine's own stamps: seconds, where its other numbers say how full it was."""
_WORTH_NAMING = 0.01
"""Of the E2E latency: a wait that changed by less explains nothing."""
_BOOKKEEPING = ("layout", "engine_bytes", "rank_bytes")
_OF_ONE_SESSION = ("url", "port", "pid")


def causes(
    old: Json,
    new: Json,
    endpoint: Endpoint | None = None,
    change: float | None = None,
    verdicts: Sequence[Verdict] = (),
) -> tuple[Cause, ...]:
    """Rank what differs between two run.json.

    ``endpoint``: whose cell's numbers are looked at, too. ``change``: of it, new/old − 1, against which measured
    differences are weighed; without it, by their own size. ``verdicts``: of all endpoints.
    """
    found = [*_build(old, new), *_software(old, new), *_machine(old, new), *_settings(old, new)]
    if endpoint is not None:
        found += _sessions(old, new, endpoint)
        cells = [run["cells"].get(endpoint.cell_id, {}) for run in (old, new)]
        size = abs(math.log1p(change)) if change else None
        found += [*_measured(cells[0], cells[1], size), *_parts(endpoint, verdicts, size)]
    return tuple(sorted(found, key=lambda cause: -cause.weight))


def _configured(what: str, old: object, new: object, weight: float) -> Iterator[Cause]:
    if old != new:
        one, two = (None if each is None else str(each) for each in (old, new))
        yield Cause(what, one, two, weight, f"{what}: {one or 'none'} → {two or 'none'}.")


def _build(old: Json, new: Json) -> Iterator[Cause]:
    rows = build_differences(old, new)
    for row in rows:
        weight = _WEIGHT_OF_KEY.get(row.key, _WEIGHT_OF_SECTION.get(row.section, 0.5))
        yield Cause(f"build: {row.key}", row.old_text, row.new_text, weight, f"Builds differ: {row.words}.")
    prints = [run["build"].get("fingerprint") for run in (old, new)]
    if prints[0] != prints[1] and not rows:
        yield Cause("build: files", prints[0], prints[1], 0.5, "Builds differ, but in nothing that is known of them.")


def build_differences(old: Json, new: Json, *, every: bool = False) -> tuple[Difference, ...]:
    """What two run.json know of their builds and do not share; ``every``: sizes and layouts, too."""
    ours, theirs = (run["build"].get("facts") or {} for run in (old, new))
    return tuple(
        Difference(section, key, one.get(key), two.get(key))
        for section in _all_keys(ours, theirs)
        for one, two in [(ours.get(section, {}), theirs.get(section, {}))]
        for key in _all_keys(one, two)
        if (every or key not in _BOOKKEEPING) and one.get(key) != two.get(key)
    )


def _all_keys(old: Json, new: Json) -> list[str]:
    return [*old, *(key for key in new if key not in old)]


def _software(old: Json, new: Json) -> Iterator[Cause]:
    ours, theirs = (run["environment"].get("packages") or {} for run in (old, new))
    for name in _all_keys(ours, theirs):
        yield from _configured(name, ours.get(name), theirs.get(name), 0.7 if name in _ENGINE_PACKAGES else 0.2)
    for name, weight in (("python", 0.2), ("kernel", 0.3), ("os", 0.2)):
        yield from _configured(name, old["environment"].get(name), new["environment"].get(name), weight)


def _machine(old: Json, new: Json) -> Iterator[Cause]:
    ours, theirs = (run["environment"].get("gpus") or [] for run in (old, new))
    for key, what, weight in (
        ("name", "GPU", 1.0),
        ("driver", "driver", 0.6),
        ("power_limit_w", "power limit, W", 0.8),
    ):
        one, two = (", ".join(str(gpu.get(key)) for gpu in gpus) or None for gpus in (ours, theirs))
        yield from _configured(what, one, two, weight)


def _settings(old: Json, new: Json) -> Iterator[Cause]:
    ours, theirs = (run["plan"].get("engine") or {} for run in (old, new))
    for key in sorted(ours.keys() | theirs.keys()):
        yield from _configured(f"setting {key}", ours.get(key), theirs.get(key), 0.8)


def _sessions(old: Json, new: Json, endpoint: Endpoint) -> Iterator[Cause]:
    """What the runtimes say of themselves, beyond what is known of the build."""
    ours, theirs = (_facts(run, endpoint) for run in (old, new))
    known = {row.key for row in build_differences(old, new)}
    for key in sorted((ours.keys() & theirs.keys()) - known):
        row = Difference("session", key, ours[key], theirs[key])
        yield from _configured(f"session: {key}", row.old_text, row.new_text, _WEIGHT_OF_KEY.get(key, 0.5))


def _facts(run: Json, endpoint: Endpoint) -> Json:
    path = run["cells"].get(endpoint.cell_id, {}).get("path")
    facts = next((each.get("facts") for each in run.get("sessions", ()) if each["path"] == path), None) or {}
    single = {key: value for key, value in facts.items() if not isinstance(value, (list, dict))}
    return {key: value for key, value in single.items() if key not in _OF_ONE_SESSION}


def _parts(endpoint: Endpoint, verdicts: Sequence[Verdict], size: float | None) -> Iterator[Cause]:
    """The other parts of the answers of the cell of ``endpoint``."""
    for each in verdicts:
        part = each.endpoint
        beside = part.cell_id == endpoint.cell_id and part.metric != endpoint.metric
        if beside and part.metric in _PARTS and part.statistic == "p50":
            yield from _numbers(_PARTS[part.metric], each.old, each.new, size)


def _measured(old: Json, new: Json, size: float | None) -> Iterator[Cause]:
    for clue in CLUES:
        yield from _numbers(clue, _at(old, clue.path), _at(new, clue.path), size)
    yield from _throttling(old, new)
    yield from _fullness(old, new, size)
    yield from _waiting(old, new, size)
    one, two = (_at(cell, ("validity", "client_error")) for cell in (old, new))
    if one is not None and two is not None and max(one, two) > NOTICED:
        sentence = f"The client's own error is {one:.1%} in the old run and {two:.1%} in the new one."
        yield Cause("client error", f"{one:.1%}", f"{two:.1%}", _weight(abs(two - one), size), sentence)


def _throttling(old: Json, new: Json) -> Iterator[Cause]:
    ours, theirs = ((cell.get("gpu") or {}).get("throttle") or {} for cell in (old, new))
    for reason in sorted(ours.keys() | theirs.keys()):
        one, two = ours.get(reason) or 0.0, theirs.get(reason) or 0.0
        if abs(two - one) > NOTICED:
            sentence = f"The GPU was held back by {reason} for {one:.0%} of the time, and now for {two:.0%}."
            yield Cause(f"throttling: {reason}", f"{one:.0%}", f"{two:.0%}", min(1.0, 0.5 + abs(two - one)), sentence)


def _fullness(old: Json, new: Json, size: float | None) -> Iterator[Cause]:
    """Batches reached, KV pressure and queues, as far as engine and server tell of them."""
    for part in ("engine", "server"):
        ours, theirs = (dict(_leaves(cell.get(part) or {})) for cell in (old, new))
        for path in sorted(ours.keys() & theirs.keys()):
            word = next(
                (text for key, text in _OF_THE_ENGINE.items() if any(key in step.lower() for step in path)), None
            )
            if word and (part != "engine" or path[0] not in _STAMPED):
                yield from _numbers(Clue(f"{word} ({part}: {'.'.join(path)})", path), ours[path], theirs[path], size)


def _waiting(old: Json, new: Json, size: float | None) -> Iterator[Cause]:
    """Waits of a request, where they changed by something worth naming beside how long it took."""
    whole_s = _at(old, ("metrics", "e2e_latency", "summary", "p50"))
    for clue in _WAITS:
        one, two = _at(old, clue.path), _at(new, clue.path)
        if one and two and whole_s and abs(two - one) > _WORTH_NAMING * whole_s:
            yield from _numbers(clue, one, two, size)


def _numbers(clue: Clue, old: float | None, new: float | None, size: float | None) -> Iterator[Cause]:
    if not old or not new or old < 0 or new < 0 or abs(new / old - 1) <= NOTICED:
        return
    one, two = (f"{value * clue.scale:.4g}{f' {clue.unit}' if clue.unit else ''}" for value in (old, new))
    sentence = f"{clue.what[0].upper()}{clue.what[1:]} went from {one} to {two} ({percent(new / old - 1)})."
    yield Cause(clue.what, one, two, min(clue.most, _weight(abs(math.log(new / old)), size)), sentence)


def _weight(own: float, size: float | None) -> float:
    """How much of a change of ``size`` one of ``own`` size could make up, both logarithms."""
    return min(0.95, own if size is None else own / size)


def _at(cell: Json, path: Iterable[str]) -> float | None:
    value: Any = cell
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _leaves(values: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*path, key), float(value)
