"""A cell of any size as a few thousand numbers: quantiles, values over time, and a choice of requests.

Reads the stored tables a part at a time, so that memory does not grow with the arrivals. Per-request metrics are those
of ``measure.metrics``, exactly; gaps between arrivals are binned to within 0.02%. Knows seconds alone, and no looks.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enginebench.measure.engine_record import waits_by_request
from enginebench.measure.metrics import request_values
from enginebench.measure.records import RoundRecord, Stamps
from enginebench.measure.windows import counted
from enginebench.plan.load import Trim
from enginebench.report.gaps import Flags, Gaps, RoundPass, TokensOverTime
from enginebench.report.over_time import TimeBins, bin_edges_s, time_bins
from enginebench.report.quantiles import Quantiles, of_values
from enginebench.store import Run

__all__ = ["CellAggregates", "Quantiles", "RequestRow", "TimeBins", "cell_aggregates", "request_curves"]

SLOWEST = 8
SAMPLED = 12
STALL_FACTOR = 5
"""A gap of so many medians is a stall."""
MAX_STALLS = 20
"""Of a request, the longest."""

_PER_REQUEST = ("ttft", "tpot", "e2e_latency")


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request of a measured round; offsets are from the moment at which the load wanted it to leave."""

    round_index: int
    request: int
    prompt_tokens: int
    tokens: int  # -1 unknown
    outcome: str
    slow: bool  # among the slowest; otherwise of the seeded sample
    intended_s: float  # since the start of the first measured round
    sent_s: float | None
    scheduled_s: float | None  # when the engine took it up; None: it does not tell
    first_s: float | None
    last_s: float | None
    stalls_s: tuple[tuple[float, float], ...]  # (start, end) of gaps between arrivals above CellAggregates.stall_s


@dataclass(frozen=True, slots=True, eq=False)
class CellAggregates:
    """What a page shows of the requests and arrivals of a cell.

    ``quantiles`` by metric: ttft, tpot, itl, e2e_latency, and chunk_gap (between arrivals of completed requests,
    whatever they carried). A metric is absent where the path or the mode has none. ``requests`` and ``failed`` are of
    the measured rounds; like the metrics of run.json, quantiles leave out what the scenario trims.
    """

    cell_id: str
    start_ns: int  # zero of all times here, CLOCK_MONOTONIC
    warmups_s: tuple[tuple[float, float], ...]  # (start, end) of each row of warm-up rounds
    requests: int
    failed: int
    arrivals: int  # of all rounds
    quantiles: Mapping[str, Quantiles]
    bins: TimeBins
    rows: Sequence[RequestRow]  # by intended time: the SLOWEST completed ones, and a seeded sample of SAMPLED others
    stall_s: float | None  # the gap from which on an arrival was stalled: 5 medians; None without gaps


def cell_aggregates(run: Run, cell_id: str) -> CellAggregates | None:
    """Sum up the requests and arrivals of a measured cell; None when it left no records or no round is valid.

    Raises:
        RunError: the stored tables cannot be read.
    """
    if run.cells.get(cell_id, {}).get("status") != "measured":
        return None
    records = run.requests(cell_id)
    measured = [record for record in records if not record.warmup and record.valid and len(record.requests)]
    return _Cell(run, cell_id, records, measured).aggregates() if measured else None


def request_curves(run: Run, cell_id: str) -> Mapping[str, Quantiles]:
    """The quantiles of what each request of a cell has, by metric: ttft, tpot, e2e_latency. Reads no arrival.

    Raises:
        RunError: the stored table cannot be read.
    """
    cell = run.cells.get(cell_id, {})
    if cell.get("status") != "measured":
        return {}
    records = [record for record in run.requests(cell_id) if not record.warmup and record.valid]
    parts = [counted(record, _trim(run, cell["scenario"])) for record in records if len(record.requests)]
    names = [name for name in _PER_REQUEST if name in cell["metrics"] and parts]
    curves = {name: of_values(np.concatenate([request_values(name, part) for part in parts])) for name in names}
    return {name: curve for name, curve in curves.items() if curve is not None}


