"""One cell, driven: warm-up rounds, measured rounds, and the result that the run's record keeps of them."""

from collections.abc import Callable, Sequence
from typing import Any

from enginebench.builds.tokenizer import Tokenizer
from enginebench.errors import SessionError
from enginebench.measure.engine_record import EngineRound, engine_round
from enginebench.measure.findings import failure, findings
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.measure.shards import Client
from enginebench.measure.windows import batch_windows_s, steady_window_ns
from enginebench.plan.load import Trim, load_to_json
from enginebench.plan.prompts import round_requests
from enginebench.run.block import Block, BlockRecords, failed_requests
from enginebench.run.layer_sample import ROUND_INDEX, sample_load
from enginebench.run.plan import PlannedCell
from enginebench.run.progress import Progress
from enginebench.run.server_numbers import CellNumbers

STALL_TIMEOUT_S = 30.0
"""A request without any event for this long has failed."""


class CellRun:
    """The rounds of one cell. ``prepare`` and ``run`` take turns; everything but ``run`` lies outside timed calls."""

    def __init__(
        self,
        planned: PlannedCell,
        worker: Client,
        tokenizer: Tokenizer,
        progress: Progress,
        check_alive: Callable[[], None],
        block: Block,
        *,
        numbers: CellNumbers | None = None,
        mark: Callable[[str], None] = lambda _: None,
    ):
        self._planned = planned
        self._block = block
        self._worker = worker
        self._tokenizer = tokenizer
        self._progress = progress
        self.check_alive = check_alive
        self.numbers = numbers  # the server's own; None: the path leads to none that has any
        self._mark = mark  # told of the start (round) and end (round_end) of each measured round
        self._finished_round = False
        self._measuring = False
        self.rounds = planned.rounds
        self.records: list[RoundRecord] = []
        self.engine: list[EngineRound] = []  # what it recorded itself of the measured rounds

    def warm_up(self) -> None:
        """Run the warm-up rounds: stored, tagged, and part of no result."""
        total = self._planned.scenario.warmup_rounds
        for number in range(total):
            self._prepare(-1 - number, warmup=True, label=f"warm-up {number + 1}/{total}")
            self.run()
        self.collect()

    def prepare(self) -> None:
        """Fetch the round before, and hand the worker the requests of the next one."""
        self.collect()
        if self.numbers is not None:
            self.numbers.begin(self.records)
        number = sum(not record.warmup for record in self.records)
        self._prepare(number, warmup=False, label=f"round {number + 1}/{self.rounds}")
        self._measuring = True
        self._mark("round")

    def run(self) -> None:
        """Drive the prepared round; returns when its last request has ended.

        Raises:
            EnginebenchError: the engine or its server died meanwhile, which is noticed within a second.
        """
        self._worker.run(self._tick)
        self._finished_round = True

    def collect(self) -> None:
        """Fetch the record of the round that ended last, once.

        Raises:
            SessionError: a request failed; the cell has no result.
        """
        if not self._finished_round:
            return
        self._finished_round = False
        if self._measuring:
            self._measuring = False
            self._mark("round_end")
        record = self._worker.fetch()
        self.records.append(record)
        if not record.warmup and record.valid:
            self.engine.append(engine_round(record, self._worker.observed, self._planned.scenario.trimmed))
        if reason := self._failure(record):
            raise SessionError(reason)

    def _failure(self, record: RoundRecord) -> str | None:
        return failure(record, self._worker.facts.get("urls", ()))

    def observed_round(self) -> RoundRecord:
        """Run one more round, a short one that is kept nowhere; return its record. Raises as ``collect`` does."""
        self._prepare(ROUND_INDEX, warmup=True, label="observed round")
        self._worker.run(self._tick)
        record = self._worker.fetch()
        if reason := self._failure(record):
            raise SessionError(reason)
        return record

    def require_result(self) -> None:
        """Raise SessionError when no measured round is worth anything."""
        measured = [record for record in self.records if not record.warmup]
        if not any(record.valid for record in measured):
            raise SessionError("The system clock was set in every round, which spoils the stamps: measure again.")

    def _tick(self, arrivals: int, finished_requests: int) -> None:
        """``arrivals``: tokens of an engine in process; of a server events, of which a stream has one a token."""
        self.check_alive()
        cell = self._planned.cell
        whole_answers = not cell.streaming and cell.path != "direct"
        tokens = finished_requests * cell.output_tokens if whole_answers else arrivals
        self._progress.tokens(tokens, finished_requests)

    def _prepare(self, round_index: int, *, warmup: bool, label: str) -> None:
        self.collect()
        self._progress.round(label)
        planned, block = self._planned, self._block
        requests = round_requests(
            planned.scenario,
            planned.cell,
            self._tokenizer,
            round_index=round_index,
            seed=planned.scenario.sampling.seed if block.seed is None else block.seed,
        )
        load, most = planned.cell.load, len(requests)
        if round_index == ROUND_INDEX:
            load, most = sample_load(load)
        self._worker.prepare(
            requests[:most],
            load=load,
            round_index=round_index,
            warmup=warmup,
            stall_timeout_s=STALL_TIMEOUT_S,
            block=block.number,
        )


