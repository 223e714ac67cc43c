"""The client's own error: what it reported, held against what really happened. Pure: records in, numbers out.

Both sides go through the formulas of ``metrics``: the truth is made a record of its own, in which requests are intended
when they arrived at the server and tokens come when they left it. Drives nothing: that is ``calibrator``'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import SessionError
from enginebench.measure.metrics import nearest_rank, request_values, token_gaps_s
from enginebench.measure.records import RoundRecord, Stamps, columns
from enginebench.measure.truth import Truth
from enginebench.runtimes.null import TICK_NS

Floats = NDArray[np.float64]

STATISTICS = ("p50", "p90", "p95", "p99", "mean")
METRICS = ("ttft", "tpot", "itl", "e2e_latency")
"""What is calibrated; every rate follows from these."""

SUSTAINED = 0.95
"""A load is sustained when tokens came at this share of the rate asked for, at least."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One number, as it was and as the client reported it; seconds."""

    truth_s: float
    client_s: float

    @property
    def error_s(self) -> float:
        """Client − truth."""
        return self.client_s - self.truth_s

    @property
    def relative(self) -> float | None:
        """The error as a fraction of the truth; None when that is nothing."""
        return self.error_s / self.truth_s if self.truth_s else None


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a quantity over tokens or requests; seconds."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a round cost the client's process."""

    cpu_s_per_token: float  # while the round was under way
    decode_cpu_s_per_token: float  # after it
    cpu_share: float  # of one core, while the round was under way
    tokens_per_s: float  # over the wall time of the round


@dataclass(frozen=True, slots=True)
class Point:
    """The load at which the client is held against the truth."""

    streams: int
    gap_s: float  # between the tokens of a stream
    ttft_s: float
    tokens: int  # of a request
    requests: int
    kind: str = "concurrency"  # or batch
    together: bool = False  # all streams step at once, as in-flight batching does
    varied: bool = False  # answers are half to one and a half times as long, so that streams end one by one
    runtime: str = "triton_http"  # or null: in process


@dataclass(frozen=True, slots=True)
class Calibration:
    """The client's error at one load."""

    point: Point
    stamp_kind: str
    clock_stepped: bool
    errors: Mapping[str, Mapping[str, Pair]]  # metric → statistic → truth and client
    stamp_lateness: Spread  # of tokens: the client's stamp − when it left
    process_lateness: Spread | None  # of tokens: when the process had read it − the stamp; None: not recorded
    slip: Spread  # of requests: sent − intended
    server_lateness: Spread | None  # of tokens: left − due. The truth's, no error of the client's
    server_doubt: Spread | None  # of tokens: how long the call took in which it left
    cost: Cost
    sustained: float | None  # tokens per second and stream ÷ those of the script

    def error_s(self, metric: str, statistic: str = "p50") -> float | None:
        """Client − truth of one number; None where it was not calibrated."""
        pair = self.errors.get(metric, {}).get(statistic)
        return None if pair is None else pair.error_s

    @property
    def holds(self) -> bool:
        """Whether the load was reached: else the error is that of a lighter one."""
        return self.sustained is None or self.sustained >= SUSTAINED

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class TrueTimes:
    """What really happened, in the order of the record: requests by index, and the tokens of each in order."""

    arrived_ns: Stamps  # shape (requests,)
    tokens: Stamps  # shape (requests,)
    left_ns: Stamps  # shape (sum of tokens,)


def calibrate(record: RoundRecord, times: TrueTimes, point: Point, cost: Cost, truth: Truth | None) -> Calibration:
    """Hold a round against the truth."""
    client, stamps_ns, read_ns = _by_request(record)
    true = _true_record(client, times)
    slip_s = (client.requests.sent_ns - client.requests.intended_ns) / 1e9
    return Calibration(
        point=point,
        stamp_kind=record.stamp_kind,
        clock_stepped=record.clock_stepped or bool(truth and truth.clock_steps),
        errors={name: _compare(_VALUES[name](true), _VALUES[name](client)) for name in METRICS},
        stamp_lateness=spread((stamps_ns - times.left_ns) / 1e9),
        process_lateness=_process_lateness(stamps_ns, read_ns),
        slip=spread(slip_s),
        server_lateness=spread((truth.before_ns - truth.due_ns) / 1e9) if truth else None,
        server_doubt=spread((truth.after_ns - truth.before_ns) / 1e9) if truth else None,
        cost=cost,
        sustained=_sustained(true, point),
    )


def times_of_truth(record: RoundRecord, truth: Truth) -> TrueTimes:
    """Bring what a truth server told into the order of ``record``, and check that the client lost nothing.

    Raises:
        SessionError: the round was empty, a request failed, or its tokens are not those that left, in their order.
    """
    _check_complete(record)
    _, ids = _tokens_of(record)
    order = np.argsort(truth.key, kind="stable")
    if not np.array_equal(truth.key[order], np.sort(record.requests.index)):
        raise SessionError("The requests that reached the truth server are not those of the round: calibrate again.")
    counts = truth.tokens[order]
    if not np.array_equal(ids, _places(counts)):
        raise SessionError("The client lost, doubled or reordered tokens: its numbers cannot be trusted.")
    starts = (np.cumsum(truth.tokens) - truth.tokens)[order]
    rows = np.repeat(starts, counts) + _places(counts)
    return TrueTimes(truth.arrived_ns[order], counts, truth.left_ns[rows])


