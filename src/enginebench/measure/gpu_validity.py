"""Whether the cards were fit to be measured: what was wrong with them, before and during the rounds of a cell.

Pure. ``validity`` judges the client, this the machine; the worse of both is the cell's level.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from enginebench.measure.energy import RoundGpu
from enginebench.measure.gpu_trace import GpuFacts
from enginebench.measure.validity import Level, with_level, worst

OF_THE_OPERATOR = ("clocks set by the operator", "sync boost", "display clock setting")
"""Reasons that are settings, not troubles: a card with locked clocks is a steady one."""

CAP_SHARE = 0.05  # of the samples in which the power cap held clocks down
SLOWDOWN_SHARE = 0.01  # any other trouble
BAD_SHARE = 0.2  # of them, above which nothing is worth reporting
CLOCK_SHARE = 0.9  # of the highest clock
DRIFT_C = 10.0
GAP_S = 1.0
CPU_SHARE = 0.95
SWAP_BYTES = 2**20

Judgement = tuple[Level, str]


@dataclass(frozen=True, slots=True)
class MachineValidity:
    """The level and its reasons; ``notes`` are worth knowing and spoil nothing."""

    level: Level
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def gpu_validity(
    cards: Sequence[GpuFacts], rounds: Sequence[RoundGpu], unasked_hits: str | None = None
) -> MachineValidity:
    """Judge the ``cards`` that a cell used over its measured ``rounds``; with no card: the host alone.

    ``unasked_hits``: what was seen of a prefix cache that the scenario does not want.
    """
    found: list[Judgement] = [*_of_host(rounds, on_gpu=bool(cards))]
    if unasked_hits:
        found.append(("degraded", f"the engine reuses the KV cache of prompts, unasked: {unasked_hits.rstrip('.')}"))
    if cards:
        for name, own in by_gpu(rounds):
            found += [*_throttling(name, own), *_clocks(name, cards, own), *_drift(name, own)]
        found += [*_errors(rounds), *_company(rounds), *_unseen(rounds), *_parts(cards)]
    return MachineValidity(
        worst(level for level, _ in found), tuple(with_level(*each) for each in found), tuple(_notes(cards))
    )


def by_gpu(rounds: Sequence[RoundGpu]) -> list[tuple[str, Sequence[RoundGpu]]]:
    """What each of several GPUs did in ``rounds``, under its name; of one, they themselves."""
    several = [[*own] for own in zip(*(each.each for each in rounds), strict=True)]
    return [(f"GPU {place}", own) for place, own in enumerate(several)] or [("the GPU", rounds)]


def throttle_shares(rounds: Sequence[RoundGpu]) -> dict[str, float]:
    """Share of the samples in which each reason held, over all rounds."""
    samples = sum(each.samples for each in rounds)
    counts: Counter[str] = Counter()
    for each in rounds:
        counts.update(each.reasons)
    return {reason: count / samples for reason, count in counts.items()} if samples else {}


def _throttling(name: str, rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    for reason, share in throttle_shares(rounds).items():
        if reason in OF_THE_OPERATOR:
            continue
        cap = reason == "power cap"
        if share > (CAP_SHARE if cap else SLOWDOWN_SHARE):
            level: Level = "invalid" if share > BAD_SHARE and not cap else "degraded"
            yield level, f"{name} held its clocks down for {share:.0%} of the time ({reason})"


def _clocks(name: str, cards: Sequence[GpuFacts], rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    highest = min((card["max_sm_clock_mhz"] for card in cards if card.get("max_sm_clock_mhz")), default=None)
    clocks = [clock for each in rounds for clock in each.sm_clocks_mhz]
    if highest and clocks and median(clocks) < CLOCK_SHARE * highest:
        yield (
            "degraded",
            f"the SM clock of {name} was {median(clocks):.0f} MHz at the median, of {highest} MHz that it can have",
        )


def _errors(rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    for kind, code in dict.fromkeys(event for each in rounds for event in each.events):
        what = f"XID {code}" if kind == "xid" else "an uncorrected ECC error"
        yield "invalid", f"the driver reported {what} during a round"
    errors = sum(each.ecc_errors or 0 for each in rounds)
    if errors:
        yield "invalid", f"{errors} uncorrected ECC errors happened during the rounds"


def _company(rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    foreign = sorted({pid for each in rounds for pid in each.foreign})
    if foreign:
        yield "degraded", f"other processes were on the GPU (pid {', '.join(map(str, foreign))})"


def _drift(name: str, rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    middles = [median(each.temperatures_c) for each in rounds if each.temperatures_c]
    if middles and (drift := max(middles) - min(middles)) > DRIFT_C:
        yield "degraded", f"the temperature of {name} drifted by {drift:.0f} °C between rounds"


def _unseen(rounds: Sequence[RoundGpu]) -> Iterator[Judgement]:
    lost_s = sum(each.longest_gap_s for each in rounds if each.longest_gap_s > GAP_S)
    total_s = sum(each.window_s for each in rounds)
    if total_s and lost_s > BAD_SHARE * total_s:
        yield "degraded", f"nobody saw the GPU for {lost_s / total_s:.0%} of the time: NVML did not answer"


def _parts(cards: Sequence[GpuFacts]) -> Iterator[Judgement]:
    if any(card.get("mig_of") for card in cards):
        yield "degraded", "the build ran on a part of a GPU (MIG), whose other parts share power and clocks"


def _of_host(rounds: Sequence[RoundGpu], *, on_gpu: bool) -> Iterator[Judgement]:
    swapped = sum(each.swapped_bytes or 0 for each in rounds)
    if swapped > SWAP_BYTES:
        yield "degraded", f"the host swapped {swapped / 2**20:,.0f} MiB during the rounds"
    busy = [each.cpu_busy for each in rounds if each.cpu_busy is not None]
    if on_gpu and busy and max(busy) > CPU_SHARE:  # an engine on the CPU is meant to keep it busy
        yield "degraded", f"the host's cores were {max(busy):.0%} busy: the engine may have waited for them"


def _notes(cards: Sequence[GpuFacts]) -> Iterator[str]:
    for card in cards:
        limit_w, default_w = card.get("power_limit_w"), card.get("power_default_w")
        if card.get("persistence") is False:
            yield "Persistence mode is off: the driver unloads between runs, which makes loading slower."
        if limit_w and default_w and limit_w < default_w:
            yield f"The power limit is {limit_w:.0f} W, below the card's {default_w:.0f} W."


def unseen_findings(rounds: Sequence[RoundGpu]) -> list[str]:
    """A sentence for each round in which samples are missing."""
    return [
        f"In round {number}, there was no sample for {each.longest_gap_s:.1f} s: what the GPU did then is not known."
        for number, each in enumerate(rounds, 1)
        if each.longest_gap_s > GAP_S
    ]


def spread(values: Sequence[float]) -> Mapping[str, float] | None:
    """Median, least and greatest; None without a value."""
    return {"p50": median(values), "min": min(values), "max": max(values)} if values else None
