"""Where the time of a request goes: its parts from the client to the engine and back, from whatever tells of them.

Pure: stamps, spans and counters in, parts out. Parts are means over requests, since means can be added up. What no
source separates is one part with several layers, and what no source explains is the residual, which is always there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from enginebench.server.statistics import ModelCounts
from enginebench.server.tracing import Span

LAYERS = ("client", "http_queue", "preprocessing", "slot", "prefill", "decode", "postprocessing")
"""In the order in which a request passes them: client and network, HTTP and the queue before the core, preprocessing,
waiting for a batch slot, prefill, decode, postprocessing. Pre- and postprocessing are with their own queues."""

_CLOCK_SLACK_S = 0.0005  # stamps of two processes on one host: what was first may be written later

PREPROCESSING, POSTPROCESSING = "preprocessing", "postprocessing"

TRACE = "trace"
PERF = "perf metrics"
STAMPS = "our stamps"
STATISTICS = "Triton's statistics"


@dataclass(frozen=True, slots=True)
class Part:
    """Time in one layer, or in several that nothing separates."""

    layers: tuple[str, ...]
    s: float
    source: str


@dataclass(frozen=True, slots=True)
class Waterfall:
    """How a time is made up, seconds a request. ``with_residual``: layers that nothing tells from what is unexplained.

    ``total_s`` is of the requests that the parts were taken from, ``measured_s`` of the measured rounds.
    """

    total_s: float
    measured_s: float | None
    parts: tuple[Part, ...]
    with_residual: tuple[str, ...] = ()

    @property
    def residual_s(self) -> float:
        """What no part explains; below zero where parts overlap."""
        return self.total_s - sum(part.s for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        return {
            "total_s": self.total_s,
            "measured_s": self.measured_s,
            "parts": [{"layers": list(part.layers), "s": part.s, "source": part.source} for part in self.parts],
            "residual_s": self.residual_s,
            "with_residual": list(self.with_residual),
        }


@dataclass(frozen=True, slots=True)
class ClientTimes:
    """Means over requests, seconds from when each was to leave. ``first_s``: None without streaming."""

    intended_ns: float  # mean stamp
    first_s: float | None
    last_s: float


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Means over requests of what the engine itself recorded, seconds; ``arrival_ns`` is a stamp of its own clock."""

    slot_s: float
    prefill_s: float
    decode_s: float
    arrival_ns: float = 0.0

    def token_ns(self, *, last: bool) -> float:
        """Mean stamp of the last token, or of the first one."""
        return self.arrival_ns + (self.slot_s + self.prefill_s + (self.decode_s if last else 0.0)) * 1e9


def engine_times(recorded: Sequence[Mapping[str, int]]) -> EngineTimes | None:
    """From perf metrics, a mapping a request; None where any lacks a stamp. Their clock is one of its own."""
    names = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")
    if not recorded or not all(each.get(name) for each in recorded for name in names):
        return None
    stamps = np.array([[each[name] for name in names] for each in recorded], dtype=np.int64)
    slot, prefill, decode = (float(mean) / 1e9 for mean in np.diff(stamps, axis=1).mean(axis=0))
    base = int(stamps[0, 0])
    return EngineTimes(slot, prefill, decode, base + float((stamps[:, 0] - base).mean()))


def from_traces(
    client: ClientTimes, spans: Sequence[Span], engine: EngineTimes | None, *, whole: bool, measured_s: float | None
) -> Waterfall:
    """The parts of the time to the last token (``whole``), or to the first, of requests that were traced.

    ``spans``: the same requests, in any order; of a server on the client's host, whose clock is the client's.
    """
    start_ns, total_s = client.intended_ns, client.last_s if whole or client.first_s is None else client.first_s
    path = [_boundaries(span, whole=whole) for span in spans]
    at = {name: _mean_s([each[name] for each in path], start_ns) for name in path[0] if all(name in e for e in path)}
    parts = [Part(("client",), at["received"] + total_s - at["answered"], f"{STAMPS}, {TRACE}")]
    if "core" in at:
        serial = any("COMPUTE_START" in span.stamps_ns and span.children for span in spans)
        source = _emitted(at, start_ns, engine, whole=whole) if serial else TRACE
        parts += _around_the_core(at) + _in_the_core(at, engine, source, whole=whole)
        return Waterfall(total_s, measured_s, tuple(parts))
    inside_s = at["answered"] - at["received"]
    known = _engine_parts(engine, 0.0, 0.0, whole=whole) if engine else []
    rest = tuple(layer for layer in LAYERS[1:] if not any(layer in part.layers for part in known))
    rest = rest if whole else tuple(layer for layer in rest if layer != "decode")
    parts += [Part(rest, inside_s - sum(part.s for part in known), f"{TRACE}, less {PERF}" if known else TRACE), *known]
    return Waterfall(total_s, measured_s, tuple(parts))


