"""A/A sessions of one build: the same cells, an engine load each, one after the other; and what they tell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.decide.noise import smallest_stored_effect
from enginebench.decide.planning import smallest_effect
from enginebench.run.ab_plan import MOST_PAIRS
from enginebench.run.attached import Attached
from enginebench.run.block import Block
from enginebench.run.campaign import Campaign
from enginebench.run.drive import drive_block
from enginebench.run.endpoints import DEFAULT_MARGIN
from enginebench.run.noise import Known
from enginebench.run.plan import Plan
from enginebench.run.progress import Progress


@dataclass(frozen=True, slots=True)
class Line:
    """The noise of one number, fractions. ``stored``, ``ab``: the smallest slowdown that each kind of comparison finds.

    ``session_sd``: of the logarithm, between sessions; ``pair_sd``: of the log ratio of two in a row; None: not known.
    """

    key: str
    degrees: int
    session_sd: float
    pair_sd: float | None
    stored: float
    ab: float | None


def measure_sessions(
    plan: Plan, root: Path, command: Sequence[str], sessions: int, attached: Attached
) -> tuple[Path, bool]:
    """Measure ``sessions`` sessions; return the run's directory, and whether Ctrl-C ended it early.

    Raises:
        EnginebenchError: the run cannot be written, or no engine can be loaded.
    """
    progress = Progress(total_cells=len(plan.cells) * sessions, estimate_s=plan.estimate_s * sessions)
    campaign = Campaign(plan, root, command, attached, progress=progress)
    interrupted = True
    try:
        for number in range(sessions):
            block = Block(number, label=f"session {number + 1}/{sessions}  ")
            drive_block(campaign, block, [planned.cell for planned in plan.cells])
        interrupted = False
    except KeyboardInterrupt:
        pass
    finally:
        campaign.close(interrupted=interrupted)
    return campaign.directory, interrupted


def noise_lines(known: Known) -> list[Line]:
    """The noise of every number that is known, the noisiest last."""
    lines = []
    for key, variance in known.noise.endpoints.items():
        pair_sd = known.pair_sd.get(key)
        lines.append(
            Line(
                key=key,
                degrees=variance.degrees,
                session_sd=math.sqrt(variance.variance),
                pair_sd=pair_sd,
                stored=smallest_stored_effect(variance, DEFAULT_MARGIN),
                ab=None if pair_sd is None else smallest_effect(MOST_PAIRS, pair_sd, DEFAULT_MARGIN),
            )
        )
    return sorted(lines, key=lambda line: line.session_sd)
