"""What the gauges of servers showed in the measured rounds of a cell: the lowest and the highest value of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.measure.records import RoundRecord
from enginebench.measure.server_sampler import ServerSampler, state_before
from enginebench.server import metrics_page as page

GAUGES = {
    "active": page.ACTIVE,
    "scheduled": page.SCHEDULED,
    "waiting": page.WAITING,
    "paused": page.PAUSED,
    "kv_used": page.KV_USED,
    "kv_max": page.KV_MAX,
    "iterations": page.ITERATIONS,
}


def seen_in(rounds: Sequence[RoundRecord], sampler: ServerSampler | None) -> dict[str, Any] | None:
    """The ``gauges`` of one server in run.json: ``pages`` read in ``rounds``, and values; None: it has no page."""
    if sampler is None:
        return None
    spans = [(record.started_ns, record.ended_ns) for record in rounds]
    every = sampler.samples(until_ns=spans[-1][1])
    state = state_before(every, spans[0][0])
    seen: dict[str, list[float]] = {}
    pages = 0
    for sample in every:
        state |= page.series(sample.changed)
        if not any(start_ns <= sample.stamp_ns <= end_ns for start_ns, end_ns in spans):
            continue
        pages += 1
        for name, which in GAUGES.items():
            if (value := page.gauge(state, which)) is not None:
                seen.setdefault(name, []).append(value)
    summary = {name: {"min": min(values), "max": max(values)} for name, values in seen.items()}
    return {"pages": pages, "missed": sampler.missed, "values": summary}


def at_any(each: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The same of several servers: what was seen at any of them; None where one of them has no page."""
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return None
    names = dict.fromkeys(name for one in known for name in one["values"])
    seen = {name: [one["values"][name] for one in known if name in one["values"]] for name in names}
    return {
        "pages": sum(one["pages"] for one in known),
        "missed": sum(one["missed"] for one in known),
        "values": {
            name: {"min": min(one["min"] for one in values), "max": max(one["max"] for one in values)}
            for name, values in seen.items()
        },
    }