def from_statistics(
    client: ClientTimes,
    counts: Mapping[str, ModelCounts],
    engine: EngineTimes | None,
    *,
    core: str,
    alone: bool = False,
    whole: bool,
    measured_s: float | None,
) -> Waterfall:
    """The same without traces: what Triton counted in the measured rounds, and the engine's own record where it is.

    ``client``: of the requests that the engine recorded, which weigh most; without a record of the measured rounds.
    ``core``: the name of the model that runs the engine; ``alone``: requests went to it and to no other. Client,
    network and HTTP cannot be told from the rest.
    """
    total_s = client.last_s if whole or client.first_s is None else client.first_s
    parts = []
    before, after = counts.get(PREPROCESSING), counts.get(POSTPROCESSING)
    queued = counts.get(core)
    if before and before.requests:
        parts.append(Part(("preprocessing",), (before.queue_s + before.compute_s) / before.requests, STATISTICS))
    if engine:
        parts += _engine_parts(engine, 0.0, 0.0, whole=whole)
    elif whole and client.first_s is not None:
        parts.append(Part(("decode",), client.last_s - client.first_s, STAMPS))
    if after and after.requests:
        parts.append(Part(("postprocessing",), (after.queue_s + after.compute_s) / after.requests, STATISTICS))
    if queued and queued.requests:
        parts.insert(0, Part(("http_queue",), queued.queue_s / queued.requests, STATISTICS))
    known = {layer for part in parts for layer in part.layers}
    absent = {PREPROCESSING, POSTPROCESSING} if alone else set()
    absent |= set() if whole else {"decode"}
    known -= {"http_queue"}  # of which statistics tell the queue alone
    return Waterfall(total_s, measured_s, tuple(parts), tuple(each for each in LAYERS if each not in known | absent))


def in_process(cell: Mapping[str, Any]) -> dict[str, Waterfall]:
    """Of a cell of run.json whose engine runs in the client's own process: ``whole`` and, with streaming, ``first``.

    By the engine's own stamps where all requests have them, else by the client's.
    """
    means = {name: metric["summary"].get("mean") for name, metric in cell["metrics"].items()}
    first_s, last_s = means.get("ttft") if cell["streaming"] else None, means.get("e2e_latency")
    if last_s is None:
        return {}
    engine = cell.get("engine") or {}
    if not engine.get("told") or engine["told"] < engine["requests"]:
        engine = {}
    return {
        end: from_engine(first_s, last_s, means.get("slip"), engine, whole=end == "whole")
        if engine
        else from_stamps(first_s, last_s, whole=end == "whole")
        for end in (("whole",) if first_s is None else ("first", "whole"))
    }


def from_engine(
    first_s: float | None, last_s: float, slip_s: float | None, engine: Mapping[str, Any], *, whole: bool
) -> Waterfall:
    """Of an engine in the client's own process, by what it recorded of its requests, see ``engine_record``.

    ``slip_s``: the client's own delay. What the engine does not tell stays with the residual.
    """
    total_s = last_s if whole or first_s is None else first_s
    steps = {"slot": "queue", "prefill": "prefill"} | ({"decode": "decode"} if whole else {})
    known = {layer: engine[step]["mean"] for layer, step in steps.items() if engine[step]}
    parts = [Part((layer,), s, engine["source"]) for layer, s in known.items()]
    if slip_s is not None:
        parts.insert(0, Part(("client",), slip_s, STAMPS))
    return Waterfall(total_s, total_s, tuple(parts), tuple(layer for layer in steps if layer not in known))


def from_stamps(first_s: float | None, last_s: float, *, whole: bool) -> Waterfall:
    """Of an engine in the client's own process, by the client's stamps alone."""
    if first_s is None:
        return Waterfall(last_s, last_s, (Part(("slot", "prefill", "decode"), last_s, STAMPS),))
    wait = Part(("slot", "prefill"), first_s, STAMPS)
    if not whole:
        return Waterfall(first_s, first_s, (wait,))
    return Waterfall(last_s, last_s, (wait, Part(("decode",), last_s - first_s, STAMPS)))


def _around_the_core(at: Mapping[str, float]) -> list[Part]:
    """HTTP and queues, and preprocessing where there is a model for it."""
    if "pre" not in at:
        return [Part(("http_queue",), at["core"] - at["received"], TRACE)]
    queued_s = at["pre"] - at["received"] + at["core"] - at["pre_answered"]  # preprocessing's own queue is its own
    return [
        Part(("http_queue",), queued_s, TRACE),
        Part(("preprocessing",), at["pre_answered"] - at["pre"], TRACE),
    ]


