"""A server's own numbers beside the client's: what it counted, what its gauges showed, whether it was idle before.

One watch a server, one ``CellNumbers`` a cell. Everything is asked for between rounds, but for the metrics page, which
a process of its own reads. What a server does not offer is named, never taken for zero.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from enginebench.errors import ServerError
from enginebench.measure.records import RoundRecord
from enginebench.measure.server_sampler import ServerSampler, state_before
from enginebench.server import metrics_page as page
from enginebench.server.metrics_page import Reading
from enginebench.server.plain_http import fetch
from enginebench.server.statistics import ModelCounts, between, read_statistics
from enginebench.server.tracing import Tracer

DEFAULT_METRICS_PORT = 8002
IDLE_TIMEOUT_S = 60.0
STANDING_S = 3.0
"""An engine whose iterations stand still for so long computes nothing, whatever a gauge says that nobody renews."""
LOOK_S = 0.15  # gauges are renewed ten times a second
SETTLE_S = 2.0  # Triton counts a request some time after its last token

GAUGES: Mapping[str, tuple[str, str, str]] = {
    "active": (page.REQUESTS, "request_type", "active"),
    "scheduled": (page.REQUESTS, "request_type", "scheduled"),
    "waiting": (page.REQUESTS, "request_type", "waiting"),
    "paused": (page.IN_FLIGHT, "inflight_batcher_specific_metric", "paused_requests"),
    "kv_used": (page.KV_BLOCKS, "kv_cache_block_type", "used"),
    "kv_max": (page.KV_BLOCKS, "kv_cache_block_type", "max"),
    "iterations": (page.GENERAL, "general_type", "iteration_counter"),
}
"""What is summed up of a cell's rounds: name → family, label and its value."""


class ServerWatch:
    """One running server. ``trace_file``: where it writes traces, when it is ours."""

    def __init__(self, url: str, metrics_url: str | None = None, trace_file: Path | None = None) -> None:
        self.url = url
        self.metrics_url = metrics_url or find_metrics(url)
        self.tracer = Tracer(url, trace_file) if trace_file else None
        self.sampler = ServerSampler(self.metrics_url) if self.metrics_url else None

    def page(self) -> list[Reading]:
        """The metrics page as it is now; empty: there is none, or it does not come."""
        if self.metrics_url is None:
            return []
        try:
            return page.kept(page.parse(fetch(self.metrics_url)))
        except ServerError:
            return []

    def kv_tokens(self) -> int | None:
        """What the engine's KV pool holds, by its metrics; None where they do not say, also not in a moment."""
        deadline_s = time.monotonic() + SETTLE_S  # gauges are zero until the engine's first iterations are summed up
        while blocks := page.values(self.page(), page.KV_BLOCKS, "kv_cache_block_type"):
            if tokens := round(blocks.get("max", 0.0) * blocks.get("tokens_per", 0.0)):
                return tokens
            if time.monotonic() > deadline_s:
                break
            time.sleep(LOOK_S)
        return None

    def stop(self) -> None:
        """Read no page any more; what was read stays."""
        if self.sampler is not None:
            self.sampler.stop()

    def as_json(self) -> dict[str, Any]:
        """What the server offers, as it stands in a session of run.json."""
        names = page.families(self.page())
        return {"metrics_url": self.metrics_url, "families": names, "not_offered": page.not_offered(names)}


def find_metrics(url: str) -> str | None:
    """The metrics page of the Triton whose HTTP port is in ``url``: two ports further, or at the default port."""
    parts = urlsplit(url)
    for port in dict.fromkeys(((parts.port or 80) + 2, DEFAULT_METRICS_PORT)):
        candidate = f"http://{parts.hostname}:{port}/metrics"
        try:
            if _same_server(page.parse(fetch(candidate, timeout_s=1.0)), read_statistics(url)):
                return candidate
        except ServerError:
            continue
    return None