class _Cell:
    """One cell while it is summed up. ``measured``: the rounds that count."""

    def __init__(self, run: Run, cell_id: str, records: Sequence[RoundRecord], measured: Sequence[RoundRecord]):
        self._run = run
        self._id = cell_id
        self._all = records
        self._measured = measured
        self._start_ns = measured[0].started_ns
        self._trim = _trim(run, run.cells[cell_id]["scenario"])
        self._metrics = run.cells[cell_id]["metrics"]
        self._counted = [counted(record, self._trim) for record in measured]
        self._chosen = _choice(measured, cell_id)
        self._passes: dict[int, RoundPass] = {}
        self._arrivals = 0

    def aggregates(self) -> CellAggregates:
        valid = [record for record in self._all if record.valid]
        edges_s = bin_edges_s(valid, self._start_ns)
        tokens = TokensOverTime(edges_s * 1e9 + self._start_ns)
        gaps = self._read(tokens)
        chunk_gap = gaps.chunk_gap.quantiles(requests=self._requests_with_gaps(), failed=0, infinite=0)
        stall_s = None if chunk_gap is None else chunk_gap.at(0.5) * STALL_FACTOR
        curves = {name: self._per_request(name) for name in _PER_REQUEST} | {"itl": self._itl(gaps)}
        quantiles = {name: curve for name, curve in (curves | {"chunk_gap": chunk_gap}).items() if curve}
        return CellAggregates(
            cell_id=self._id,
            start_ns=self._start_ns,
            warmups_s=_warmups_s(self._all, self._start_ns),
            requests=sum(len(record.requests) for record in self._measured),
            failed=sum(int((~record.requests.ok).sum()) for record in self._measured),
            arrivals=self._arrivals,
            quantiles=quantiles,
            bins=time_bins(valid, edges_s, self._start_ns, tokens.counts, [n for n in _PER_REQUEST if n in quantiles]),
            rows=sorted(self._rows(stall_s), key=lambda row: row.intended_s),
            stall_s=stall_s,
        )

    def _read(self, tokens: TokensOverTime) -> Gaps:
        """The one pass over all arrivals."""
        gaps = Gaps()
        places = {id(record): place for place, record in enumerate(self._all)}
        for record, part, (slow, sample) in zip(self._measured, self._counted, self._chosen, strict=True):
            mask = np.isin(record.requests.index, part.requests.index) & record.requests.ok
            self._passes[places[id(record)]] = RoundPass(record, mask, slow | sample)
        for arrivals in self._run.arrivals(self._id):
            self._arrivals += len(arrivals.request)
            if not self._all[arrivals.place].valid:
                continue
            tokens.add(arrivals)
            if arrivals.place in self._passes:
                self._passes[arrivals.place].add(arrivals, gaps)
        return gaps

    def _per_request(self, name: str) -> Quantiles | None:
        if name not in self._metrics:
            return None
        return of_values(np.concatenate([request_values(name, part) for part in self._counted]))

    def _itl(self, gaps: Gaps) -> Quantiles | None:
        if "itl" not in self._metrics or not gaps.tokens_known:
            return None
        values = np.concatenate([request_values("itl", part) for part in self._counted])
        missing = [part.requests.requested_tokens[~part.requests.ok] - 1 for part in self._counted]
        return gaps.itl.quantiles(
            requests=int(np.count_nonzero(~np.isnan(values))),
            failed=int(np.count_nonzero(np.isinf(values))),
            infinite=int(sum(np.maximum(tokens, 1).sum() for tokens in missing)),  # as in measure.metrics
        )

    def _requests_with_gaps(self) -> int:
        return sum(int(np.count_nonzero(part.requests.ok)) for part in self._counted)

    def _rows(self, stall_s: float | None) -> Iterator[RequestRow]:
        observed = self._run.observed(self._run.cells[self._id]["path"], {each.started_ns for each in self._measured})
        for record, passed, (slow, sample) in zip(self._measured, self._passes.values(), self._chosen, strict=True):
            waits_s = waits_by_request(observed.get(record.started_ns, {}))
            for row in np.flatnonzero(slow | sample):
                stalls_ns = _stalls_ns(passed.stamps_of(int(row)), stall_s)
                wait_s = waits_s.get(int(record.requests.index[row]))
                yield _row(record, int(row), bool(slow[row]), self._start_ns, stalls_ns, wait_s)