def cell_result(planned: PlannedCell, blocks: Sequence[BlockRecords], memory: dict[str, Any]) -> dict[str, Any]:
    """The entry of a measured cell in ``run.json``: over the whole ones of its ``blocks``, and each block alone."""
    measured = [record for block in blocks if block.whole for record in block.measured]
    metrics = cell_metrics(measured, planned.scenario.slo_s, planned.scenario.trimmed)
    return {
        **_head(planned),
        "status": "measured",
        "reason": None,
        "stamp_kind": measured[0].stamp_kind,
        "requests_per_round": len(measured[0].requests),
        "makespan_s": [record.window_s for record in measured],
        "batch_windows_s": [batch_windows_s(record) for record in measured],
        "steady_window_s": [_steady_s(record, planned.scenario.trimmed) for record in measured],
        "requests": sum(len(record.requests) for record in measured),
        "failed_requests": failed_requests(measured),
        "findings": [*findings(measured), *_broken(blocks)],
        "metrics": {name: result.as_json() for name, result in metrics.items()},
        "memory": memory,
        "rounds": len(measured),
        "per_block": [block.summary for block in blocks],
    }


def _broken(blocks: Sequence[BlockRecords]) -> list[str]:
    return [f"Block {each.summary['block']} is left out: {each.summary['broken']}" for each in blocks if not each.whole]


def _steady_s(record: RoundRecord, trim: Trim) -> list[float] | None:
    """The steady window of a round, from its start."""
    window = steady_window_ns(record, trim)
    return None if window is None else [(stamp_ns - record.started_ns) / 1e9 for stamp_ns in window]


def unmeasured_result(
    planned: PlannedCell, status: str, reason: str, blocks: Sequence[BlockRecords] = ()
) -> dict[str, Any]:
    """The entry of a cell without numbers: ``failed`` or ``not_applicable``."""
    return {
        **_head(planned),
        "status": status,
        "reason": reason,
        "findings": [],
        "metrics": {},
        "per_block": [block.summary for block in blocks],
    }


def _head(planned: PlannedCell) -> dict[str, Any]:
    cell = planned.cell
    return {
        "scenario": cell.scenario,
        "path": cell.path,
        "streaming": cell.streaming,
        "output_tokens": cell.output_tokens,
        "output_stdev": cell.output_stdev,
        "load": load_to_json(cell.load),
        "batch_size": cell.batch_size,
        "prompt_tokens": list(planned.prompt_tokens),
        "rounds": planned.rounds,
        "warmup_rounds": planned.scenario.warmup_rounds,
    }
