"""One running Triton server, watched: its counters and its metrics page now, the page over time, whether it is idle.

What a server does not offer is None or empty, never zero.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from enginebench.errors import ServerError
from enginebench.measure.server_sampler import ServerSampler
from enginebench.server import metrics_page as page
from enginebench.server.metrics_page import Reading
from enginebench.server.plain_http import fetch
from enginebench.server.statistics import ModelCounts, read_statistics
from enginebench.server.tracing import Tracer

DEFAULT_METRICS_PORT = 8002
LOOK_S = 0.15  # gauges are renewed ten times a second
SETTLE_S = 5.0  # Triton counts a request some time after its last token


@dataclass(slots=True)
class Counters:
    """A server's counters at one moment. ``counts`` None: it does not say, and ``reason`` tells why."""

    counts: dict[str, ModelCounts] | None
    page: list[Reading]
    reason: str | None = None

    @property
    def totals(self) -> dict[str, float]:
        """The counters of token lengths, each over all its series."""
        found: dict[str, float] = {}
        for each in self.page:
            if each.family.startswith((page.OUTPUT_TOKENS, page.INPUT_TOKENS)):
                found[each.family] = found.get(each.family, 0.0) + each.value
        return found


class ServerWatch:
    """A running server. ``metrics_url`` None: it has none. ``trace_file``: where it writes traces, if it is ours."""

    def __init__(self, url: str, metrics_url: str | None, trace_file: Path | None = None) -> None:
        self.url = url
        self.metrics_url = metrics_url
        self.tracer = Tracer(url, trace_file) if trace_file else None
        self.sampler = ServerSampler(metrics_url, url) if metrics_url else None

    def counters(self) -> Counters:
        """As they are now."""
        try:
            return Counters(read_statistics(self.url), self.page())
        except ServerError as error:
            return Counters(None, self.page(), str(error))

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
        return {
            "server": self.url,
            "metrics_url": self.metrics_url,
            "families": names,
            "not_offered": page.not_offered(names),
        }


class Idleness:
    """Whether a server works on something, look by look. An engine that stands still for ``standing_s`` does not."""

    def __init__(self, watch: ServerWatch, standing_s: float) -> None:
        self._watch, self._standing_s = watch, standing_s
        self._last, self._moved_s = watch.counters(), time.monotonic()
        self._state = "busy"

    def look(self) -> bool:
        """Look again, a while after the last time; whether it is idle as far as that will ever be seen."""
        now, now_s = self._watch.counters(), time.monotonic()
        self._state = _state(self._last, now)
        if self._state != "standing":
            self._moved_s = now_s
        self._last = now
        return self._state in ("verified", "unverified") or now_s - self._moved_s > self._standing_s

    @property
    def status(self) -> str:
        """``verified``, ``unverified`` where the server does not show what it works on, or ``failed``."""
        return {"standing": "verified", "busy": "failed"}.get(self._state, self._state)


def _state(last: Counters, now: Counters) -> str:
    """``verified`` idle, ``busy``, ``standing``, or ``unverified`` where the server does not show what it works on."""
    if now.counts != last.counts:
        return "busy"
    if not now.page:
        return "unverified"
    if sum(page.values(now.page, page.PENDING, "model").values()):
        return "busy"
    active = page.gauge(page.series(now.page), page.ACTIVE)
    if active is None:
        return "unverified"
    iterations = [page.gauge(page.series(each.page), page.ITERATIONS) for each in (last, now)]
    if active == 0:
        return "verified"
    return "standing" if iterations[0] is not None and iterations[0] == iterations[1] else "busy"


def watch_all(urls: Sequence[str]) -> tuple[ServerWatch, ...]:
    """Watch the servers at ``urls``, each with the metrics page that is its own."""
    taken: list[str | None] = []
    for url in urls:
        taken.append(find_metrics(url, taken))
    return tuple(ServerWatch(url, metrics_url) for url, metrics_url in zip(urls, taken, strict=True))


def find_metrics(url: str, taken: Collection[str | None] = ()) -> str | None:
    """The metrics page of the Triton whose HTTP port is in ``url``: two ports further, or at the default port.

    ``taken``: pages that are other servers'.
    """
    parts = urlsplit(url)
    for port in dict.fromkeys(((parts.port or 80) + 2, DEFAULT_METRICS_PORT)):
        candidate = f"http://{parts.hostname}:{port}/metrics"
        if candidate in taken:
            continue
        try:
            if same_server(page.parse(fetch(candidate, timeout_s=1.0)), read_statistics(url)):
                return candidate
        except ServerError:
            continue
    return None


def same_server(readings: Sequence[Reading], counts: Mapping[str, ModelCounts]) -> bool:
    """Whether a page counts the very requests that the statistics count, so that no other server's is read.

    Replicas may have counted as many: the time that these took tells them apart.
    """
    shown, took_us = (page.values(readings, family, "model") for family in (page.SUCCESS, page.DURATION_US))
    return bool(shown) and all(
        shown.get(name, 0.0) == each.requests
        and abs(took_us.get(name, each.duration_s * 1e6) - each.duration_s * 1e6) <= each.requests + 1  # whole µs each
        for name, each in counts.items()
    )
