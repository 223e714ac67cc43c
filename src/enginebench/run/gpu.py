"""The GPUs of a run: what they did in the rounds of each cell, what that is worth, and who holds their memory.

Joins what the sampler saw with the build and the records; numbers are made in ``measure``. A build that computes on the
host has no GPU here, whatever the machine has.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import psutil

from enginebench.builds.build import Build
from enginebench.measure.concurrency import computed_at_once, in_flight
from enginebench.measure.energy import RoundEdges, RoundGpu, cell_energy, round_gpu
from enginebench.measure.gpu_trace import Edge, GpuFacts, GpuState
from enginebench.measure.gpu_validity import by_gpu, gpu_validity, spread, throttle_shares, unseen_findings
from enginebench.measure.ledger import (
    KvPool,
    gpu_ledger,
    host_entries,
    kv_pool,
    max_concurrency,
    slope_bytes_per_s,
)
from enginebench.measure.limits import Limits, cell_limits
from enginebench.measure.metrics import MetricResult, gpu_metric
from enginebench.measure.records import UNKNOWN, RoundRecord
from enginebench.measure.telemetry import MemoryPhases, Telemetry
from enginebench.measure.validity import with_level, with_machine
from enginebench.plan.cells import Cell
from enginebench.run.attached import Attached
from enginebench.run.plan import PlannedCell
from enginebench.server.preflight import Check

LOOPBACK = ("localhost", "127.0.0.1", "::1")
NEWCOMER_S = 1.5
"""After the start of a cell's first round: who computes on the GPU by then was there before, as far as can be known."""


def why_unseen(attached: Attached, path: str) -> str | None:
    """Why it is not known what the GPUs of the engine behind ``path`` do; None: they are this machine's."""
    urls = attached.urls_of(path)
    if any(urlsplit(url).hostname not in LOOPBACK for url in urls):
        return "the server runs on another machine" if len(urls) == 1 else "not every server runs on this machine"
    return f"which GPUs each of the {len(urls)} servers uses is not known" if len(urls) > 1 else None


@dataclass(frozen=True, slots=True)
class CellGpu:
    """What a cell's GPUs did in one block, with the KV ``pool`` of the engine, and the prefixes it reused unasked."""

    rounds: tuple[RoundGpu, ...]
    pool: KvPool
    unasked_hits: str | None


@dataclass(frozen=True, slots=True)
class Told:
    """What the machine has to say of a cell. ``gpu`` is empty where the build uses none."""

    validity: Mapping[str, Any]
    gpu: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, MetricResult] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