def times_of_null(record: RoundRecord) -> TrueTimes:
    """The truth that a record of the null runtime carries in its token ids. Raises SessionError as above."""
    _check_complete(record)
    _, ids = _tokens_of(record)
    requests = record.requests
    order = np.argsort(requests.index, kind="stable")
    counts, sent_ns = requests.tokens[order].astype(np.int64), requests.sent_ns[order]
    left_ns = np.repeat(sent_ns, counts) + ids.astype(np.int64) * TICK_NS
    first_of_request = _places(counts)[1:] == 0
    if len(left_ns) != len(ids) or not np.all((np.diff(left_ns) >= 0) | first_of_request):
        raise SessionError("The client lost or reordered tokens: its numbers cannot be trusted.")
    return TrueTimes(sent_ns, counts, left_ns)


def spread(values_s: Floats) -> Spread:
    """Median, p99 (nearest rank) and maximum. ``values_s``: not empty."""
    ordered = np.sort(values_s)
    return Spread(nearest_rank(ordered, 50), nearest_rank(ordered, 99), float(ordered[-1]))


def _check_complete(record: RoundRecord) -> None:
    requests = record.requests
    if not len(requests) or not len(record.chunks):
        raise SessionError("The calibration was empty: no token arrived.")
    if not requests.ok.all():
        row = int(np.flatnonzero(~requests.ok)[0])
        why = requests.error[row] or requests.outcome[row]
        raise SessionError(f"A request of the calibration failed ({why}): calibrate again.")


def _places(counts: Stamps) -> Stamps:
    """0, 1, … for each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _tokens_of(record: RoundRecord) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Request index and id of every token, by request; as they came within one."""
    chunks = record.chunks
    of_request = np.repeat(chunks.request, chunks.tokens)
    order = np.argsort(of_request, kind="stable")
    return of_request[order], chunks.token_ids[order]


def _by_request(record: RoundRecord) -> tuple[RoundRecord, Stamps, Stamps]:
    """The record with its requests by index; stamp and moment of reading of every token, by request."""
    requests, chunks = record.requests, record.chunks
    rows = np.argsort(requests.index, kind="stable")
    ordered: dict[str, Any] = {
        name: tuple(values[row] for row in rows) if isinstance(values, tuple) else values[rows]
        for name, values in columns(requests).items()
    }
    order = np.argsort(chunks.request, kind="stable")
    places = np.repeat(order, chunks.tokens[order])
    client = replace(record, requests=replace(requests, **ordered))
    return client, chunks.stamp_ns[places], chunks.read_ns[places]


def _process_lateness(stamps_ns: Stamps, read_ns: Stamps) -> Spread | None:
    known = read_ns > 0
    return spread((read_ns - stamps_ns)[known] / 1e9) if known.any() else None


def _true_record(client: RoundRecord, times: TrueTimes) -> RoundRecord:
    ends = np.cumsum(times.tokens)
    ones = np.ones(len(times.left_ns), dtype=np.int32)
    requests = replace(
        client.requests,
        intended_ns=times.arrived_ns,
        sent_ns=times.arrived_ns,
        first_ns=times.left_ns[ends - times.tokens],
        last_ns=times.left_ns[ends - 1],
        tokens=times.tokens.astype(np.int32),
        first_tokens=np.ones(len(times.tokens), dtype=np.int32),
    )
    chunks = replace(
        client.chunks,
        request=np.repeat(client.requests.index, times.tokens),
        stamp_ns=times.left_ns,
        read_ns=times.left_ns,
        tokens=ones,
        token_ids=ones,
    )
    return replace(client, requests=requests, chunks=chunks)


def _request_values(name: str) -> Callable[[RoundRecord], Floats]:
    return lambda record: request_values(name, record)


_VALUES: Mapping[str, Callable[[RoundRecord], Floats]] = {
    "ttft": _request_values("ttft"),
    "tpot": _request_values("tpot"),
    "itl": token_gaps_s,
    "e2e_latency": _request_values("e2e_latency"),
}


def _compare(true_s: Floats, client_s: Floats) -> dict[str, Pair]:
    true, client = (np.sort(values[np.isfinite(values)]) for values in (true_s, client_s))
    if not len(true) or not len(client):
        return {}
    return {name: Pair(_statistic(name, true), _statistic(name, client)) for name in STATISTICS}


def _statistic(name: str, ordered: Floats) -> float:
    return float(ordered.mean()) if name == "mean" else nearest_rank(ordered, int(name[1:]))


def _sustained(true: RoundRecord, point: Point) -> float | None:
    """The rate of the tokens of a stream against the script's: a server that cannot keep up lengthens every stream."""
    tpot_s = request_values("tpot", true)
    if not point.gap_s or not np.isfinite(tpot_s).any():
        return None
    # The first gap of the truth server's streams that are out of step is up to one longer.
    spare = 0.0 if point.together or point.runtime == "null" else 0.5 / max(1, point.tokens - 1)
    return float(point.gap_s * (1 + spare) / np.nanmean(tpot_s))
