"""Whether the client could resolve what it reports: its error, its slip and its clock against what is to be told apart.

Pure. Judges the client, not the engine: a cell can be valid and slow, or fast and invalid.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from enginebench.measure.calibration import Calibration

Level = Literal["valid", "uncalibrated", "degraded", "invalid"]

LEVELS: tuple[Level, ...] = get_args(Level)
"""From good to bad."""

DEFAULT_MARGIN = 0.05
"""Of an endpoint without a gate: the difference that a reader may want to see."""

SLIP_FLOOR_S = 0.001
SLIP_SHARE = 0.05

_ENDPOINTS = ("ttft_p50", "tpot_p50", "itl_p50", "e2e_latency_p50")
# A rate is made of the times of requests: its error is theirs.
_TIME_OF_RATE = {
    "output_tokens_per_s": "e2e_latency_mean",
    "total_tokens_per_s": "e2e_latency_mean",
    "requests_per_s": "e2e_latency_mean",
    "tokens_per_s_per_user": "tpot",
    "service_ttft": "ttft",
}
_FROM_INTENDED = ("ttft", "e2e_latency")
_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e_latency": "E2E latency"}


@dataclass(frozen=True, slots=True)
class Gate:
    """A number that decides: its metric (``tpot_p50``, ``output_tokens_per_s``) and the margin, a fraction."""

    metric: str
    margin: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One number of a cell. ``relative``: the client's error as a fraction of it; None: not calibrated."""

    level: Level
    margin: float
    error_s: float | None = None
    relative: float | None = None


@dataclass(frozen=True, slots=True)
class Validity:
    """Of a cell: the worst that was found, why in a word or two, and a sentence for everything that is not well."""

    level: Level
    cause: str = ""  # of a DEGRADED or INVALID level
    reasons: tuple[str, ...] = ()
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)

    @property
    def worst_relative(self) -> float | None:
        """The greatest error of any endpoint, as a fraction of it; None: nothing was calibrated."""
        known = [abs(each.relative) for each in self.endpoints.values() if each.relative is not None]
        return max(known, default=None)

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json."""
        endpoints = {
            name: {"level": each.level, "margin": each.margin, "error_s": each.error_s, "relative": each.relative}
            for name, each in self.endpoints.items()
        }
        return {
            "level": self.level,
            "cause": self.cause or None,
            "reasons": list(self.reasons),
            "client_error": self.worst_relative,
            "endpoints": endpoints,
        }


class _Doubt(NamedTuple):
    level: Level
    cause: str
    reason: str


def validity(
    metrics: Mapping[str, Mapping[str, Any]],
    calibration: Calibration | None,
    gates: Sequence[Gate] = (),
    *,
    why_uncalibrated: str = "",
    spoilt_rounds: int = 0,
    rounds: int = 1,
    hidden_first_s: float = 0.0,
) -> Validity:
    """Judge a cell.

    ``metrics``: as they stand in run.json. ``spoilt_rounds``: those in which the clock was set. ``hidden_first_s``: how
    much earlier the median first token may have come than it was read, with later ones.
    """
    margins = _margins(metrics, gates)
    endpoints = {name: _endpoint(name, margin, metrics, calibration) for name, margin in margins.items()}
    doubts = [
        *_errors(endpoints),
        *_slip(metrics),
        *_hidden(hidden_first_s, metrics, margins.get("ttft_p50", DEFAULT_MARGIN)),
        *_clock(spoilt_rounds, rounds),
        *_reach(calibration),
    ]
    level = worst(doubt.level for doubt in doubts)
    cause = ", ".join(dict.fromkeys(doubt.cause for doubt in doubts if doubt.level == level))
    reasons = [with_level(doubt.level, doubt.reason) for doubt in doubts]
    if calibration is None:
        reasons.append(f"client error: uncalibrated{f' ({why_uncalibrated})' if why_uncalibrated else ''}")
    level = worst((level, "valid" if calibration else "uncalibrated", *(each.level for each in endpoints.values())))
    return Validity(level, cause, tuple(reasons), endpoints)


def with_machine(judged: Mapping[str, Any], level: Level, reasons: Sequence[str]) -> dict[str, Any]:
    """What stands in run.json for the client alone (``judged``), joined with what was found of machine or server.

    ``levels`` keeps apart whose doubt it is; may be called again for what is found later.
    """
    if level == "valid" and not reasons:
        return dict(judged)
    joined = list(dict.fromkeys([*judged["reasons"], *reasons]))
    known = judged.get("levels") or {"client": judged["level"], "machine": "valid"}
    levels = {**known, "machine": worst((known["machine"], level))}
    return {**judged, "level": worst((judged["level"], level)), "reasons": joined, "levels": levels}


def with_level(level: Level, reason: str) -> str:
    """``reason`` as it stands among others: each says how bad it is."""
    return f"{level.upper()}: {reason}"


def worst(levels: Iterable[Level]) -> Level:
    """The worst of ``levels``; valid when there is none."""
    return max(levels, key=LEVELS.index, default="valid")


def _margins(metrics: Mapping[str, Any], gates: Sequence[Gate]) -> dict[str, float]:
    """The endpoints that the cell has, and what each must be able to show: gated ones their margin."""
    margins = {name: DEFAULT_MARGIN for name in _ENDPOINTS if _measured(name, metrics)}
    return margins | {gate.metric: gate.margin for gate in gates if _measured(gate.metric, metrics)}


def _measured(name: str, metrics: Mapping[str, Any]) -> float | None:
    """The cell's own number, in seconds (for a rate: of the times that it is made of)."""
    metric, statistic = _split(name)
    value = metrics.get(metric, {}).get("summary", {}).get(statistic)
    return None if value is None else float(value)


