"""From a slow token to what delayed it: the longest gaps between tokens of a round, each with a cause and its evidence.

A gap runs from one arrival of a request to the next, as the client had them in hand. Every suspect says how much of the
gap it explains, in seconds of the engine's own steps; the one that explains most is named, if that is at least half of
what the gap has more than the typical one. Otherwise the cause is unknown, and the evidence says what was seen. Pure.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import UNKNOWN, RoundRecord
from enginebench.profile.iterations import Iterations

MOST = 10
LOOKED_AT = 320
"""Of the longest gaps: those of all requests that waited for one step are one."""
ORDINARY = 1.5
"""Up to this multiple of the median a gap is one like the others."""
EXPLAINED = 0.5
"""The share of the excess that a cause must explain to be named."""
CLOCK_DROP = 0.9
"""Of the round's median SM clock: below it the clock has dropped."""
FULL = 0.98
"""Of the KV blocks: above it the cache is full."""

CLIENT, PREFILL, EVICTION, PAUSED, QUEUED, CLOCK, HOST = (
    "the client was late",
    "a prefill shared the step",
    "KV blocks were evicted",
    "the request was paused",
    "the request waited its turn",
    "the clock dropped",
    "the engine computed nothing",
)
ORDINARY_GAP, UNEXPLAINED = "no longer than usual", "unexplained"


@dataclass(frozen=True, slots=True)
class Gap:
    """One gap. ``explained_s``: what the cause explains of it; None where that is not known.

    ``others``: the requests that waited for the same step, for the same cause, with a gap among the longest.
    """

    request: int
    start_ns: int
    end_ns: int
    tokens: int  # that ended it
    cause: str
    explained_s: float | None
    evidence: str
    others: tuple[int, ...] = ()

    @property
    def s(self) -> float:
        """How long it lasted."""
        return (self.end_ns - self.start_ns) / 1e9

    def as_json(self) -> dict[str, Any]:
        """As it stands in profile.json."""
        return {**asdict(self), "s": self.s}


@dataclass(frozen=True, slots=True)
class _Suspect:
    cause: str
    explained_s: float
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """A gap with the steps that overlap it: ``rows`` of the iterations, and seconds of each inside of the gap."""

    record: RoundRecord
    iterations: Iterations
    gpu: Mapping[str, NDArray[Any]]
    request: int
    start_ns: int
    end_ns: int
    tokens: int
    late_s: float  # what the client took longer over the end of the gap than over its start
    usual_s: float  # the median gap a token, times the tokens
    step_s: float  # a typical step without a prompt; NaN: unknown
    rows: NDArray[np.intp]
    inside_s: NDArray[np.float64]

    @property
    def excess_s(self) -> float:
        """What it has more than the typical gap."""
        return (self.end_ns - self.start_ns) / 1e9 - self.usual_s

    @property
    def step(self) -> int | None:
        """The row of the iterations that lasted longest inside of the gap; None where nobody timed steps."""
        return int(self.rows[np.argmax(self.inside_s)]) if len(self.rows) and not self.iterations.sampled else None

    def of(self, name: str) -> NDArray[np.float64]:
        """A column of the iterations, of these rows."""
        return self.iterations[name][self.rows]


def worst_gaps(record: RoundRecord, iterations: Iterations, gpu: Mapping[str, NDArray[Any]] | None = None) -> list[Gap]:
    """The ``MOST`` longest gaps between tokens of one streamed round, one for each step that held requests up, the
    longest first.

    ``gpu``: samples of all GPUs, with the columns ``stamp_ns`` and ``sm_clock_mhz`` at least.
    """
    every = _every_gap(record)
    if not len(every.request):
        return []
    usual_s = float(np.median(every.length_s / every.tokens))
    step_s = _typical_step_s(iterations)
    longest = np.argsort(usual_s * every.tokens - every.length_s, kind="stable")[:LOOKED_AT]
    scenes = (
        _scene(every, int(at), record=record, iterations=iterations, gpu=gpu or {}, usual_s=usual_s, step_s=step_s)
        for at in longest
    )
    return sorted(_one_a_step((scene.step, _explained(scene)) for scene in scenes), key=lambda gap: -gap.s)


