"""Cells as a reader of ``run.json`` sees them: every planned one, whatever became of it.

Reads records only; it neither formats numbers nor knows the page.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME, PERCENTILE_FLOORS
from enginebench.plan.load import load_of_label

Json = Mapping[str, Any]

PATH_ORDER = ("direct", "core", "ensemble", "bls", "llmapi")
_CELL_ID = re.compile(
    r"(?P<scenario>.+)-(?P<path>[a-z]+)-(?P<mode>no)?stream-out(?P<output>\d+)(?:sd(?P<spread>[^-]+))?-(?P<load>[^-]+(?:-[^-]+)?)",
    re.DOTALL,
)


AXES = {"batch": "batch size", "concurrency": "requests in flight", "rate": "requests/s"}


@dataclass(frozen=True, slots=True)
class LoadView:
    """A load as readers see it."""

    kind: str
    label: str
    level: float
    pattern: str  # of arrivals, in words; empty for closed loops

    @property
    def number(self) -> str:
        """The level as a number: ``8``, ``12.5``."""
        return f"{self.level:,.6g}"

    @property
    def words(self) -> str:
        """``batch 8``, ``concurrency 16``, ``12.5 requests/s, Poisson``."""
        if self.kind == "rate":
            return f"{self.number} requests/s, {self.pattern}" if self.pattern else f"{self.number} requests/s"
        return f"{self.kind} {self.number}"

    @property
    def axis(self) -> str:
        """What the level counts."""
        return AXES.get(self.kind, self.kind)

    @property
    def rank(self) -> tuple[int, str, float]:
        """A place in an order that keeps loads with a common axis together."""
        kinds = list(AXES)
        return kinds.index(self.kind) if self.kind in kinds else len(kinds), self.pattern, self.level


def load_view(load: Json) -> LoadView:
    """The load of a cell's record."""
    return LoadView(load["kind"], load["label"], float(load["level"]), _pattern(load))


def _pattern(load: Json) -> str:
    arrival = load.get("arrival")
    if load["kind"] != "rate" or arrival is None:
        return ""
    words = {
        "poisson": "Poisson",
        "gamma": f"gamma {load.get('burstiness', 1):g}",
        "trace": f"trace {load.get('trace')} ×{load.get('speedup', 1):g}",
    }
    shape = words.get(arrival, str(arrival))
    ramp = load.get("ramp_to_per_s")
    return shape if ramp is None else f"{shape}, ramp {load['per_s']:g} to {ramp:g}"


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell with its record. ``status``: those of run.json, ``left_out``, or ``missing`` (not reached)."""

    id: str
    scenario: str
    path: str
    streaming: bool
    output_tokens: int
    output_stdev: float  # 0: exact
    load: LoadView
    status: str
    reason: str | None
    record: Json

    @property
    def output_words(self) -> str:
        """``128`` or ``128 ± 32``."""
        return f"{self.output_tokens:,}" + (f" ± {self.output_stdev:g}" if self.output_stdev else "")

    @property
    def measured(self) -> bool:
        """Whether the cell has numbers."""
        return self.status == "measured"

    @property
    def makespans_s(self) -> Sequence[float]:
        """How long each measured round took."""
        return tuple(self.record.get("makespan_s") or ()) if self.measured else ()

    @property
    def findings(self) -> Sequence[str]:
        """What the measurement noticed, a sentence each."""
        return tuple(self.record.get("findings") or ())

    @property
    def servers(self) -> Sequence[Json]:
        """What each of several servers behind it did; of a single one, all that is known, under no name."""
        server = self.record.get("server")
        if not server:
            return ()
        return server.get("servers") or ({**server, "server": ""},)

    def value(self, metric: str) -> float | None:
        """The p50 of a distribution or the value of a scalar; seconds or per second."""
        return self.statistic(metric, "value" if self._is_scalar(metric) else "p50")

    def statistic(self, metric: str, key: str) -> float | None:
        """One number of a metric's summary."""
        number = self._metric(metric).get("summary", {}).get(key)
        return None if number is None else float(number)

    def per_round(self, metric: str) -> Sequence[float]:
        """The p50 or value of each measured round that has one."""
        return tuple(value for value in self._metric(metric).get("per_round", ()) if value is not None)

    def peak_bytes(self, kind: str) -> float | None:
        """The peak of ``gpu``, or on the host: of ``engine`` or ``server`` processes, or of both (``host``)."""
        memory = self.record.get("memory") or {}
        if kind == "gpu":
            return _optional(memory.get("gpu_peak_bytes"))
        host = memory.get("host_peak_bytes") or {}
        wanted = ("engine", "server") if kind == "host" else (kind,)  # the client is no part of what is measured
        known = [value for role, value in host.items() if value is not None and role in wanted]
        return float(sum(known)) if known else None

    def why_none(self, metric: str, key: str = "p50") -> str:
        """Why :meth:`value` or :meth:`statistic` gave ``None``."""
        if not self.measured:
            return f"{STATUS_WORDS[self.status]}: {self.reason}"
        if metric == "memory":
            return (self.record.get("memory") or {}).get("gpu_reason") or "no memory sample was taken"
        if lacking := self._lacking(metric):
            return lacking
        if self.record.get("failed_requests"):
            return "a failed request counts as infinitely slow, and too many failed to give a bound"
        floor = PERCENTILE_FLOORS.get(int(key[1:])) if key[0] == "p" and key[1:].isdigit() else None
        if floor and int(self.statistic(metric, "count") or 0) < floor and self._metric(metric):
            return f"{key} needs {floor} requests"
        return "the path does not tell what this metric needs"

    def _lacking(self, metric: str) -> str | None:
        needs = BY_NAME[metric].needs if metric in BY_NAME else ()
        if "streaming" in needs and not self.streaming:
            return "without streaming, all tokens arrive at once: there is no first token to time"
        if "steady" in needs and not self._metric(metric):
            return "no round has a steady window: batches have none, and other loads need enough requests"
        return None

    def _metric(self, metric: str) -> Json:
        found: Json = self.record.get("metrics", {}).get(metric, {})
        return found

    def _is_scalar(self, metric: str) -> bool:
        return "value" in self._metric(metric).get("summary", {})


