"""The servers' own numbers beside the client's: what they counted, what their gauges showed, whether they were idle.

One ``CellNumbers`` a cell, over one server or over several replicas: counters of replicas are added up, gauges are
those of any of them, since pages are not read at the same moment, and each one's part is kept, too. Everything is asked
for between rounds, but for the metrics page, which a process of its own reads. What a server does not offer is named,
never taken for zero.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from enginebench.errors import ServerError
from enginebench.measure.records import RoundRecord
from enginebench.measure.replicas import parts_of
from enginebench.measure.server_sampler import ServerSampler, state_before
from enginebench.run.server_watch import LOOK_S, SETTLE_S, Counters, Idleness, ServerWatch
from enginebench.server import metrics_page as page
from enginebench.server.statistics import ModelCounts, between, together

IDLE_TIMEOUT_S = 60.0
STANDING_S = 3.0
"""An engine whose iterations stand still for so long computes nothing, whatever a gauge says that nobody renews."""

GAUGES = {
    "active": page.ACTIVE,
    "scheduled": page.SCHEDULED,
    "waiting": page.WAITING,
    "paused": page.PAUSED,
    "kv_used": page.KV_USED,
    "kv_max": page.KV_MAX,
    "iterations": page.ITERATIONS,
}
"""What is summed up of a cell's rounds."""

_IDLE_WORST_FIRST = ("failed", "unverified", "verified")
_TOKENS = f"{page.OUTPUT_TOKENS}_sum"

Moment: TypeAlias = tuple[Counters, ...]
"""The counters of every server, at one moment."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What one server, or all of them, counted in the measured rounds. None: not known; ``reason`` says why."""

    counts: Mapping[str, ModelCounts] | None
    output_tokens: int | None
    reason: str | None = None