def _one_a_step(found: Iterable[tuple[int | None, Gap]]) -> Iterator[Gap]:
    """The first gap of each step and cause, with the requests of the others; gaps without a step stand alone."""
    groups: dict[object, list[Gap]] = {}
    for number, (step, gap) in enumerate(found):
        groups.setdefault((None, number) if step is None else (step, gap.cause), []).append(gap)
    for first, *rest in list(groups.values())[:MOST]:
        yield replace(first, others=tuple(sorted({gap.request for gap in rest} - {first.request})))


@dataclass(frozen=True, slots=True, eq=False)
class _Gaps:
    """Every gap of a round, columns of shape (gaps,): stamps of arrivals, and when they were in hand."""

    request: NDArray[np.int32]
    from_ns: NDArray[np.int64]
    to_ns: NDArray[np.int64]
    start_ns: NDArray[np.int64]  # in hand
    end_ns: NDArray[np.int64]
    tokens: NDArray[np.int32]

    @property
    def length_s(self) -> NDArray[np.float64]:
        """In hand, seconds."""
        return (self.end_ns - self.start_ns) / 1e9


def _every_gap(record: RoundRecord) -> _Gaps:
    chunks = record.chunks
    order = np.argsort(chunks.request, kind="stable")  # arrivals of a request stay in their order
    request, stamp, tokens = chunks.request[order], chunks.stamp_ns[order], chunks.tokens[order]
    read = np.where(chunks.read_ns[order] == UNKNOWN, stamp, chunks.read_ns[order])
    at = np.flatnonzero(request[1:] == request[:-1]) + 1
    return _Gaps(request[at], stamp[at - 1], stamp[at], read[at - 1], read[at], np.maximum(tokens[at], 1))


def _typical_step_s(iterations: Iterations) -> float:
    """The median step that computed no prompt; of all steps where nobody tells them apart."""
    steps, context = iterations["step_ns"] / 1e9, iterations["context_tokens"]
    plain = steps[np.isfinite(steps) & (context == 0)]
    known = plain if len(plain) else steps[np.isfinite(steps)]
    return float(np.median(known)) if len(known) else float("nan")


def _scene(
    every: _Gaps,
    at: int,
    *,
    record: RoundRecord,
    iterations: Iterations,
    gpu: Mapping[str, NDArray[Any]],
    usual_s: float,
    step_s: float,
) -> _Scene:
    from_ns, to_ns = int(every.from_ns[at]), int(every.to_ns[at])
    begins = iterations.stamp_ns - np.nan_to_num(iterations["step_ns"]).astype(np.int64)
    rows = np.flatnonzero((iterations.stamp_ns > from_ns) & (begins < to_ns))
    inside = np.minimum(iterations.stamp_ns[rows], to_ns) - np.maximum(begins[rows], from_ns)
    start_ns, end_ns, tokens = int(every.start_ns[at]), int(every.end_ns[at]), int(every.tokens[at])
    return _Scene(
        record=record,
        iterations=iterations,
        gpu=gpu,
        request=int(every.request[at]),
        start_ns=start_ns,
        end_ns=end_ns,
        tokens=tokens,
        late_s=(end_ns - start_ns - (to_ns - from_ns)) / 1e9,
        usual_s=usual_s * tokens,
        step_s=step_s,
        rows=rows,
        inside_s=inside / 1e9,
    )