def _emitted(at: dict[str, float], start_ns: float, engine: EngineTimes | None, *, whole: bool) -> str | None:
    """When a model that handles token after token got the last one, put into ``at``; the source, None: unknown.

    As BLS does: a token waits for those before it, so that its postprocessing starts later than the core sent it. The
    engine's own stamp tells, when its clock is the trace's, as on one host: what it records then lies where it must.
    """
    if not whole:
        return TRACE
    if engine is None:
        return None
    arrival_s = (engine.arrival_ns - start_ns) / 1e9
    if not at["core"] - _CLOCK_SLACK_S <= arrival_s <= at["emitted_first"]:
        return None
    at["emitted"] = (engine.token_ns(last=True) - start_ns) / 1e9
    return f"{TRACE}, {PERF}"


def _in_the_core(at: Mapping[str, float], engine: EngineTimes | None, source: str | None, *, whole: bool) -> list[Part]:
    """From when the core took a request to the answer; ``source``: of when it sent the token, None: not known."""
    if source is None:
        first = _engine_parts(engine, at["emitted_first"] - at["core"], 0.0, whole=False)
        if engine is not None:
            first.append(Part(("decode",), engine.decode_s, PERF))
            rest_s = at["answered"] - at["core"] - sum(part.s for part in first)
            return [*first, Part(("postprocessing",), rest_s, f"{TRACE}, less {PERF}")]
        return [*first, Part(("decode", "postprocessing"), at["answered"] - at["emitted_first"], TRACE)]
    parts = _engine_parts(engine, at["emitted"] - at["core"], at["emitted"] - at["emitted_first"], whole=whole)
    if "post" in at:
        parts.append(Part(("postprocessing",), at["answered"] - at["emitted"], source))
    return parts


def _engine_parts(engine: EngineTimes | None, inside_s: float, decode_s: float, *, whole: bool) -> list[Part]:
    """Of the engine's own record, or of the time inside of the core and from its first answer to its last."""
    if engine is not None:
        parts = [Part(("slot",), engine.slot_s, PERF), Part(("prefill",), engine.prefill_s, PERF)]
        return [*parts, Part(("decode",), engine.decode_s, PERF)] if whole else parts
    if not whole:
        return [Part(("slot", "prefill"), inside_s, TRACE)]
    if not decode_s:
        return [Part(("slot", "prefill", "decode"), inside_s, TRACE)]
    return [Part(("slot", "prefill"), inside_s - decode_s, TRACE), Part(("decode",), decode_s, TRACE)]


def _boundaries(span: Span, *, whole: bool) -> dict[str, int]:
    """Stamps between the layers of one request, ns; those that the trace does not show are left out."""
    place = -1 if whole else 0
    found = {"received": span.first_ns("HTTP_RECV_START") or span.first_ns("REQUEST_START") or 0}
    posts = span.all_of(POSTPROCESSING)
    answers = sorted(span.stamps_ns.get("INFER_RESPONSE_COMPLETE", ()))
    if posts:
        answers = answers[: len(posts)]  # after them a flag alone may come
    found["answered"] = answers[place] if answers else span.first_ns("REQUEST_END") or found["received"]
    core = _core(span)
    if core is None or core.first_ns("COMPUTE_START") is None:
        return found
    found["core"] = core.first_ns("COMPUTE_START") or 0
    emitted = [post.first_ns("REQUEST_START") or 0 for post in posts] or answers
    if not emitted:
        return {name: found[name] for name in ("received", "answered")}
    found |= {"emitted": emitted[place], "emitted_first": emitted[0]}
    if posts:
        found["post"] = emitted[place]
    if before := span.all_of(PREPROCESSING):
        found |= {"pre": before[0].first_ns("REQUEST_START") or 0, "pre_answered": core.first_ns("REQUEST_START") or 0}
    return found


def _core(span: Span) -> Span | None:
    """The span of the model that runs the engine: itself without any below it; None: what is below cannot be seen."""
    others = [each for each in span.children if each.model not in (PREPROCESSING, POSTPROCESSING)]
    if others:
        return others[0]
    return None if span.model in ("ensemble", "tensorrt_llm_bls") or span.children else span


def _mean_s(stamps_ns: Sequence[int], start_ns: float) -> float:
    """Relative to the first one, so that nothing is lost to floating point."""
    base = min(stamps_ns)
    return (float(np.mean([stamp - base for stamp in stamps_ns])) + (base - start_ns)) / 1e9
