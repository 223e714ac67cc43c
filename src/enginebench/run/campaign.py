"""A campaign drives the cells of a plan one by one and writes each to the run's directory when it ends.

It knows nothing of pytest: an item opens a cell, warms it up, runs its rounds and finishes it; so can any other driver.
Cells are driven within a block, for which engines are loaded anew: ``begin``, its cells, ``end``, and so on.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.errors import EnginebenchError
from enginebench.measure.engine_record import EngineRound, engine_summary
from enginebench.measure.layers import in_process
from enginebench.measure.records import RoundRecord
from enginebench.measure.replicas import shares
from enginebench.measure.server_sampler import columns_of
from enginebench.measure.telemetry import Sample, Telemetry, peaks
from enginebench.measure.validity import with_level, with_machine
from enginebench.plan.cells import Cell
from enginebench.report.index import write_index
from enginebench.report.page import write_report
from enginebench.report.terminal import headline
from enginebench.run.ab_memory import cell_side_by_side, session_side_by_side
from enginebench.run.attached import Attached
from enginebench.run.block import Block, BlockRecords, as_results, block_records
from enginebench.run.cell import CellRun, cell_result, unmeasured_result
from enginebench.run.client_check import ClientCheck
from enginebench.run.clients import ShardCount
from enginebench.run.gpu import GpuWatch
from enginebench.run.header import header
from enginebench.run.plan import Plan, PlannedCell
from enginebench.run.progress import Progress
from enginebench.run.sessions import Sessions
from enginebench.store import RunStore

OTHER_ENGINE = "other engine"
"""The role of processes that belong to the run beside this one."""


class Campaign:
    """One run: opens cells, keeps their results, and closes what it opened.

    ``progress``: where a person watches; by default it counts the cells of this run. ``telemetry``: not yet started;
    by default it watches this machine. ``side_by_side``: the engine of another campaign is loaded all the while, too,
    and whoever drives both holds the GPU lease.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        command: Sequence[str],
        attached: Attached,
        shards: ShardCount = 1,
        *,
        progress: Progress | None = None,
        telemetry: Telemetry | None = None,
        side_by_side: bool = False,
    ):
        self._plan = plan
        self._root = root
        self._planned = {planned.cell.id: planned for planned in plan.cells}
        self._progress = progress or Progress(total_cells=len(plan.cells), estimate_s=plan.estimate_s)
        self._store = RunStore.create(root, header(plan, command, attached))
        self._telemetry = telemetry or Telemetry()
        self._watching = False
        self._side_by_side = side_by_side
        self._attached = attached
        self._gpu = GpuWatch(self._telemetry, plan.build, attached)
        self._block = Block()
        self._kept: dict[str, list[BlockRecords]] = {}
        self._peaks: dict[str, dict[str, Any]] = {}
        self._engine: dict[str, list[EngineRound]] = {}  # by cell: what it recorded itself, of whole blocks
        self._servers: dict[str, dict[str, Any]] = {}  # by cell: the server's own numbers, of the last block
        self._sessions = Sessions(
            plan.build,
            self._store.directory,
            self._telemetry,
            plan.connections,
            attached,
            shards,
            engine=plan.engine,
            gpu=self._gpu,
        )
        self._sessions.lease = not side_by_side
        self._client_check = ClientCheck(self._store.directory / "logs", plan.build.python, shards)
        self.measured = 0
        self.started_at_c: float | None = None  # the warmest GPU when the block at hand began

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self._store.directory

    @property
    def store(self) -> RunStore:
        """What the run leaves."""
        return self._store

    def begin(self, block: Block) -> None:
        """Start a block. Raises EnginebenchError when memory cannot be watched."""
        self._block = block
        self._sessions.block = block.number
        self._watch()
        self.started_at_c = _warmest(self._telemetry.fresh())

    def end(self, *, stay: bool = False) -> None:
        """End the block: its engine and server go, unless they ``stay``, and their memory is known. Safe to repeat."""
        try:
            if not stay:
                self._sessions.close()
        finally:
            if not stay:
                self._telemetry.stop()
                self._watching = False
            self._store.write_sessions(self._session_records)

    def load(self, cell: Cell) -> None:
        """Load the engine for ``cell`` before any block. Raises EnginebenchError when it cannot be loaded."""
        self._watch()
        self._sessions.use(cell.path, self._planned[cell.id].scenario.kv_cache_reuse)

    def tolerate(self, other: "Campaign") -> None:
        """The processes of ``other`` are meant to be on the GPU beside the engine of this run."""
        self._telemetry.unwatch(OTHER_ENGINE)
        for pid in other._sessions.pids:
            self._telemetry.watch(OTHER_ENGINE, pid)
        before = [each for each in (self._gpu.before, other._gpu.before) if each]
        self._gpu.before = min(before, key=lambda state: state.stamp_ns, default=None)

    def not_applicable(self, cell: Cell) -> str | None:
        """The limit of the build that the cell exceeds, recorded; None when it can run."""
        planned = self._planned[cell.id]
        if planned.not_applicable:
            self._store.write_cell(cell.id, unmeasured_result(planned, "not_applicable", planned.not_applicable), [])
        return planned.not_applicable

    @contextmanager
    def open(self, cell: Cell) -> Iterator[CellRun]:
        """Drive one cell. A cell that breaks is recorded as failed, without numbers, and its error goes on."""
        planned = self._planned[cell.id]
        cell_run: CellRun | None = None
        with self._progress.cell(f"{self._block.label}{cell.id}", planned.estimate_s):
            try:
                worker = self._sessions.use(cell.path, planned.scenario.kv_cache_reuse)
                check_alive, watched = self._sessions.check_alive, self._sessions.watched
                numbers = watched.numbers() if watched else None
                tokenizer = self._plan.tokenizer
                cell_run = CellRun(
                    planned,
                    worker,
                    tokenizer,
                    self._progress,
                    check_alive,
                    self._block,
                    numbers=numbers,
                    mark=self._gpu.mark,
                )
                yield cell_run
                cell_run.collect()
                cell_run.require_result()
                if watched:
                    seen = self._servers.get(cell.id, {}).get("layers")  # one block says where time goes
                    self._servers[cell.id] = watched.finish(cell_run, seen)
            except EnginebenchError as broken:
                error = self._sessions.death() or broken
                self._sessions.discard()
                self._fail(planned, str(error), cell_run)
                raise error from broken

    def result(self, cell: Cell, cell_run: CellRun) -> dict[str, Any]:
        """Work out, write and return the result of a cell whose rounds are over: of this block and those before."""
        planned = self._planned[cell.id]
        self._keep(planned, cell_run.records)
        self._engine.setdefault(cell.id, []).extend(cell_run.engine)
        self._peaks[cell.id] = _most(self._peaks.get(cell.id), self._memory(cell_run.records))
        result = self._write(planned)
        self._write_samples()
        self.measured += 1
        self._progress.ended(headline({"metrics": as_results(result["per_block"][-1])}))
        return result

    @property
    def _session_records(self) -> list[dict[str, Any]]:
        records = self._sessions.records
        return [session_side_by_side(each) for each in records] if self._side_by_side else records

    def _watch(self) -> None:
        if not self._watching:
            self._telemetry.start()
            self._watching = True

    def close(self, *, interrupted: bool = False) -> Path:
        """Close engine and server, finish the record, write the page and the index; return the page's path.

        ``interrupted``: whoever drove the run was stopped, which a cell that was not reached shows, too.
        """
        try:
            self._client_check.close()
        finally:
            self.end()
            self._write_samples()
            self._store.finish(sessions=self._session_records, interrupted=interrupted or bool(self._not_reached()))
        page = write_report(self._store.directory)
        write_index(self._root)
        return page

    def _write_samples(self) -> None:
        self._store.write_telemetry(self._telemetry.samples())
        if pages := self._sessions.pages:
            self._store.write_samples("server", columns_of(pages))

    def _not_reached(self) -> list[str]:
        return [cell_id for cell_id in self._planned if cell_id not in self._store.cells]

    def _memory(self, records: Sequence[RoundRecord]) -> dict[str, Any]:
        self._telemetry.fresh()  # so that a cell shorter than the sampler's period has a sample, too
        first = next(record for record in records if not record.warmup)
        return peaks(self._telemetry.samples(first.started_ns), self._plan.build.world_size)

    def _fail(self, planned: PlannedCell, reason: str, cell_run: CellRun | None) -> None:
        self._keep(planned, cell_run.records if cell_run else [], reason)
        self._write(planned)
        self._progress.ended(f"failed: {reason}")

    def _keep(self, planned: PlannedCell, records: Sequence[RoundRecord], broken: str | None = None) -> None:
        kept = block_records(planned, self._block, records, broken)
        if kept.whole:
            judged = self._client_check.judge(planned, records, as_results(kept.summary))
            watched = self._sessions.watched
            self._gpu.keep(planned.cell, records, watched.checks if watched else ())
            told = self._gpu.judge(planned, records, judged["validity"], last_block=True)
            metrics = {name: dict(result.summary) for name, result in told.metrics.items()}
            judged_by_server = self._with_server(planned.cell.id, told.validity)
            more = {"validity": judged_by_server, "metrics": kept.summary["metrics"] | metrics}
            kept = replace(kept, summary={**kept.summary, **judged, **more})
        else:
            self._gpu.forget()
        self._kept.setdefault(planned.cell.id, []).append(kept)

    def _with_server(self, cell_id: str, validity: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of the cell's validity, with what its server showed to be wrong."""
        wrong = self._servers.get(cell_id, {}).get("findings")
        reasons = [with_level("degraded", each) for each in wrong or ()]
        return with_machine(validity, "degraded", reasons) if reasons else dict(validity)

    def _write(self, planned: PlannedCell) -> dict[str, Any]:
        """A cell has numbers when it was whole in any block."""
        blocks = self._kept[planned.cell.id]
        if any(block.whole for block in blocks):
            result = self._measured_result(planned, blocks)
            self._store.write_calibration(self._client_check.record)
        else:
            result = unmeasured_result(planned, "failed", blocks[-1].summary["broken"], blocks)
        self._store.write_cell(planned.cell.id, result, [record for block in blocks for record in block.rounds])
        return result

    def _measured_result(self, planned: PlannedCell, blocks: Sequence[BlockRecords]) -> dict[str, Any]:
        """What whole blocks showed, and what client, machine, engine and server say of it."""
        cell_id, path = planned.cell.id, planned.cell.path
        whole = [record for block in blocks if block.whole for record in block.rounds]
        result = cell_result(planned, blocks, self._gpu.without_unseen(path, self._peaks[cell_id], "gpu_peak_bytes"))
        judged = {key: blocks[0].summary[key] for key in ("calibration", "validity")}
        result |= judged if len(blocks) == 1 else self._client_check.judge(planned, whole, result["metrics"])
        told = self._gpu.judge(planned, whole, result["validity"])
        result |= {"validity": told.validity} | ({"gpu": told.gpu} if told.gpu else {})
        result["metrics"] |= {name: one.as_json() for name, one in told.metrics.items()}
        result["findings"] += told.findings
        if engine := engine_summary(self._engine.get(cell_id, ())):
            result["engine"] = engine
        if path == "direct":
            result["layers"] = {end: fall.as_json() for end, fall in in_process(result).items()}
        if server := self._servers.get(cell_id):
            result["server"] = {key: value for key, value in server.items() if key != "findings"}
            result["findings"] += server["findings"]
            result["validity"] = self._with_server(cell_id, result["validity"])
        if len(urls := self._attached.urls_of(path)) > 1:
            result["shares"] = shares(urls, [record for record in whole if not record.warmup])
        if self._telemetry.silent:
            result["findings"] += ["The memory sampler died: this cell and those after it have no memory."]
        return cell_side_by_side(result) if self._side_by_side else result


def _warmest(sample: Sample | None) -> float | None:
    known = [gpu.temperature_c for gpu in (sample.gpu if sample else None) or () if gpu.temperature_c is not None]
    return max(known, default=None)


def _most(before: Mapping[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    """The peaks of several blocks together."""
    if before is None:
        return now
    gpu = [peak for peak in (before["gpu_peak_bytes"], now["gpu_peak_bytes"]) if peak is not None]
    roles = {**before["host_peak_bytes"], **now["host_peak_bytes"]}
    host = {
        role: max(peak for each in (before, now) if (peak := each["host_peak_bytes"].get(role)) is not None)
        for role in roles
    }
    return {"gpu_peak_bytes": max(gpu, default=None), "host_peak_bytes": host}