def _explained(scene: _Scene) -> Gap:
    def gap(cause: str, explained_s: float | None, evidence: str) -> Gap:
        return Gap(scene.request, scene.start_ns, scene.end_ns, scene.tokens, cause, explained_s, evidence)

    if scene.excess_s <= (ORDINARY - 1) * scene.usual_s:
        return gap(ORDINARY_GAP, None, f"The median gap is {_ms(scene.usual_s / scene.tokens)} a token.")
    if scene.iterations.sampled and scene.late_s < EXPLAINED * scene.excess_s:
        return gap(*_from_gauges(scene))
    suspects = [found for suspect in SUSPECTS for found in suspect(scene)]
    best = max(suspects, key=lambda each: each.explained_s, default=None)  # of equals the first
    if best is None or best.explained_s < EXPLAINED * scene.excess_s:
        return gap(UNEXPLAINED, None, _seen(scene, best))
    return gap(best.cause, min(best.explained_s, scene.excess_s), best.evidence)


def _client(scene: _Scene) -> Iterator[_Suspect]:
    if scene.late_s > 0:
        yield _Suspect(CLIENT, scene.late_s, f"The client read it {_ms(scene.late_s)} later than the one before.")


def _prefill(scene: _Scene) -> Iterator[_Suspect]:
    with_prompt = scene.of("context_tokens") > 0
    if not with_prompt.any():
        return
    longer_s = np.maximum(scene.inside_s - scene.step_s, 0.0) * with_prompt
    worst = int(np.argmax(longer_s))
    tokens, step_s = int(scene.of("context_tokens")[with_prompt].sum()), float(scene.of("step_ns")[worst]) / 1e9
    steps = "One step" if with_prompt.sum() == 1 else f"{int(with_prompt.sum())} steps"
    evidence = f"{steps} computed {tokens:,} prompt tokens{_of_whom(scene)}; the longest took {_ms(step_s)}"
    yield _Suspect(PREFILL, float(longer_s.sum()), f"{evidence}, a typical one {_ms(scene.step_s)}.")


def _of_whom(scene: _Scene) -> str:
    """The requests whose prompts were pending in the gap, the longest first."""
    table = scene.record.requests
    ends = np.where(table.first_ns > 0, table.first_ns, np.iinfo(np.int64).max)
    others = (table.index != scene.request) & (table.sent_ns > 0) & (table.sent_ns < scene.end_ns)
    pending = np.flatnonzero(others & (ends > scene.start_ns))
    longest = pending[np.argsort(-table.prompt_tokens[pending], kind="stable")]
    names = [f"request {table.index[at]} ({table.prompt_tokens[at]:,} tokens)" for at in longest[:2]]
    if not names:
        return ""
    more = len(longest) - len(names)
    return f" for {', '.join(names)} and {more} more" if more else f" for {' and '.join(names)}"


def _eviction(scene: _Scene) -> Iterator[_Suspect]:
    """Blocks went although no request ended: whatever was in them must be computed again."""
    used, total = scene.iterations["kv_blocks_used"], scene.iterations["kv_blocks_total"]
    passed = _passed(scene)
    for row in scene.rows:
        if row == 0 or not used[row] < used[row - 1] or used[row - 1] < FULL * total[row - 1]:
            continue
        before_ns, after_ns = scene.iterations.stamp_ns[row - 1], scene.iterations.stamp_ns[row]
        last = scene.record.requests.last_ns
        if not ((last >= before_ns) & (last <= after_ns)).any():
            evidence = f"KV blocks went from {used[row - 1]:,.0f} of {total[row]:,.0f} to {used[row]:,.0f}"
            yield _Suspect(EVICTION, passed, f"{evidence} while no request ended.")
            return


def _paused(scene: _Scene) -> Iterator[_Suspect]:
    most = np.nanmax(scene.of("paused"), initial=0.0) if np.isfinite(scene.of("paused")).any() else 0.0
    if most > 0 and len(scene.rows) > scene.tokens:
        evidence = f"{len(scene.rows)} steps went by for {scene.tokens} token(s), with up to {most:,.0f} paused"
        yield _Suspect(PAUSED, _passed(scene), f"{evidence} requests.")