class CellNumbers:
    """The numbers for one cell: ``wait_idle``, ``begin`` before its measured rounds, ``end`` after them."""

    def __init__(self, watches: Sequence[ServerWatch], model: str) -> None:
        self._watches = tuple(watches)
        self.model = model
        self._idle: dict[str, Any] | None = None
        self._idle_each: Sequence[str | None] = [None] * len(watches)
        self._before: Moment | None = None
        self._after: Moment | None = None
        self.layers: Mapping[str, Any] | None = None

    @property
    def servers(self) -> int:
        """How many there are."""
        return len(self._watches)

    def wait_idle(self, timeout_s: float = IDLE_TIMEOUT_S, standing_s: float = STANDING_S) -> None:
        """Return when no server works on anything, since cancelled requests run on; at most after ``timeout_s``."""
        started_s = time.monotonic()
        waits = [Idleness(watch, standing_s) for watch in self._watches]
        while True:
            time.sleep(LOOK_S)
            looks = [wait.look() for wait in waits]
            if all(looks) or time.monotonic() - started_s > timeout_s:
                break
        self._idle_each = [wait.status for wait in waits]
        worst = next(status for status in _IDLE_WORST_FIRST if status in self._idle_each)
        self._idle = {"status": worst, "waited_s": time.monotonic() - started_s}

    def begin(self) -> None:
        """Read the counters before the measured rounds, once the warm-up's are in; later calls do nothing."""
        if self._before is None:
            self._before = self._settled(lambda _: False)

    def end(self, records: Sequence[RoundRecord] = ()) -> None:
        """Read them afterwards: once they are what the client counted in ``records``, or do not change any more."""
        measured = [record for record in records if not record.warmup]

        def enough(moment: Moment) -> bool:
            self._after = moment
            return bool(measured) and self._agrees(measured)

        self._after = self._settled(enough)

    def _settled(self, enough: Callable[[Moment], bool]) -> Moment:
        """The first reading that is ``enough`` or the same as the one before it, after a while any."""
        deadline_s = time.monotonic() + SETTLE_S
        now = self._read()
        while time.monotonic() < deadline_s and not enough(now):
            time.sleep(LOOK_S)
            last, now = now, self._read()
            if [(each.counts, each.totals) for each in now] == [(each.counts, each.totals) for each in last]:
                break
        return now

    def _read(self) -> Moment:
        return tuple(watch.counters() for watch in self._watches)

    @property
    def counts(self) -> Mapping[str, ModelCounts]:
        """What Triton counted in the measured rounds, by model, over all servers; empty: one of them does not say."""
        return _together(self._counted_each()).counts or {}

    def as_json(self, records: Sequence[RoundRecord]) -> dict[str, Any]:
        """The ``server`` of a cell in run.json; ``records``: its rounds."""
        measured = [record for record in records if not record.warmup]
        each = self._counted_each()
        every = _together(each)
        names = [page.families(moment.page) for moment in self._after or ()]
        absent = {name for of_one in names for name in page.not_offered(of_one)}
        return {
            "model": self.model,
            "idle_before": self._idle,
            "statistics": _statistics(every),
            "statistics_reason": every.reason,
            "not_offered": [name for name in page.EXPECTED if name in absent],
            "started_ns": measured[0].started_ns,
            "ended_ns": measured[-1].ended_ns,
            "gauges": _extremes([_gauges(watch.sampler, measured) for watch in self._watches]),
            "counted": self._rows(measured, every),
            "layers": self.layers,
            "servers": self._parts(measured, each, every) if self.servers > 1 else [],
        }

    def findings(self, server: Mapping[str, Any]) -> list[str]:
        """A sentence for everything in ``as_json`` that should be known before a number is trusted."""
        if not server["servers"]:
            status = (server["idle_before"] or {}).get("status")
            return _findings("The server", "the server", {"idle_before": status, "counted": server["counted"]})
        return [
            sentence
            for part in server["servers"]
            for sentence in _findings(f"The server at {part['server']}", f"the server at {part['server']}", part)
        ]

    def _agrees(self, rounds: Sequence[RoundRecord]) -> bool:
        rows = [row for row in self._rows(rounds, _together(self._counted_each())) if row["server"] is not None]
        return bool(rows) and all(row["server"] == row["client"] for row in rows)

    def _counted_each(self) -> list[_Counted]:
        return [_counted(*pair) for pair in zip(self._before or (), self._after or (), strict=False)]

    def _parts(self, rounds: Sequence[RoundRecord], each: Sequence[_Counted], every: _Counted) -> list[dict[str, Any]]:
        """What each of several servers did. One that counted nothing counted zero where another one counts."""
        divided = [parts_of(record, self.servers) for record in rounds]
        places = zip(self._watches, self._idle_each, each, strict=True)
        return [
            {
                "server": watch.url,
                "idle_before": idle,
                "statistics": _statistics(mine),
                "statistics_reason": mine.reason,
                "gauges": _gauges(watch.sampler, rounds),
                "counted": self._rows([parts[place] for parts in divided], mine, _models(every)),
            }
            for place, (watch, idle, mine) in enumerate(places)
        ]

    def _rows(
        self, rounds: Sequence[RoundRecord], counted: _Counted, models: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """The client's counts in ``rounds`` against the server's; ``server``: None where it does not count.

        ``models``: that are counted, if only elsewhere.
        """
        ok = [int(record.requests.ok.sum()) for record in rounds]
        tokens = np.concatenate([record.requests.tokens[record.requests.ok] for record in rounds])
        told = _requests(counted, self.model, models)
        rows = [
            ("requests", sum(ok), told, f"Triton's statistics of {self.model}", True),
            ("output tokens", int(tokens.sum()), counted.output_tokens, _TOKENS, bool((tokens >= 0).all())),
        ]
        if (posts := _requests(counted, "postprocessing", models)) is not None:
            chunks = sum(len(record.chunks) for record in rounds)
            rows.append(("answers, each of one event", chunks, posts, "statistics of postprocessing", False))
        keys = ("what", "client", "server", "source", "matters")
        return [dict(zip(keys, row, strict=True)) for row in rows]


def _counted(before: Counters, after: Counters) -> _Counted:
    was, now = before.totals, after.totals
    tokens = round(now[_TOKENS] - was.get(_TOKENS, 0.0)) if _TOKENS in now else None
    if before.counts is None or after.counts is None:
        return _Counted(None, tokens, after.reason or before.reason)
    try:
        return _Counted(between(before.counts, after.counts), tokens)
    except ServerError as error:
        return _Counted(None, tokens, str(error))


def _together(each: Sequence[_Counted]) -> _Counted:
    """The sums; not known where one of the servers does not tell its part."""
    counts = [one.counts for one in each if one.counts is not None]
    tokens = [one.output_tokens for one in each if one.output_tokens is not None]
    return _Counted(
        together(counts) if len(counts) == len(each) else None,
        sum(tokens) if tokens and len(tokens) == len(each) else None,
        next((one.reason for one in each if one.reason), None),
    )


def _statistics(counted: _Counted) -> dict[str, Any] | None:
    return {name: each.as_json() for name, each in (counted.counts or {}).items()} or None


def _models(counted: _Counted) -> Sequence[str]:
    return tuple(counted.counts or ())


def _requests(counted: _Counted, model: str, models: Sequence[str]) -> int | None:
    """Of ``model``; None: not known, or nobody counts it."""
    if counted.counts is None:
        return None
    mine = counted.counts.get(model)
    return mine.requests if mine else 0 if model in models else None


def _gauges(sampler: ServerSampler | None, rounds: Sequence[RoundRecord]) -> dict[str, Any] | None:
    """Pages read in the measured rounds, and the lowest and highest value of what is summed up; None: no pages."""
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


def _extremes(each: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The lowest and highest value at any server; None where one of them has no pages."""
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


def _findings(subject: str, who: str, part: Mapping[str, Any]) -> list[str]:
    """``part``: of one server, its ``idle_before`` and what was ``counted``."""
    busy = f"{subject} was still working on earlier requests when the cell began: they shared the engine."
    unequal = [each for each in part["counted"] if each["matters"] and each["server"] not in (None, each["client"])]
    return [busy] * (part["idle_before"] == "failed") + [
        f"The client counted {each['client']:,} {each['what']} and {who} {each['server']:,} "
        f"({each['source']}): somebody else used it, or one of them miscounts."
        for each in unequal
    ]


def failed_checks(preflight: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each check of a session's preflight that failed; of several servers it says of which."""
    several = len({check["server"] for check in preflight if check["server"]}) > 1
    return [
        f"Preflight{f' of {server}' if several and server else ''}, {str(name).replace('_', ' ')}: {detail}"
        for name, status, detail, server in (
            (check["name"], check["status"], check["detail"], check["server"]) for check in preflight
        )
        if status == "failed"
    ]