def _split(name: str) -> tuple[str, str]:
    """Metric and statistic of an endpoint."""
    name = _TIME_OF_RATE.get(name, name)
    metric, _, statistic = name.rpartition("_")
    if statistic == "mean" or (statistic[:1] == "p" and statistic[1:].isdigit()):
        return _TIME_OF_RATE.get(metric, metric), statistic
    return name, "p50"


def _endpoint(name: str, margin: float, metrics: Mapping[str, Any], calibration: Calibration | None) -> Endpoint:
    metric, statistic = _split(name)
    error_s = calibration.error_s(metric, statistic) if calibration else None
    value_s = _measured(name, metrics)
    if error_s is None or not value_s:
        return Endpoint("uncalibrated", margin)
    relative = error_s / value_s
    return Endpoint(_against(abs(relative), margin / 2), margin, error_s, relative)


def _against(value: float, limit: float) -> Level:
    """Above the limit is degraded, above twice of it invalid."""
    if value > 2 * limit:
        return "invalid"
    return "degraded" if value > limit else "valid"


def _limit(level: Level, limit: float) -> float:
    """What ``_against`` found to be passed."""
    return 2 * limit if level == "invalid" else limit


def _errors(endpoints: Mapping[str, Endpoint]) -> Iterator[_Doubt]:
    for name, each in endpoints.items():
        if each.level not in ("degraded", "invalid") or each.relative is None:
            continue
        share = "the whole" if each.level == "invalid" else "half"
        said = f"is {abs(each.relative):.1%}, more than {share} of the {each.margin * 100:.3g}% margin"
        yield _Doubt(each.level, "client error", f"client error of {_title(name)} {said}")


def _title(name: str) -> str:
    metric, _, statistic = name.rpartition("_")
    return f"{_TITLES[metric]} {statistic}" if metric in _TITLES else name


def _slip(metrics: Mapping[str, Any]) -> Iterator[_Doubt]:
    """Requests that leave late make the metrics that count from the intended time show the client."""
    slip = metrics.get("slip", {}).get("summary", {})
    counted = [_measured(f"{name}_p50", metrics) for name in _FROM_INTENDED]
    middle_s = next((value for value in counted if value), 0.0)  # TTFT; without streaming, E2E latency
    limit_s = max(SLIP_FLOOR_S, SLIP_SHARE * middle_s)
    statistic, level = _tail_of_slip(slip, limit_s)
    if level != "valid":
        said = f"slip {statistic} is {(slip[statistic] or 0.0) * 1e3:.1f} ms"
        yield _Doubt(level, "slip", f"requests left late: {said}, limit {_limit(level, limit_s) * 1e3:.1f} ms")


def _tail_of_slip(slip: Mapping[str, float | None], limit_s: float) -> tuple[str, Level]:
    """p99 where there are requests enough for it. Else the maximum: one late request of a few degrades, and no more."""
    if (p99_s := slip.get("p99")) is not None:
        return "p99", _against(p99_s, limit_s)
    if _against(slip.get("p50") or 0.0, limit_s) == "invalid":
        return "p50", "invalid"
    return "max", "degraded" if (slip.get("max") or 0.0) > limit_s else "valid"


def _hidden(hidden_s: float, metrics: Mapping[str, Any], margin: float) -> Iterator[_Doubt]:
    """First tokens that one read brought together with later ones: a starved client, or a server that holds them."""
    middle_s = _measured("ttft_p50", metrics)
    if not middle_s or (level := _against(hidden_s / middle_s, margin / 2)) == "valid":
        return
    share = f"{hidden_s / middle_s:.1%} of TTFT p50, limit {_limit(level, margin / 2) * 100:.3g}%"
    said = f"their median may be {hidden_s * 1e3:.3g} ms earlier, {share}"
    yield _Doubt(level, "merged reads", f"first tokens came in one read with later ones: {said}")


def _clock(spoilt: int, rounds: int) -> Iterator[_Doubt]:
    if spoilt:
        level: Level = "invalid" if spoilt >= rounds else "degraded"
        yield _Doubt(level, "clock", f"the clock was set during {spoilt} of {rounds} rounds")


def _reach(calibration: Calibration | None) -> Iterator[_Doubt]:
    if calibration and calibration.clock_stepped:
        yield _Doubt("degraded", "calibration", "the clock was set during the calibration")
    elif calibration and not calibration.holds:
        reached = f"the calibration reached {calibration.sustained:.0%} of the cell's token rate only"
        yield _Doubt("degraded", "calibration", reached)
