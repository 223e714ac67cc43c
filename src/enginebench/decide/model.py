"""What is decided, from what, and how it came out: the words that the comparison, its pages and the gate share.

Plain data: nothing is computed here but names and JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Better = Literal["lower", "higher"]
Kind = Literal["gated", "watch"]
Outcome = Literal["regression", "improvement", "equivalent", "inconclusive", "invalid"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
DECIDED: tuple[Outcome, ...] = ("regression", "improvement", "equivalent")
"""Outcomes that more pairs need not be measured for."""

Policy = Literal["pr", "release"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One number of one cell that two builds are compared by.

    ``metric``: a name of the metrics table, or ``gpu_memory``. ``statistic``: ``p50`` … ``p99`` of a distribution,
    ``value`` of a rate. ``margin``: the smallest change that matters, a fraction: 0.05 is a factor of 1.05 either way.
    ``exact``: compared by tolerance alone, because the number has no noise.
    """

    cell_id: str
    metric: str
    statistic: str
    margin: float
    better: Better = "lower"
    kind: Kind = "watch"
    exact: bool = False

    @property
    def name(self) -> str:
        """The metric as a scenario's gate names it: ``tpot_p50``, ``output_tokens_per_s``."""
        return self.metric if self.statistic == "value" else f"{self.metric}_{self.statistic}"

    @property
    def key(self) -> str:
        """Cell and metric in one word; no two endpoints of a run share it."""
        return f"{self.cell_id}/{self.name}"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one block (one load of an engine, with its rounds) says of an endpoint.

    ``pair``: the block of the other build with the same number was measured beside it; None: unpaired. ``value``: in
    the metric's unit; +∞ (0 where higher is better) where failed requests leave it without bound; None: no value.
    """

    block: int
    pair: int | None
    value: float | None
    failed: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Samples:
    """The blocks of both builds."""

    old: tuple[Sample, ...]
    new: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The second opinion, Hodges–Lehmann: changes are fractions; ``confidence`` is exact, at least that asked for."""

    change: float
    low: float
    high: float
    confidence: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an endpoint came out.

    ``change``: new/old − 1, with its interval ``low`` to ``high`` at ``confidence`` (two-sided, widened for the looks);
    None where there is none. ``p_value``: of "worse by more than the margin", after the looks; ``q_value``: after the
    other endpoints, too (Holm for gated ones, Benjamini–Hochberg for watched ones). ``pairs_needed``: how many more
    would probably decide. ``old``, ``new``: typical values (geometric means over blocks) in the metric's unit.
    """

    endpoint: Endpoint
    outcome: Outcome
    change: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    p_value: float | None = None
    q_value: float | None = None
    pairs: int = 0
    pairs_needed: int | None = None
    old: float | None = None
    new: float | None = None
    cross_check: CrossCheck | None = None
    reasons: tuple[str, ...] = ()
    method: str = ""

    @property
    def decided(self) -> bool:
        """Whether more pairs are not needed."""
        return self.outcome in DECIDED

    def as_json(self) -> dict[str, Any]:
        """As it stands in a comparison's file; infinities do not occur."""
        return asdict(self) | {"key": self.endpoint.key, "name": self.endpoint.name}


@dataclass(frozen=True, slots=True)
class GateResult:
    """What CI acts on. ``exit_code``: 0 pass, 10 regression, 11 inconclusive, 12 invalid or not comparable."""

    exit_code: int
    policy: Policy
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the gate lets the new build through."""
        return self.exit_code == 0


@dataclass(frozen=True, slots=True)
class Variance:
    """Of the logarithm of a value between sessions of one build: variance, and the degrees of freedom it rests on."""

    variance: float
    degrees: int


@dataclass(frozen=True, slots=True)
class Noise:
    """How much sessions of this host differ without a reason, from its A/A runs.

    ``endpoints``: by the key of an endpoint; ``metrics``: by the name of one (``tpot_p50``), where the cell is new.
    """

    endpoints: Mapping[str, Variance]
    metrics: Mapping[str, Variance]

    def of(self, endpoint: Endpoint) -> Variance | None:
        """The variance of an endpoint: its own, else its metric's; None: unknown."""
        return self.endpoints.get(endpoint.key) or self.metrics.get(endpoint.name)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why two runs, or two cells, cannot be compared, and what was found on both sides.

    ``what``: ``hardware``, ``driver``, ``scenario``, ``path``, ``tokens``, ``cell`` …; a problem whose name the user
    allows is no problem any more, but a note.
    """

    what: str
    sentence: str
    old: str | None = None
    new: str | None = None
    allowed: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that differs between two runs and may explain a regression; the heavier, the likelier.

    ``what``: in a few words; ``sentence``: with the numbers.
    """

    what: str
    old: str | None
    new: str | None
    weight: float
    sentence: str


def open_problems(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Those that were not allowed."""
    return tuple(each for each in problems if not each.allowed)
