"""The one table of metrics, and their values for a cell.

Pure: records in, numbers out. No value is ever rounded, guessed or replaced by zero. A metric that a cell cannot have
(TTFT without streaming, TPOT where the path does not tell token counts, goodput without SLOs) is absent from the
result; one that it could have had but for failures is there with ``None``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import UNKNOWN, RoundRecord
from enginebench.measure.windows import NO_TRIM, counted, steady_window_ns
from enginebench.plan.load import Trim

Floats = NDArray[np.float64]
Need = Literal["streaming", "tokens", "chunk_tokens", "slo", "steady", "reads", "gpu"]
"""``tokens``: how long each answer was; ``chunk_tokens``: how many tokens came when, which not every path tells;
``reads``: when the process had each arrival in hand; ``gpu``: what NVML says, see ``gpu_metric``."""

OF_THE_CLIENT = ("slip", "lateness")
"""Known for a request that failed, too."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a metric is. ``formula`` is text for readers; *n* are output tokens, *n₁* those of the first chunk."""

    name: str
    title: str
    unit: str  # of stored values: seconds, never milliseconds
    better: Literal["lower", "higher"]
    formula: str
    needs: tuple[Need, ...] = ()
    kind: Literal["distribution", "scalar"] = "distribution"


METRICS = (
    Metric("ttft", "TTFT", "s", "lower", "first token − intended send", ("streaming",)),
    Metric("service_ttft", "Service TTFT", "s", "lower", "first token − actual send", ("streaming",)),
    Metric("slip", "Client slip", "s", "lower", "actual send − intended send"),
    Metric("lateness", "Process lateness", "s", "lower",
           "moment the process had an arrival in hand − its stamp, the worst of each request", ("reads",)),
    Metric("tpot", "TPOT", "s", "lower", "(last token − first token) / (n − n₁)", ("streaming", "chunk_tokens")),
    Metric("itl", "ITL", "s", "lower", "gap before a chunk / its tokens, over tokens", ("streaming", "chunk_tokens")),
    Metric("e2e_latency", "E2E latency", "s", "lower", "last token − intended send"),
    Metric("output_tokens_per_s", "Output tokens/s", "tokens/s", "higher", "completed output tokens / window",
           ("tokens",), "scalar"),
    Metric("total_tokens_per_s", "Total tokens/s", "tokens/s", "higher",
           "completed prompt and output tokens / window", ("tokens",), "scalar"),
    Metric("requests_per_s", "Requests/s", "requests/s", "higher", "completed requests / window", (), "scalar"),
    Metric("steady_output_tokens_per_s", "Steady tokens/s", "tokens/s", "higher",
           "output tokens that arrived in the steady window / that window", ("chunk_tokens", "steady"), "scalar"),
    Metric("steady_requests_per_s", "Steady requests/s", "requests/s", "higher",
           "requests that ended in the steady window / that window", ("steady",), "scalar"),
    Metric("tokens_per_s_per_user", "Tokens/s per user", "tokens/s", "higher",
           "(n − n₁) / (last token − first token)", ("streaming", "chunk_tokens")),
    Metric("goodput", "Goodput", "requests/s", "higher", "requests that met every SLO / window", ("slo",), "scalar"),
    Metric("slo_attainment", "SLO attainment", "fraction", "higher",
           "requests that met every SLO / requests, failed ones counted", ("slo",), "scalar"),
    Metric("output_tokens_per_s_per_gpu", "Tokens/s per GPU", "tokens/s", "higher",
           "output tokens/s / GPUs of the build", ("gpu",), "scalar"),
    Metric("energy_per_output_token", "Energy per token", "J", "lower",
           "energy of all GPUs over the rounds / completed output tokens", ("gpu",), "scalar"),
    Metric("mbu", "MBU", "fraction", "higher",
           "(weights + KV cache that a decode step reads) / median TPOT / the card's bandwidth", ("gpu",), "scalar"),
)  # fmt: skip
"""Window: from the release of a round's first request to its last arrival; over rounds, sums are divided by sums.
What a scenario trims off the ends of a round counts in no distribution and in no attainment, but in every window."""

BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}

PERCENTILE_FLOORS = {50: 1, 90: 64, 95: 130, 99: 662}
"""Requests needed before a percentile is shown."""


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a scenario asks of its metrics."""

    limits_s: Mapping[str, float]
    trim: Trim


@dataclass(frozen=True, slots=True)
class MetricResult:
    """A metric of a cell.

    ``summary`` of a distribution: p50, p90, p95, p99, min, max, mean, count and failed (both of requests); of a scalar:
    value. ``per_round``: the p50 or the value of each measured round in order, ``None`` for a round without one.
    """

    unit: str
    better: str
    summary: Mapping[str, float | int | None]
    per_round: tuple[float | None, ...]

    @property
    def headline(self) -> float | None:
        """The p50 of a distribution, the value of a scalar."""
        return self.summary["value"] if "value" in self.summary else self.summary["p50"]

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {
            "unit": self.unit,
            "better": self.better,
            "summary": dict(self.summary),
            "per_round": list(self.per_round),
        }


def cell_metrics(
    rounds: Sequence[RoundRecord], slo_s: Mapping[str, float] | None = None, trim: Trim = NO_TRIM
) -> dict[str, MetricResult]:
    """The metrics of a cell by name, in the order of the table, over its measured rounds (warm-ups are ignored).

    ``slo_s``: limits in seconds of per-request metrics, e.g. ``{"ttft": 0.5}``. ``trim``: what of each round does
    not count. A round whose stamps a clock step spoilt counts in no metric and leaves ``None`` in ``per_round``.
    """
    measured = [record for record in rounds if not record.warmup]
    valid = [record for record in measured if record.valid]
    terms = _Terms(slo_s or {}, trim)
    if not valid:
        return {}
    return {metric.name: _result(metric, measured, terms) for metric in METRICS if _applies(metric, valid, terms)}


def gpu_metric(name: str, value: float, per_round: Sequence[float | None]) -> MetricResult:
    """A metric of the table that no record holds, from who knows its value."""
    metric = BY_NAME[name]
    return MetricResult(metric.unit, metric.better, {"value": value}, tuple(per_round))


def request_values(name: str, record: RoundRecord) -> Floats:
    """A per-request metric for every request of a round, shape (requests,).

    A failed request is +∞ (-∞ where higher is better); nan means that the request has no value, such as the TPOT of
    an answer that came in one chunk.
    """
    values = _PER_REQUEST[name](record)
    if name not in OF_THE_CLIENT:
        values[~record.requests.ok] = _worst(name)
    return values


def token_gaps_s(record: RoundRecord) -> Floats:
    """ITL: a value per token after the first arrival of each completed request, and +∞ per token of one that failed.

    Chunks that one read brought have one stamp, and are one arrival: their order within it is not seen.
    """
    requests, chunks = record.requests, record.chunks
    order = np.argsort(chunks.request, kind="stable")
    request, stamp_ns, tokens = chunks.request[order], chunks.stamp_ns[order], chunks.tokens[order]
    if len(order):
        begins = np.flatnonzero(np.r_[True, (np.diff(request) != 0) | (np.diff(stamp_ns) != 0)])
        request, stamp_ns, tokens = request[begins], stamp_ns[begins], np.add.reduceat(tokens, begins)
    wanted = (request[1:] == request[:-1]) & np.isin(request[1:], requests.index[requests.ok])
    gaps_s, tokens = np.diff(stamp_ns)[wanted] / 1e9, tokens[1:][wanted]
    missing = int(np.sum(np.maximum(requests.requested_tokens[~requests.ok] - 1, 1)))
    return np.concatenate([np.repeat(gaps_s / tokens, tokens), np.full(missing, np.inf)])


def nearest_rank(values: Floats, percent: int) -> float:
    """The smallest value that at least ``percent`` of ``values`` do not exceed (numpy's ``inverted_cdf``).

    ``values``: not empty, sorted, infinities allowed (numpy's own interpolates and makes nan of them).
    """
    return float(values[max(0, -(-len(values) * percent // 100) - 1)])


def _worst(name: str) -> float:
    return np.inf if BY_NAME[name].better == "lower" else -np.inf


def _applies(metric: Metric, rounds: Sequence[RoundRecord], terms: _Terms) -> bool:
    if "gpu" in metric.needs:
        return False
    if "slo" in metric.needs:
        return bool(terms.limits_s) and all(_applies(BY_NAME[name], rounds, terms) for name in terms.limits_s)
    if "steady" in metric.needs and not any(steady_window_ns(record, terms.trim) for record in rounds):
        return False
    if "reads" in metric.needs and not any((record.chunks.read_ns > 0).any() for record in rounds):
        return False
    if "streaming" in metric.needs and not all(record.streaming for record in rounds):
        return False
    return all(_tokens_known(record, metric.needs) for record in rounds)


def _tokens_known(record: RoundRecord, needs: Sequence[Need]) -> bool:
    """Whether lengths are known, of completed requests, and what each chunk carried, as far as that is needed."""
    if "chunk_tokens" in needs:
        return not np.any(record.chunks.tokens == UNKNOWN)
    return "tokens" not in needs or not np.any(record.requests.tokens[record.requests.ok] == UNKNOWN)


def _result(metric: Metric, rounds: Sequence[RoundRecord], terms: _Terms) -> MetricResult:
    def summary_of(chosen: Sequence[RoundRecord]) -> dict[str, float | int | None]:
        if metric.kind == "scalar":
            return {"value": _SCALARS[metric.name](chosen, terms)}
        return _distribution(metric.name, [counted(record, terms.trim) for record in chosen])

    valid = [record for record in rounds if record.valid]
    key = "value" if metric.kind == "scalar" else "p50"
    per_round = tuple(summary_of([record])[key] if record.valid else None for record in rounds)
    return MetricResult(metric.unit, metric.better, summary_of(valid), per_round)


def _distribution(name: str, rounds: Sequence[RoundRecord]) -> dict[str, float | int | None]:
    per_request = np.concatenate([request_values(name, record) for record in rounds])
    pooled = np.concatenate([token_gaps_s(record) for record in rounds]) if name == "itl" else per_request
    values = np.sort(pooled[~np.isnan(pooled)])
    count = int(np.count_nonzero(~np.isnan(per_request)))
    summary: dict[str, float | int | None] = {
        f"p{percent}": _finite(nearest_rank(values, percent)) if len(values) and count >= floor else None
        for percent, floor in PERCENTILE_FLOORS.items()
    }
    for key, reduce in (("min", np.min), ("max", np.max), ("mean", np.mean)):
        summary[key] = _finite(float(reduce(values))) if len(values) else None
    return summary | {"count": count, "failed": int(np.count_nonzero(np.isinf(per_request)))}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _between(start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> Floats:
    """Seconds from one column of stamps to the other; nan where either is missing."""
    return np.where((start_ns > 0) & (end_ns > 0), (end_ns - start_ns) / 1e9, np.nan)


def _tpot(record: RoundRecord) -> Floats:
    requests = record.requests
    later_tokens = (requests.tokens - requests.first_tokens).astype(np.float64)
    later_tokens[later_tokens <= 0] = np.nan
    return _between(requests.first_ns, requests.last_ns) / later_tokens


def _lateness(record: RoundRecord) -> Floats:
    index, chunks = record.requests.index, record.chunks
    known = (chunks.read_ns > 0) & np.isin(chunks.request, index)
    order = np.argsort(index)
    rows = order[np.searchsorted(index, chunks.request[known], sorter=order)]
    worst_s = np.full(len(index), np.nan)
    np.fmax.at(worst_s, rows, (chunks.read_ns - chunks.stamp_ns)[known] / 1e9)
    return worst_s


def _rate_per_user(record: RoundRecord) -> Floats:
    tpot_s = _tpot(record)
    tpot_s[tpot_s <= 0] = np.nan  # everything in one instant: no rate to speak of
    return 1 / tpot_s


_PER_REQUEST: Mapping[str, Callable[[RoundRecord], Floats]] = {
    "ttft": lambda record: _between(record.requests.intended_ns, record.requests.first_ns),
    "service_ttft": lambda record: _between(record.requests.sent_ns, record.requests.first_ns),
    "slip": lambda record: _between(record.requests.intended_ns, record.requests.sent_ns),
    "lateness": _lateness,
    "tpot": _tpot,
    "itl": _tpot,  # a request has an ITL exactly when it has a TPOT: this one counts requests
    "e2e_latency": lambda record: _between(record.requests.intended_ns, record.requests.last_ns),
    "tokens_per_s_per_user": _rate_per_user,
}


def _met_slos(record: RoundRecord, limits: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which requests completed within every limit; a request without a value (one chunk: no TPOT) cannot miss it."""
    met = record.requests.ok
    for name, limit_s in limits.items():
        values = request_values(name, record)
        met = met & ((values <= limit_s) | np.isnan(values))
    return met


def _rate(rounds: Sequence[RoundRecord], total: float) -> float | None:
    window_s = sum(record.window_s for record in rounds)
    return total / window_s if window_s > 0 else None


def _completed_rate(rounds: Sequence[RoundRecord], weigh: Callable[[RoundRecord], NDArray[Any]]) -> float | None:
    """Σ weight of completed requests / Σ window; None when nothing completed."""
    if not any(record.requests.ok.any() for record in rounds):
        return None
    return _rate(rounds, float(sum(np.sum(weigh(record)[record.requests.ok], dtype=np.int64) for record in rounds)))


def _attainment(rounds: Sequence[RoundRecord], terms: _Terms) -> float | None:
    parts = [counted(record, terms.trim) for record in rounds]
    asked = sum(len(part.requests) for part in parts)
    return float(sum(np.sum(_met_slos(part, terms.limits_s)) for part in parts) / asked) if asked else None


def _steady_rate(
    rounds: Sequence[RoundRecord], terms: _Terms, amount: Callable[[RoundRecord, int, int], int]
) -> float | None:
    """Σ amount in the steady windows / Σ their lengths; None when there is none."""
    windows = [(record, steady_window_ns(record, terms.trim)) for record in rounds]
    known = [(record, *window) for record, window in windows if window]
    length_s = sum(end_ns - start_ns for _, start_ns, end_ns in known) / 1e9
    return sum(amount(*each) for each in known) / length_s if known else None


def _tokens_between(record: RoundRecord, start_ns: int, end_ns: int) -> int:
    stamps = record.chunks.stamp_ns
    return int(np.sum(record.chunks.tokens[(stamps > start_ns) & (stamps <= end_ns)]))


def _ends_between(record: RoundRecord, start_ns: int, end_ns: int) -> int:
    return int(np.count_nonzero((record.requests.last_ns > start_ns) & (record.requests.last_ns <= end_ns)))


_SCALARS: Mapping[str, Callable[[Sequence[RoundRecord], _Terms], float | None]] = {
    "output_tokens_per_s": lambda rounds, _: _completed_rate(rounds, lambda record: record.requests.tokens),
    "total_tokens_per_s": lambda rounds, _: _completed_rate(
        rounds, lambda record: record.requests.tokens + record.requests.prompt_tokens
    ),
    "requests_per_s": lambda rounds, _: _completed_rate(
        rounds, lambda record: np.ones(len(record.requests), dtype=np.int64)
    ),
    "steady_output_tokens_per_s": lambda rounds, terms: _steady_rate(rounds, terms, _tokens_between),
    "steady_requests_per_s": lambda rounds, terms: _steady_rate(rounds, terms, _ends_between),
    "goodput": lambda rounds, terms: _rate(
        rounds, float(sum(np.sum(_met_slos(record, terms.limits_s)) for record in rounds))
    ),
    "slo_attainment": _attainment,
}