def _choice(records: Sequence[RoundRecord], cell_id: str) -> list[tuple[Flags, Flags]]:
    """Which requests of each round are shown: among the slowest completed ones, and in the sample of all others."""
    latency_s = np.concatenate([request_values("e2e_latency", record) for record in records])
    completed = np.flatnonzero(np.isfinite(latency_s))
    slow = np.zeros(len(latency_s), dtype=bool)
    slow[completed[np.argsort(-latency_s[completed], kind="stable")[:SLOWEST]]] = True
    others = np.flatnonzero(~slow)
    rng = np.random.default_rng(zlib.crc32(cell_id.encode()))  # the same choice whenever the page is written
    sample = np.zeros(len(latency_s), dtype=bool)
    sample[rng.choice(others, min(SAMPLED, len(others)), replace=False)] = True
    ends = np.cumsum([len(record.requests) for record in records])[:-1]
    return list(zip(np.split(slow, ends), np.split(sample, ends), strict=True))


def _row(
    record: RoundRecord,
    row: int,
    slow: bool,
    start_ns: int,
    stalls_ns: Sequence[tuple[int, int]],
    wait_s: float | None,
) -> RequestRow:
    requests = record.requests
    intended_ns = int(requests.intended_ns[row]) or record.started_ns

    def offset_s(stamps: Stamps) -> float | None:
        return float(stamps[row] - intended_ns) / 1e9 if stamps[row] > 0 else None

    sent_s = offset_s(requests.sent_ns)
    return RequestRow(
        round_index=record.round_index,
        request=int(requests.index[row]),
        prompt_tokens=int(requests.prompt_tokens[row]),
        tokens=int(requests.tokens[row]),
        outcome=requests.outcome[row],
        slow=slow,
        intended_s=(intended_ns - start_ns) / 1e9,
        sent_s=sent_s,
        scheduled_s=None if sent_s is None or wait_s is None else sent_s + wait_s,
        first_s=offset_s(requests.first_ns),
        last_s=offset_s(requests.last_ns),
        stalls_s=tuple(((start - intended_ns) / 1e9, (end - intended_ns) / 1e9) for start, end in stalls_ns),
    )


def _stalls_ns(stamps: Stamps, stall_s: float | None) -> list[tuple[int, int]]:
    """The longest gaps of at least ``stall_s``, in their order."""
    if stall_s is None or len(stamps) < 2:
        return []
    gaps_ns = np.diff(stamps)
    longest = np.argsort(-gaps_ns, kind="stable")[:MAX_STALLS]
    return [
        (int(stamps[place]), int(stamps[place + 1])) for place in sorted(longest) if gaps_ns[place] >= stall_s * 1e9
    ]


def _warmups_s(records: Sequence[RoundRecord], start_ns: int) -> tuple[tuple[float, float], ...]:
    spans: list[tuple[float, float]] = []
    before = False
    for record in records:
        if record.warmup:
            span = ((record.started_ns - start_ns) / 1e9, (record.ended_ns - start_ns) / 1e9)
            spans[len(spans) - before :] = [(spans[-1][0], span[1]) if before else span]
        before = record.warmup
    return tuple(spans)


def _trim(run: Run, scenario: str) -> Trim:
    keys = run.data["plan"]["scenarios"].get(scenario, {}).get("trim") or {}
    names = {"warmup_s": "warmup_s", "cooldown_s": "cooldown_s", "warmup": "warmup_share", "cooldown": "cooldown_share"}
    return Trim(**{names[key]: float(value) for key, value in keys.items() if key in names})