STATUS_WORDS = {
    "measured": "measured",
    "failed": "failed",
    "not_applicable": "not applicable",
    "skipped": "skipped",
    "missing": "not reached",
    "left_out": "left out",
}


def cells_of(run: Json) -> tuple[CellView, ...]:
    """Every planned cell, in a readable order: scenarios as planned, streaming first, then output, batch, path."""
    records: Json = run["cells"]
    left_out: Mapping[str, str] = run["plan"].get("left_out") or {}
    ids = dict.fromkeys([*run["plan"]["cells"], *records, *left_out])
    views = [_view(cell_id, records.get(cell_id), left_out) for cell_id in ids]
    scenarios = list(dict.fromkeys([*run["plan"]["scenarios"], *(view.scenario for view in views)]))
    return tuple(sorted(views, key=lambda view: (scenarios.index(view.scenario), *_order(view))))


def path_rank(path: str) -> int:
    """Where a path stands in the order of the layers; unknown ones come last."""
    return PATH_ORDER.index(path) if path in PATH_ORDER else len(PATH_ORDER)


def _order(view: CellView) -> tuple[bool, int, float, tuple[int, str, float], int]:
    return (not view.streaming, view.output_tokens, view.output_stdev, view.load.rank, path_rank(view.path))


def _view(cell_id: str, record: Json | None, left_out: Mapping[str, str]) -> CellView:
    if record is not None:
        reason = record.get("reason") or (None if record["status"] == "measured" else "no reason was recorded")
        return CellView(cell_id, *_identity(record), record["status"], reason, record)
    status = "left_out" if cell_id in left_out else "missing"
    reason = left_out.get(cell_id, "the run ended before this cell")
    return CellView(cell_id, *_identity(_parsed(cell_id)), status, reason, {})


def _identity(record: Json) -> tuple[str, str, bool, int, float, LoadView]:
    answer = (record["output_tokens"], float(record.get("output_stdev") or 0.0))
    return (record["scenario"], record["path"], record["streaming"], *answer, load_view(record["load"]))


def _parsed(cell_id: str) -> Json:
    match = _CELL_ID.fullmatch(cell_id)
    try:
        load = load_of_label(match["load"] if match else "")
    except ValueError:
        match = None
    if not match:
        raise RunError(f"run.json: plan.cells names {cell_id!r}, which is not the id of a cell; measure the run again.")
    return {
        "scenario": match["scenario"],
        "path": match["path"],
        "streaming": match["mode"] is None,
        "output_tokens": int(match["output"]),
        "output_stdev": float(match["spread"] or 0),
        "load": load,
    }


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)
