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
    """What one cell left in one block. ``broken``: why its rounds ended early; None when they are whole."""

    block: Block
    rounds: tuple[RoundRecord, ...]
    broken: str | None = None

    @property
    def measured(self) -> tuple[RoundRecord, ...]:
        """Without warm-ups."""
        return tuple(record for record in self.rounds if not record.warmup)

    def as_json(self, planned: PlannedCell) -> Mapping[str, Any]:
        """An entry of a cell's ``per_block``: ``metrics`` are summaries over the block's measured rounds."""
        rounds = self.measured
        metrics = cell_metrics(rounds, planned.scenario.slo_s, planned.scenario.trimmed)
        return {
            "block": self.block.number,
            "pair": self.block.pair,
            "seed": planned.scenario.sampling.seed if self.block.seed is None else self.block.seed,
            "rounds": len(rounds),
            "requests": sum(len(record.requests) for record in rounds),
            "failed_requests": failed_requests(rounds),
            "broken": self.broken,
            "metrics": {name: dict(result.summary) for name, result in metrics.items()},
        }


def failed_requests(rounds: Sequence[RoundRecord]) -> int:
    """Requests that did not get what they asked for."""
    return sum(int((~record.requests.ok).sum()) for record in rounds)
