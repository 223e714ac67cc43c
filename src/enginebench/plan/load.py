"""Loads: how the requests of a round are released. Standard library only: workers import this.

A load says what is asked for; when each request of an open loop leaves is worked out in ``arrivals``.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias, get_args

Kind = Literal["batch", "concurrency", "rate"]
Arrival = Literal["constant", "poisson", "gamma", "trace"]

KINDS: tuple[Kind, ...] = get_args(Kind)
ARRIVALS: tuple[Arrival, ...] = get_args(Arrival)
MOST_CONNECTIONS = 256
"""An open loop may have any number of requests in flight: beyond these, a connection is opened when it is needed."""

_LABEL = re.compile(
    r"bs(?P<batch>\d+)|c(?P<concurrency>\d+)"
    r"|[rt](?P<rate>\d+\.\d+)(?:to(?P<ramp>\d+\.\d+))?(?P<arrival>-constant|-gamma\d+(\.\d+)?)?"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """``size`` requests at once, the next ones when all of these are done."""

    size: int
    kind: ClassVar[Kind] = "batch"

    @property
    def label(self) -> str:
        """The load's part of a cell's id, e.g. ``bs008``."""
        return f"bs{self.size:03d}"

    @property
    def level(self) -> float:
        """Where the load stands on an axis with others of its kind."""
        return self.size

    @property
    def connections(self) -> int:
        """Connections to have ready: the most requests that are in flight at once."""
        return self.size


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A closed loop: ``level`` requests in flight, each followed by the next when it ends."""

    level: int
    requests: int | None = None  # a round; None: as many as the scenario says, or as fit into ``duration_s``
    duration_s: float | None = None  # no request is released later; those in flight are let finish
    kind: ClassVar[Kind] = "concurrency"

    @property
    def label(self) -> str:
        """The load's part of a cell's id, e.g. ``c016``."""
        return f"c{self.level:03d}"

    @property
    def connections(self) -> int:
        """Connections to have ready: the most requests that are in flight at once."""
        return self.level


@dataclass(frozen=True, slots=True)
class Rate:
    """An open loop: requests leave when the schedule says so, whatever became of those before them."""

    per_s: float  # of a trace: its mean, with the speed-up
    arrival: Arrival = "poisson"
    burstiness: float = 1.0  # shape of the gamma distribution of gaps: 1 is Poisson, below it is burstier
    ramp_to_per_s: float | None = None  # the rate goes there, linearly, until the schedule ends
    requests: int | None = None  # a round
    duration_s: float | None = None
    trace: str | None = None  # name of the file
    speedup: float = 1.0  # of a trace
    times_s: tuple[float, ...] = field(default=(), repr=False)  # of a trace, from its first arrival; left out of JSON
    kind: ClassVar[Kind] = "rate"

    @property
    def label(self) -> str:
        """The load's part of a cell's id, e.g. ``r0012.50``, ``r0002.00to0016.00-gamma0.5``, ``t0003.20``."""
        ramp = "" if self.ramp_to_per_s is None else f"to{self.ramp_to_per_s:07.2f}"
        pattern = {"constant": "-constant", "gamma": f"-gamma{self.burstiness:g}"}.get(self.arrival, "")
        return f"{'t' if self.arrival == 'trace' else 'r'}{self.per_s:07.2f}{ramp}{pattern}"

    @property
    def level(self) -> float:
        """The mean rate, requests/s."""
        return self.per_s if self.ramp_to_per_s is None else (self.per_s + self.ramp_to_per_s) / 2

    @property
    def length_s(self) -> float:
        """How long the schedule of a round is, in the mean."""
        if self.duration_s is not None:
            return self.duration_s
        return (self.requests or len(self.times_s)) / self.level

    @property
    def connections(self) -> int:
        """Connections to have ready; more may be in flight."""
        return max(1, min(MOST_CONNECTIONS, round(self.length_s * self.level)))


Load: TypeAlias = "Batch | Concurrency | Rate"


@dataclass(frozen=True, slots=True)
class Trim:
    """What of each round does not count: at both ends, in seconds or as a share of the time in which requests leave."""

    warmup_s: float = 0.0
    cooldown_s: float = 0.0
    warmup_share: float = 0.0
    cooldown_share: float = 0.0


_CLASSES: Mapping[str, Any] = {each.kind: each for each in (Batch, Concurrency, Rate)}


def load_to_json(load: Load) -> dict[str, Any]:
    """``load`` for run.json and for workers: its kind, label, level and fields, but for the times of a trace."""
    values = {name: value for name, value in asdict(load).items() if name != "times_s" and value is not None}
    return {"kind": load.kind, "label": load.label, "level": load.level, **values}


def load_from_json(data: Mapping[str, Any]) -> Load:
    """The inverse of ``load_to_json``."""
    kind = _CLASSES[data["kind"]]
    load: Load = kind(**{each.name: data[each.name] for each in fields(kind) if each.name in data})
    return load


def load_of_label(label: str) -> dict[str, Any]:
    """What a label tells of its load: kind, label and level. Raises ValueError for a text that is none."""
    match = _LABEL.fullmatch(label)
    if match is None:
        raise ValueError(f"{label!r} is not the label of a load")
    kind = next(kind for kind in KINDS if match[kind])
    level = float(match[kind])
    if match["ramp"]:
        level = (level + float(match["ramp"])) / 2
    return {"kind": kind, "label": label, "level": level if kind == "rate" else int(level)}