class GpuWatch:
    """Marks rounds and sums them up, for the cells of one build, on the first of the visible GPUs.

    ``attached``: servers that run already; of one on another machine nobody here sees the GPUs, and of several nobody
    knows which are whose.
    """

    def __init__(self, telemetry: Telemetry, build: Build, attached: Attached | None = None) -> None:
        self._telemetry = telemetry
        self._build = build
        self._attached = attached or Attached()
        self._edges: list[tuple[str, Edge | None]] = []
        self._kept: dict[str, list[CellGpu]] = {}
        self._spans_ns: list[tuple[int, int]] = []  # from the first measured round of a cell to its last, in a block
        self.before: GpuState | None = None  # who computed before the engine at hand was loaded
        self.pool = KvPool(None, None, "nobody tells")  # of the engine at hand

    def cards(self, path: str) -> tuple[GpuFacts, ...]:
        """The GPUs that the build uses on ``path``; none when it computes on the host, or elsewhere."""
        if why_unseen(self._attached, path) or not (self._build.on_gpu or self._telemetry.plays_trace):
            return ()
        return self._telemetry.gpu_facts[: self._build.world_size]

    def without_unseen(self, path: str, memory: Mapping[str, Any], of_gpu: str) -> dict[str, Any]:
        """``memory`` of a session or of a cell, without the number ``of_gpu`` where the GPUs are not the engine's."""
        why = why_unseen(self._attached, path) if self._build.on_gpu else None
        return {**memory, of_gpu: None, "gpu_reason": why} if why else dict(memory)

    def mark(self, mark: str) -> None:
        """Read the counters now, before (``round``) or after (``round_end``) a measured round."""
        self._edges.append((mark, self._telemetry.edge(mark)))

    def keep(self, cell: Cell, records: Sequence[RoundRecord], checks: Iterable[Check] = ()) -> None:
        """Sum up the measured rounds of a cell in this block, whose edges were marked since the last call.

        ``checks``: what was checked of the server behind its path.
        """
        edges, self._edges = self._pairs(), []
        measured = [record for record in records if not record.warmup]
        self._spans_ns += [(measured[0].started_ns, measured[-1].ended_ns)] if measured else []
        cards = self.cards(cell.path)
        foreign = self._foreign(measured) if cards else frozenset()
        edges += [RoundEdges(None, None)] * (len(measured) - len(edges))
        rounds = [self._round(*each, range(len(cards)), foreign) for each in zip(measured, edges, strict=True)]
        hits = next((each.detail for each in checks if (each.name, each.status) == ("prefix_cache", "failed")), None)
        self._kept.setdefault(cell.id, []).append(CellGpu(tuple(rounds), self.pool, hits))

    def forget(self) -> None:
        """Drop the edges of a cell that broke."""
        self._edges = []

    def judge(
        self,
        planned: PlannedCell,
        records: Sequence[RoundRecord],
        validity: Mapping[str, Any],
        *,
        last_block: bool = False,
    ) -> Told:
        """What the machine has to say of a cell. ``records``: its rounds, those of every block that was kept, or of the
        last; ``validity``: what is known of the client."""
        kept = self._kept[planned.cell.id][-1 if last_block else 0 :]
        rounds = [each for one in kept for each in one.rounds]
        cards = self.cards(planned.cell.path)
        hits = next((one.unasked_hits for one in kept if one.unasked_hits), None)
        machine = gpu_validity(cards, rounds, unasked_hits=hits)
        if not cards:
            return Told(with_machine(validity, machine.level, machine.reasons))
        measured = [record for record in records if not record.warmup]
        limits = cell_limits(self._build, cards, measured, reuse=planned.scenario.kv_cache_reuse)
        wrong = limits.impossible()
        level = "invalid" if wrong else machine.level
        concurrency = self._concurrency(planned, measured)
        gpu = self._gpu(measured, rounds, limits)
        return Told(
            with_machine(validity, level, [*machine.reasons, *(with_level("invalid", each) for each in wrong)]),
            {**gpu, "concurrency": concurrency, "notes": list(machine.notes)},
            self._metrics(measured, rounds, limits, cards),
            (*unseen_findings(rounds), *_queueing(concurrency)),
        )

    def loaded(
        self,
        phases: MemoryPhases,
        facts: Mapping[str, Any],
        settings: Mapping[str, Any],
        served_tokens: int | None = None,
    ) -> None:
        """An engine was loaded, or is reached on another path; ``settings``: what it was opened with, where known.

        ``served_tokens``: what its KV pool holds, by the metrics of its server.
        """
        self.before, self.pool = phases.before, kv_pool(self._build, facts, settings, served_tokens)

    def session(self, entry: Mapping[str, Any], phases: MemoryPhases, pool: KvPool) -> dict[str, Any]:
        """What a session of run.json, ``entry`` so far, says of memory: ``memory`` by phase, and the ledger."""
        memory, cards = self.without_unseen(entry["path"], phases.as_json(), "gpu"), self.cards(entry["path"])
        seen = memory["gpu"] if cards and phases.loaded else None
        others = _bytes_of_others(phases.before, len(cards))
        by_gpu = phases.by_gpu("after_load") or ()
        found = gpu_ledger(self._build, seen, pool, entry["facts"], others, by_gpu)
        slopes = {role: self._slope(phases, role) for role in memory["host"]}
        entries = (*found.entries, *host_entries(memory["host"]))
        gpus = {"gpus": [dict(card) for card in cards]} if cards else {}
        return {"memory": memory, **gpus, **replace(found, entries=entries, host_slope_bytes_per_s=slopes).as_json()}

    def _slope(self, phases: MemoryPhases, role: str) -> float | None:
        """Within cells' measured rounds: loading and warming up take memory, and are no growth."""
        points = [(each.stamp_ns, each.host[role]) for each in phases.samples if role in each.host]
        return slope_bytes_per_s([stamp for stamp, _ in points], [used for _, used in points], self._spans_ns)

    def _pairs(self) -> list[RoundEdges]:
        """The edges of each round that has both."""
        pairs: list[RoundEdges] = []
        for (mark, edge), (next_mark, next_edge) in zip(self._edges, self._edges[1:], strict=False):
            if (mark, next_mark) == ("round", "round_end"):
                pairs.append(RoundEdges(edge, next_edge))
        return pairs

    def _round(self, record: RoundRecord, edges: RoundEdges, gpus: Sequence[int], foreign: frozenset[int]) -> RoundGpu:
        span_ns = (record.started_ns, record.ended_ns)
        begin_ns = edges.begin.stamp_ns if edges.begin else record.started_ns
        end_ns = edges.end.stamp_ns if edges.end else record.ended_ns
        states = self._telemetry.states(begin_ns, end_ns)  # one at each edge, too
        return round_gpu(span_ns, self._telemetry.samples(*span_ns), states, edges, gpus=gpus, foreign=foreign)

    def _foreign(self, records: Sequence[RoundRecord]) -> frozenset[int]:
        """Processes on the GPUs that are not the build's.

        By process id where NVML tells those of this namespace; else whoever computed before the engine was loaded, or
        came while rounds were run.
        """
        if not records:
            return frozenset()
        start_ns = records[0].started_ns
        seen = _pids(self._telemetry.states(start_ns))
        own = _with_children(self._telemetry.watched)
        if own & seen:
            return seen - own
        early = _pids(self._telemetry.states(0, start_ns + round(NEWCOMER_S * 1e9)))
        before = _pids([self.before] if self.before else [])
        return before | (seen - early)

    def _gpu(self, records: Sequence[RoundRecord], rounds: Sequence[RoundGpu], limits: Limits) -> dict[str, Any]:
        energy = cell_energy(rounds, _output_tokens(records), sum(int(record.requests.ok.sum()) for record in records))
        busy = [each.cpu_busy for each in rounds if each.cpu_busy is not None]
        return {
            **_seen(rounds),
            "energy_source": energy.source,
            "energy_error": energy.error,
            "energy_per_output_token_j": energy.per_output_token_j,
            "energy_per_request_j": energy.per_request_j,
            "tokens_per_j": energy.tokens_per_j,
            "by_gpu": [_seen(own) for _, own in by_gpu(rounds)],
            "mbu": limits.mbu,
            "mfu": limits.mfu,
            "limits": limits.as_json(),
            "cpu_busy": max(busy, default=None),
            "swapped_bytes": sum(each.swapped_bytes for each in rounds if each.swapped_bytes is not None),
            "round_spans_ns": [[record.started_ns, record.ended_ns] for record in records],
        }

    def _metrics(
        self,
        records: Sequence[RoundRecord],
        rounds: Sequence[RoundGpu],
        limits: Limits,
        cards: Sequence[GpuFacts],
    ) -> dict[str, MetricResult]:
        values = {
            "output_tokens_per_s_per_gpu": (_rate(records, cards), [_rate([each], cards) for each in records]),
            "energy_per_output_token": (
                cell_energy(rounds, _output_tokens(records), 1).per_output_token_j,
                [
                    cell_energy([each], _output_tokens([record]), 1).per_output_token_j
                    for each, record in zip(rounds, records, strict=False)
                ],
            ),
            "mbu": (limits.mbu, [cell_limits(self._build, cards, [each], reuse=True).mbu for each in records]),
        }
        return {
            name: gpu_metric(name, value, per_round) for name, (value, per_round) in values.items() if value is not None
        }

    def _concurrency(self, planned: PlannedCell, records: Sequence[RoundRecord]) -> dict[str, Any]:
        """How many requests the KV pool holds at once, and how many there were."""
        pool = self._kept[planned.cell.id][-1].pool
        tokens = planned.prompt_tokens[1] + planned.cell.output_tokens
        return {
            "kv_pool_tokens": pool.tokens,
            "tokens_per_request": tokens,
            "most": max_concurrency(pool, self._build, tokens),
            "in_flight": max((in_flight(record) for record in records), default=None),
            "computed_at_once": max((computed_at_once(record) for record in records), default=None),
        }


