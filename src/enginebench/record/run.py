"""A run as a whole, what a baseline keeps of one, and which side of a comparison it is."""

from typing import Annotated, Any, Literal

from pydantic import Field

from enginebench.measure.metrics import BY_NAME
from enginebench.plan.scenario import MEMORY
from enginebench.record.cells import Cell
from enginebench.record.kinds import OPTIONAL, Count, Moment, Name, Number, Part, Share, Whole, one_of
from enginebench.record.setup import Build, Environment, Plan, Session

Side = Literal["old", "new"]


class Calibration(Part):
    points: dict[str, Any] = OPTIONAL


class AbGate(Part, extra="forbid"):
    cell_id: str
    metric: Annotated[str, one_of((*BY_NAME, MEMORY))]
    statistic: Literal["value", "p50", "p90", "p95", "p99"]
    margin: Share
    better: Literal["lower", "higher"]
    kind: Literal["gated", "watch"]
    exact: bool


class Gated(Part):
    gated: list[AbGate]
    gate_source: str


class Turn(Part, extra="forbid"):
    block: Whole
    pair: Whole
    side: Side
    seed: Whole | None
    started: Moment
    duration_s: Number
    loads: Count
    temperature_c: Number | None


class Ab(Gated):
    side: Side
    other: str
    pairs_planned: Count
    looks: Annotated[list[Count], Field(min_length=1)]
    stopped: str
    smallest_effect: dict[str, Number]
    co_resident: bool = OPTIONAL
    order: list[Turn]


class Kept(Part):
    """What a baseline keeps of a run."""

    id: Name
    created: Moment
    finished: Moment | None
    interrupted: bool
    command: list[str]
    build: Build
    attached_url: str | None
    environment: Environment
    plan: Plan
    sessions: list[Session]
    cells: dict[str, Cell]
    ab: Gated | None = OPTIONAL


class Record(Kept):
    """A run.json."""

    calibration: Calibration | None
    ab: Ab | None = OPTIONAL


class Baseline(Part):
    """The file of a baseline."""

    name: str
    run: Kept
