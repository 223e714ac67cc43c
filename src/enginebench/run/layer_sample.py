"""Where the time of a server path's requests goes: one more round of a cell, observed, after its measured rounds.

Tracing and perf metrics cost time, so they are on for this round alone; it is stored with no other, and no metric has
it. Where neither is offered, Triton's statistics of the measured rounds say what they can.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from enginebench.errors import EnginebenchError, ServerError
from enginebench.measure.layers import (
    ClientTimes,
    EngineTimes,
    Waterfall,
    engine_times,
    from_statistics,
    from_traces,
)
from enginebench.measure.records import RoundRecord
from enginebench.plan.load import Batch, Concurrency, Load
from enginebench.run.server_numbers import CellNumbers
from enginebench.server.tracing import Span, Tracer

FEWEST_REQUESTS, MOST_REQUESTS = 4, 64
ROUND_INDEX = -1001  # far from warm-ups: its prompts are those of no other round

CORE = "tensorrt_llm"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the observed round left."""

    record: RoundRecord | None = None
    spans: Sequence[Span] = ()
    engine: EngineTimes | None = None
    why_not_traced: str | None = None

    @property
    def told(self) -> RoundRecord | None:
        """The round, where anything tells of its requests; None: nothing does."""
        return self.record if self.spans or self.engine else None


def sample_load(load: Load) -> tuple[Load, int]:
    """The load of the observed round, and at most how many requests: enough to be at that load, and no more."""
    if isinstance(load, Batch):
        return load, load.size * -(-FEWEST_REQUESTS // load.size)
    if isinstance(load, Concurrency):
        most = max(load.level, MOST_REQUESTS)
        return replace(load, duration_s=None), min(max(2 * load.level, FEWEST_REQUESTS), most)
    return load, MOST_REQUESTS


def observe(tracer: Tracer | None, run_round: Callable[[], tuple[RoundRecord, Mapping[str, Any]]]) -> Sample:
    """Run a round while the server, or each of several, is asked for everything that it can tell of it.

    ``tracer``: of a server of our own. ``run_round`` returns its record, and what the engine recorded of it, of which
    ``perf_metrics`` count.

    Raises:
        EnginebenchError: the round broke.
    """
    why = None if tracer else "only a server of our own is traced"
    with ExitStack() as stack:
        if tracer:
            try:
                stack.enter_context(tracer.on())
            except ServerError as error:
                why = str(error)
        record, recorded = run_round()
    spans: Sequence[Span] = ()
    if tracer and why is None:
        try:
            spans = tracer.take(len(record.requests))
        except ServerError as error:
            why = str(error)
    return Sample(record, spans, engine_times(recorded.get("perf_metrics", ())), why)


def layers_of(sample: Sample, measured: Sequence[RoundRecord], numbers: CellNumbers) -> dict[str, Any]:
    """The ``layers`` of a cell in run.json: the parts of the time to the first token and to the last."""
    streaming = all(record.streaming for record in measured)
    client = client_times(measured)
    told = sample.told
    seen = client if told is None else client_times([told])
    waterfalls: dict[str, Waterfall | None] = {"first": None, "whole": None}
    for name in ("first", "whole") if streaming else ("whole",):
        whole = name == "whole"
        measured_s = client.last_s if whole else client.first_s
        if sample.spans:
            found = from_traces(seen, sample.spans, sample.engine, whole=whole, measured_s=measured_s)
        else:
            alone = numbers.model == CORE
            found = from_statistics(
                seen, numbers.counts, sample.engine, core=CORE, alone=alone, whole=whole, measured_s=measured_s
            )
        waterfalls[name] = found
    return {
        **{name: found.as_json() if found else None for name, found in waterfalls.items()},
        "requests": 0 if told is None else len(told.requests),
        "servers": numbers.servers,
        "traced": bool(sample.spans),
        "perf_metrics": sample.engine is not None,
        "why_not_traced": sample.why_not_traced,
    }


def client_times(records: Sequence[RoundRecord]) -> ClientTimes:
    """Means over the requests of ``records`` that ended well."""
    rows = [(record.requests, record.requests.ok) for record in records]
    count = sum(int(ok.sum()) for _, ok in rows)
    base = int(rows[0][0].intended_ns[0])
    intended = sum(float((table.intended_ns[ok] - base).sum()) for table, ok in rows) / count
    last = sum(float((table.last_ns - table.intended_ns)[ok].sum()) for table, ok in rows) / count
    first = sum(float((table.first_ns - table.intended_ns)[ok].sum()) for table, ok in rows) / count
    streaming = all(record.streaming for record in records)
    return ClientTimes(base + intended, first / 1e9 if streaming else None, last / 1e9)


def not_observed(error: EnginebenchError | str) -> Sample:
    """No round was observed."""
    return Sample(why_not_traced=str(error))