def _seen(rounds: Sequence[RoundGpu]) -> dict[str, Any]:
    """What NVML saw of all GPUs of a cell, or of one of them."""
    energy = cell_energy(rounds, None, 0)
    return {
        "energy_j": energy.energy_j,
        "average_power_w": energy.average_power_w,
        "peak_bytes": max((each.peak_bytes for each in rounds if each.peak_bytes is not None), default=None),
        "sm_clock_mhz": spread([clock for each in rounds for clock in each.sm_clocks_mhz]),
        "temperature_c": spread([one for each in rounds for one in each.temperatures_c]),
        "throttle": throttle_shares(rounds),
    }


def _queueing(known: Mapping[str, Any]) -> list[str]:
    most, flying, computed = known["most"], known["in_flight"], known["computed_at_once"]
    if known["kv_pool_tokens"] is None or not most:
        return []
    holds = f"the engine can hold {most} requests of {known['tokens_per_request']} tokens at once"
    if computed and computed > most:
        return [f"{computed} requests were computed at once, though {holds}: its KV pool must be another."]
    return [f"{flying} requests were in flight, and {holds}: the others waited."] if flying > most else []


def _rate(records: Sequence[RoundRecord], cards: Sequence[GpuFacts]) -> float | None:
    tokens, window_s = _output_tokens(records), sum(record.window_s for record in records)
    return tokens / window_s / len(cards) if tokens and window_s else None


def _output_tokens(records: Sequence[RoundRecord]) -> int | None:
    tokens = [record.requests.tokens[record.requests.ok] for record in records]
    if any((each == UNKNOWN).any() for each in tokens):
        return None
    return int(sum(int(each.sum()) for each in tokens))


def _pids(states: Sequence[GpuState]) -> frozenset[int]:
    return frozenset(pid for state in states for processes in state.processes for pid in processes or ())


def _bytes_of_others(state: GpuState | None, gpus: int) -> int | None:
    """On the first ``gpus``; None where NVML hides them."""
    if state is None or any(processes is None for processes in state.processes[:gpus]):
        return None
    sizes = [size for processes in state.processes[:gpus] for size in (processes or {}).values()]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _with_children(pids: frozenset[int]) -> frozenset[int]:
    found = set(pids)
    for pid in pids:
        with suppress(psutil.Error):
            found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return frozenset(found)
