"""A block: one engine load with its rounds, the unit of statistics between builds, and what ``run.json`` says of it.

Which blocks a run has, and in which order, is decided by whoever drives it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from enginebench.measure.metrics import cell_metrics
from enginebench.measure.records import RoundRecord
from enginebench.run.plan import PlannedCell


@dataclass(frozen=True, slots=True)
class Block:
    """Which engine load it is. A run of pytest has one."""

    number: int = 0
    pair: int | None = None  # the blocks of two builds that were run one after the other
    seed: int | None = None  # of everything random in its rounds; None: the scenario's own
    label: str = ""  # before the name of a cell, for a person who watches


@dataclass(frozen=True, slots=True)
class BlockRecords:
    """What one cell left in one block. ``summary``: its entry in the cell's ``per_block``."""

    rounds: tuple[RoundRecord, ...]
    summary: Mapping[str, Any]

    @property
    def measured(self) -> tuple[RoundRecord, ...]:
        """Without warm-ups."""
        return tuple(record for record in self.rounds if not record.warmup)

    @property
    def whole(self) -> bool:
        """Whether all of its rounds gave a result."""
        return self.summary["broken"] is None


def block_records(
    planned: PlannedCell, block: Block, rounds: Sequence[RoundRecord], broken: str | None = None
) -> BlockRecords:
    """Sum up the ``rounds`` of a cell in ``block``; ``broken``: why they ended early."""
    measured = [record for record in rounds if not record.warmup]
    metrics = cell_metrics(measured, planned.scenario.slo_s, planned.scenario.trimmed)
    summary = {
        "block": block.number,
        "pair": block.pair,
        "seed": planned.scenario.sampling.seed if block.seed is None else block.seed,
        "rounds": len(measured),
        "requests": sum(len(record.requests) for record in measured),
        "failed_requests": failed_requests(measured),
        "broken": broken,
        "calibration": None,
        "validity": None,
        "metrics": {name: dict(result.summary) for name, result in metrics.items()},
    }
    return BlockRecords(tuple(rounds), summary)


def failed_requests(rounds: Sequence[RoundRecord]) -> int:
    """Requests that did not get what they asked for."""
    return sum(int((~record.requests.ok).sum()) for record in rounds)


def as_results(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics of one entry of ``per_block`` as those of a cell stand in run.json, as far as readers ask."""
    return {name: {"summary": values} for name, values in summary["metrics"].items()}
