"""The servers' own numbers beside the client's: what they counted, what their gauges showed, whether they were idle.

One ``CellNumbers`` a cell, over one server or over several replicas: counters of replicas are added up, gauges are
those of any of them, since pages are not read at the same moment, and each one's part is kept, too. Everything is asked
for between rounds, but for the metrics page, which a process of its own reads. What a server does not offer is named,
never taken for zero.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from enginebench.measure.records import RoundRecord
from enginebench.measure.replicas import parts_of
from enginebench.run.server_counted import Counted, against_client, counted_between, counted_together
from enginebench.run.server_gauges import at_any, seen_in
from enginebench.run.server_watch import LOOK_S, SETTLE_S, Counters, Idleness, ServerWatch
from enginebench.server import metrics_page as page
from enginebench.server.statistics import ModelCounts

IDLE_TIMEOUT_S = 60.0
STANDING_S = 3.0
"""An engine whose iterations stand still for so long computes nothing, whatever a gauge says that nobody renews."""

_IDLE_WORST_FIRST = ("failed", "unverified", "verified")

Moment: TypeAlias = tuple[Counters, ...]
"""The counters of every server, at one moment."""


class CellNumbers:
    """The numbers for one cell: ``wait_idle``, ``begin`` before its measured rounds, ``end`` after them."""

    def __init__(self, watches: Sequence[ServerWatch], model: str) -> None:
        self._watches = tuple(watches)
        self.model = model
        self._idle: dict[str, Any] | None = None
        self._idle_each: Sequence[str | None] = [None] * len(watches)
        self._idled: Moment | None = None  # the counters before the warm-up
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
        self._idled = self._read()

    def begin(self, warm_up: Sequence[RoundRecord] = ()) -> None:
        """Read the counters before the measured rounds, once those of ``warm_up`` are in; later calls do nothing."""
        if self._before is None:
            self._before = self._settled(self._idled, warm_up)

    def end(self, records: Sequence[RoundRecord] = ()) -> None:
        """Read them afterwards, once those of the measured ones of ``records`` are in."""
        self._after = self._settled(self._before, [record for record in records if not record.warmup])

    def _settled(self, since: Moment | None, rounds: Sequence[RoundRecord]) -> Moment:
        """The first reading that agrees with what the client counted in ``rounds``; after a while any.

        Where that cannot be told, or what differs does not matter, the first that is the same as the one before it.
        """
        deadline_s = time.monotonic() + SETTLE_S
        now = self._read()
        while time.monotonic() < deadline_s:
            rows = self._told(since, now, rounds)
            if rows and all(row["server"] == row["client"] for row in rows):
                break
            time.sleep(LOOK_S)
            last, now = now, self._read()
            unchanged = [(each.counts, each.totals) for each in now] == [(each.counts, each.totals) for each in last]
            if unchanged and all(row["server"] == row["client"] for row in rows if row["matters"]):
                break
        return now

    def _read(self) -> Moment:
        return tuple(watch.counters() for watch in self._watches)

    @property
    def counts(self) -> Mapping[str, ModelCounts]:
        """What Triton counted in the measured rounds, by model, over all servers; empty: one of them does not say."""
        return counted_together(self._counted_each()).counts or {}

    def as_json(self, records: Sequence[RoundRecord]) -> dict[str, Any]:
        """The ``server`` of a cell in run.json; ``records``: its rounds."""
        measured = [record for record in records if not record.warmup]
        each = self._counted_each()
        every = counted_together(each)
        names = [page.families(moment.page) for moment in self._after or ()]
        absent = {name for of_one in names for name in page.not_offered(of_one)}
        return {
            "model": self.model,
            "idle_before": self._idle,
            "statistics": every.statistics(),
            "statistics_reason": every.reason,
            "not_offered": [name for name in page.EXPECTED if name in absent],
            "started_ns": measured[0].started_ns,
            "ended_ns": measured[-1].ended_ns,
            "gauges": at_any([seen_in(measured, watch.sampler) for watch in self._watches]),
            "counted": against_client(self.model, measured, every),
            "layers": self.layers,
            "servers": self._parts(measured, each, every) if self.servers > 1 else [],
        }

    def _told(self, since: Moment | None, now: Moment, rounds: Sequence[RoundRecord]) -> list[dict[str, Any]]:
        """What the servers counted since then, of all that they do, beside the client's counts in ``rounds``."""
        if since is None or not rounds:
            return []
        every = counted_together([counted_between(*pair) for pair in zip(since, now, strict=True)])
        return [row for row in against_client(self.model, rounds, every) if row["server"] is not None]

    def _counted_each(self) -> list[Counted]:
        return [counted_between(*pair) for pair in zip(self._before or (), self._after or (), strict=False)]

    def _parts(self, rounds: Sequence[RoundRecord], each: Sequence[Counted], every: Counted) -> list[dict[str, Any]]:
        """What each of several servers did. One that counted nothing counted zero where another one counts."""
        divided = [parts_of(record, self.servers) for record in rounds]
        places = zip(self._watches, self._idle_each, each, strict=True)
        return [
            {
                "server": watch.url,
                "idle_before": idle,
                "statistics": mine.statistics(),
                "statistics_reason": mine.reason,
                "gauges": seen_in(rounds, watch.sampler),
                "counted": against_client(self.model, [parts[place] for parts in divided], mine, every.counts or ()),
            }
            for place, (watch, idle, mine) in enumerate(places)
        ]


def findings(server: Mapping[str, Any]) -> list[str]:
    """A sentence for everything in a cell's ``server`` that should be known before a number is trusted."""
    if not server["servers"]:
        status = (server["idle_before"] or {}).get("status")
        return _findings("The server", "the server", {"idle_before": status, "counted": server["counted"]})
    return [
        sentence
        for part in server["servers"]
        for sentence in _findings(f"The server at {part['server']}", f"the server at {part['server']}", part)
    ]


def _findings(subject: str, who: str, part: Mapping[str, Any]) -> list[str]:
    """``part``: of one server, its ``idle_before`` and what was ``counted``."""
    busy = f"{subject} was still working on earlier requests when the cell began: they shared the engine."
    unequal = [each for each in part["counted"] if each["matters"] and each["server"] not in (None, each["client"])]
    return [busy] * (part["idle_before"] == "failed") + [
        f"The client counted {each['client']:,} {each['what']} and {who} {each['server']:,} "
        f"({each['source']}): somebody else used it, or one of them miscounts."
        for each in unequal
    ]