def _queued(scene: _Scene) -> Iterator[_Suspect]:
    """Steps without the request that nobody calls a pause."""
    queued, paused = scene.of("queued"), scene.of("paused")
    if len(scene.rows) > scene.tokens and (queued > 0).any() and not (paused > 0).any():
        evidence = f"{len(scene.rows)} steps went by for {scene.tokens} token(s), with up to {np.nanmax(queued):,.0f}"
        yield _Suspect(QUEUED, _passed(scene), f"{evidence} requests in the queue.")


def _passed(scene: _Scene) -> float:
    """Seconds of the steps that went by without a token for the request."""
    return float(np.sort(scene.inside_s)[: max(0, len(scene.rows) - scene.tokens)].sum())


def _clock(scene: _Scene) -> Iterator[_Suspect]:
    """Steps without a prompt that were long while the SM clock was low."""
    stamps, clocks = scene.gpu.get("stamp_ns"), scene.gpu.get("sm_clock_mhz")
    if stamps is None or clocks is None:
        return
    clocks = np.asarray(clocks, dtype=np.float64)
    whole = (stamps >= scene.record.started_ns) & (stamps <= scene.record.ended_ns) & np.isfinite(clocks)
    near = whole & (stamps >= scene.start_ns - _PERIOD_NS) & (stamps <= scene.end_ns + _PERIOD_NS)
    if not near.any():
        return
    usual, low = float(np.median(clocks[whole])), float(clocks[near].min())
    plain = ~(scene.of("context_tokens") > 0)
    if low < CLOCK_DROP * usual and plain.any():
        longer_s = float((np.maximum(scene.inside_s - scene.step_s, 0.0) * plain).sum())
        yield _Suspect(CLOCK, longer_s, f"The SM clock was {low:,.0f} MHz, in the round's median {usual:,.0f} MHz.")


_PERIOD_NS = 50_000_000  # between two samples of a GPU


def _host(scene: _Scene) -> Iterator[_Suspect]:
    """Time that no step covers."""
    if not len(scene.iterations):
        return
    uncovered_s = (scene.end_ns - scene.start_ns) / 1e9 - scene.late_s - float(scene.inside_s.sum())
    if uncovered_s > 0:
        yield _Suspect(HOST, uncovered_s, f"No step of the engine ran for {_ms(uncovered_s)} of it.")


SUSPECTS: Sequence[Callable[[_Scene], Iterator[_Suspect]]] = (
    _client, _prefill, _eviction, _paused, _queued, _clock, _host,
)  # fmt: skip


def _from_gauges(scene: _Scene) -> tuple[str, None, str]:
    """Gauges that are read ten times a second show what there was, and not which step took how long."""
    how = "in gauges that are read now and then: likely, not certain"
    for cause, name, words in (
        (PAUSED, "paused", "paused requests"),
        (PREFILL, "context_tokens", "prompt tokens in a step"),
        (QUEUED, "queued", "requests in the queue"),
    ):
        seen = scene.of(name)
        if len(seen) and np.nan_to_num(seen).max() > 0:
            return cause, None, f"Up to {np.nanmax(seen):,.0f} {words}, {how}."
    return UNEXPLAINED, None, "No iteration of the engine is known in it."


def _seen(scene: _Scene, best: _Suspect | None) -> str:
    if not len(scene.rows):
        return "No iteration of the engine is known in it."
    longest_s = float(np.nan_to_num(scene.of("step_ns")).max()) / 1e9
    step = "Its step" if len(scene.rows) == 1 else f"The longest of its {len(scene.rows)} steps"
    said = f"{step} took {_ms(longest_s)}, a typical one {_ms(scene.step_s)}"
    return f"{said}." if best is None else f"{said}. At most {_ms(best.explained_s)} because {best.cause}."


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"