def _same_server(readings: Sequence[Reading], counts: Mapping[str, ModelCounts]) -> bool:
    """Whether a page counts the very requests that the statistics count, so that no other server's is read."""
    shown = page.values(readings, page.SUCCESS, "model")
    return bool(shown) and all(shown.get(name, 0.0) == each.requests for name, each in counts.items())


@dataclass(slots=True)
class _Reading:
    """Counters at one moment."""

    counts: dict[str, ModelCounts] | None
    page: list[Reading]
    reason: str | None = None


class CellNumbers:
    """The server's numbers for one cell: ``wait_idle``, ``begin`` before its measured rounds, ``end`` after them."""

    def __init__(self, watch: ServerWatch, model: str) -> None:
        self._watch = watch
        self.model = model
        self._idle: dict[str, Any] | None = None
        self._before: _Reading | None = None
        self._after: _Reading | None = None
        self.layers: Mapping[str, Any] | None = None

    def wait_idle(self, timeout_s: float = IDLE_TIMEOUT_S, standing_s: float = STANDING_S) -> None:
        """Return when the server works on nothing, since cancelled requests run on; at most after ``timeout_s``."""
        started_s = moved_s = time.monotonic()
        last = self._read()
        while True:
            time.sleep(LOOK_S)
            now, now_s = self._read(), time.monotonic()
            status = _state(last, now)
            if status != "standing":
                moved_s = now_s
            last = now
            if status in ("verified", "unverified") or now_s - moved_s > standing_s or now_s - started_s > timeout_s:
                break
        status = {"standing": "verified", "busy": "failed"}.get(status, status)
        self._idle = {"status": status, "waited_s": time.monotonic() - started_s}

    def begin(self) -> None:
        """Read the counters before the measured rounds, once the warm-up's are in; later calls do nothing."""
        if self._before is None:
            self._before = self._settled(lambda _: False)

    def end(self, records: Sequence[RoundRecord] = ()) -> None:
        """Read them afterwards: once they are what the client counted in ``records``, or do not change any more."""
        measured = [record for record in records if not record.warmup]

        def enough(reading: _Reading) -> bool:
            self._after = reading
            return bool(measured) and self._agrees(measured)

        self._after = self._settled(enough)

    def _settled(self, enough: Callable[[_Reading], bool]) -> _Reading:
        """The first reading that is ``enough`` or the same as the one before it, after a while any."""
        deadline_s = time.monotonic() + SETTLE_S
        now = self._read()
        while time.monotonic() < deadline_s and not enough(now):
            time.sleep(LOOK_S)
            last, now = now, self._read()
            if (now.counts, _totals(now.page)) == (last.counts, _totals(last.page)):
                break
        return now

    @property
    def counts(self) -> dict[str, ModelCounts]:
        """What Triton counted in the measured rounds, by model; empty: it does not say."""
        if self._before is None or self._after is None or self._before.counts is None or self._after.counts is None:
            return {}
        try:
            return between(self._before.counts, self._after.counts)
        except ServerError as error:
            self._after.reason = str(error)
            return {}

    def as_json(self, records: Sequence[RoundRecord]) -> dict[str, Any]:
        """The ``server`` of a cell in run.json; ``records``: its rounds."""
        measured = [record for record in records if not record.warmup]
        counts = self.counts
        names = page.families(self._after.page if self._after else [])
        return {
            "model": self.model,
            "idle_before": self._idle,
            "statistics": {name: each.as_json() for name, each in counts.items()} or None,
            "statistics_reason": self._after.reason if self._after else None,
            "not_offered": page.not_offered(names),
            "started_ns": measured[0].started_ns,
            "ended_ns": measured[-1].ended_ns,
            "gauges": self._gauges(measured),
            "counted": self._counted(measured, counts),
            "layers": self.layers,
        }

    def findings(self, server: Mapping[str, Any]) -> list[str]:
        """A sentence for everything in ``as_json`` that should be known before a number is trusted."""
        busy = "The server was still working on earlier requests when the cell began: they shared the engine."
        unequal = [
            each for each in server["counted"] if each["matters"] and each["server"] not in (None, each["client"])
        ]
        return [busy] * ((self._idle or {}).get("status") == "failed") + [
            f"The client counted {each['client']:,} {each['what']} and the server {each['server']:,} "
            f"({each['source']}): somebody else used it, or one of them miscounts."
            for each in unequal
        ]

    def _agrees(self, rounds: Sequence[RoundRecord]) -> bool:
        counted = [each for each in self._counted(rounds, self.counts) if each["server"] is not None]
        return bool(counted) and all(each["server"] == each["client"] for each in counted)

    def _read(self) -> _Reading:
        try:
            return _Reading(read_statistics(self._watch.url), self._watch.page())
        except ServerError as error:
            return _Reading(None, self._watch.page(), str(error))

    def _counted(self, rounds: Sequence[RoundRecord], counts: Mapping[str, ModelCounts]) -> list[dict[str, Any]]:
        """The client's counts against the server's; ``server``: None where it does not count."""
        mine = counts.get(self.model)
        post = counts.get("postprocessing")
        ok = [int(record.requests.ok.sum()) for record in rounds]
        tokens = np.concatenate([record.requests.tokens[record.requests.ok] for record in rounds])
        before, after = (_totals(reading.page if reading else []) for reading in (self._before, self._after))
        name = f"{page.OUTPUT_TOKENS}_sum"
        told = after[name] - before.get(name, 0.0) if name in after else None
        rows = [
            ("requests", sum(ok), mine.requests if mine else None, f"Triton's statistics of {self.model}", True),
            (
                "output tokens",
                int(tokens.sum()),
                None if told is None else round(told),
                name,
                bool((tokens >= 0).all()),
            ),
        ]
        if post is not None:
            chunks = sum(len(record.chunks) for record in rounds)
            rows.append(("answers, each of one event", chunks, post.requests, "statistics of postprocessing", False))
        keys = ("what", "client", "server", "source", "matters")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def _gauges(self, rounds: Sequence[RoundRecord]) -> dict[str, Any] | None:
        """Pages read in the measured rounds, and the lowest and highest value of what is summed up; None: no pages."""
        sampler = self._watch.sampler
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
                if (value := page.gauge(state, *which)) is not None:
                    seen.setdefault(name, []).append(value)
        summary = {name: {"min": min(values), "max": max(values)} for name, values in seen.items()}
        return {"pages": pages, "missed": sampler.missed, "values": summary}


def _totals(readings: Sequence[Reading]) -> dict[str, float]:
    """The counters of token lengths, each over all its series."""
    found: dict[str, float] = {}
    for each in readings:
        if each.family.startswith((page.OUTPUT_TOKENS, page.INPUT_TOKENS)):
            found[each.family] = found.get(each.family, 0.0) + each.value
    return found


def _state(last: _Reading, now: _Reading) -> str:
    """``verified`` idle, ``busy``, ``standing``, or ``unverified`` where the server does not show what it works on."""
    if now.counts != last.counts:
        return "busy"
    if not now.page:
        return "unverified"
    if sum(page.values(now.page, page.PENDING, "model").values()):
        return "busy"
    active = page.values(now.page, page.REQUESTS, "request_type").get("active")
    if active is None:
        return "unverified"
    iterations = [page.values(each.page, page.GENERAL, "general_type").get("iteration_counter") for each in (last, now)]
    if active == 0:
        return "verified"
    return "standing" if iterations[0] is not None and iterations[0] == iterations[1] else "busy"


def failed_checks(preflight: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each check of a session's preflight that failed."""
    return [
        f"Preflight, {str(check['name']).replace('_', ' ')}: {check['detail']}"
        for check in preflight
        if check["status"] == "failed"
    ]
