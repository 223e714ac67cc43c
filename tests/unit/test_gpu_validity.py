"""What spoils a card for measuring: each trouble alone, at and above its limit."""

from dataclasses import replace
from typing import Any

import pytest

from enginebench.measure.energy import RoundGpu
from enginebench.measure.gpu_doctor import gpu_hazards
from enginebench.measure.gpu_trace import GpuFacts, GpuReading
from enginebench.measure.gpu_validity import gpu_validity, throttle_shares, unseen_findings
from enginebench.measure.validity import with_machine
from tests.support.gpu_traces import BUSY, CARD, IDLE

GOOD = RoundGpu(
    window_s=10.0,
    samples=100,
    longest_gap_s=0.05,
    sm_clocks_mhz=(1980,) * 100,
    temperatures_c=(50,) * 100,
    cpu_busy=0.4,
)


def judged(card: dict[str, Any] | None = None, **changes: Any) -> tuple[str, tuple[str, ...]]:
    found = gpu_validity([{**CARD, **(card or {})}], [GOOD, replace(GOOD, **changes)])
    return found.level, found.reasons


def test_a_good_card_is_valid() -> None:
    assert judged() == ("valid", ())
    assert gpu_validity([], []).level == "valid"


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"reasons": {"power cap": 10}}, "valid", ""),
        ({"reasons": {"power cap": 12}}, "degraded", "6% of the time (power cap)"),
        ({"reasons": {"power cap": 100}}, "degraded", "50% of the time (power cap)"),
        ({"reasons": {"hardware thermal slowdown": 3}}, "degraded", "hardware thermal slowdown"),
        ({"reasons": {"hardware thermal slowdown": 60}}, "invalid", "30% of the time"),
        ({"reasons": {"clocks set by the operator": 100}}, "valid", ""),
        ({"sm_clocks_mhz": (1200,) * 300}, "degraded", "1200 MHz at the median, of 1980 MHz"),
        ({"temperatures_c": (60,)}, "valid", ""),
        ({"temperatures_c": (61,)}, "degraded", "drifted by 11 °C"),
        ({"foreign": (41, 7)}, "degraded", "(pid 7, 41)"),
        ({"events": (("xid", 79),)}, "invalid", "XID 79"),
        ({"ecc_errors": 2}, "invalid", "2 uncorrected ECC errors"),
        ({"longest_gap_s": 9.0}, "degraded", "45% of the time: NVML did not answer"),
        ({"swapped_bytes": 5 * 2**20}, "degraded", "swapped 5 MiB"),
        ({"cpu_busy": 0.99}, "degraded", "99% busy"),
    ],
)
def test_troubles(changes: dict[str, Any], level: str, words: str) -> None:
    found, reasons = judged(**changes)
    assert found == level
    assert len(reasons) == (level != "valid")
    assert words in "".join(reasons)


def test_one_troubled_card_of_several_is_not_averaged_away() -> None:
    slow = replace(GOOD, sm_clocks_mhz=(1500,) * 100, reasons={"power cap": 8})
    found = gpu_validity([CARD, CARD], [replace(GOOD, samples=200, reasons={"power cap": 8}, each=(GOOD, slow))] * 2)
    assert found.level == "degraded"
    assert found.reasons == (
        "DEGRADED: GPU 1 held its clocks down for 8% of the time (power cap)",
        "DEGRADED: the SM clock of GPU 1 was 1500 MHz at the median, of 1980 MHz that it can have",
    )


def test_a_busy_host_is_as_it_should_be_for_an_engine_on_the_host() -> None:
    assert gpu_validity([], [replace(GOOD, cpu_busy=1.0)]).level == "valid"
    assert gpu_validity([], [replace(GOOD, swapped_bytes=2**30)]).level == "degraded"


def test_prompts_from_a_cache_that_nobody_asked_for_degrade() -> None:
    found = gpu_validity([], [GOOD], unasked_hits="The same prompt reused 3 blocks.")
    assert found.level == "degraded"
    assert "unasked: The same prompt reused 3 blocks" in found.reasons[0]


def test_settings_are_noted_and_parts_of_a_card_degrade() -> None:
    found = gpu_validity([{**CARD, "persistence": False, "power_limit_w": 500.0}], [GOOD])
    assert found.level == "valid"
    assert [note.split(":")[0] for note in found.notes] == [
        "Persistence mode is off", "The power limit is 500 W, below the card's 700 W."
    ]  # fmt: skip
    assert judged({"mig_of": "GPU-a"})[0] == "degraded"


def test_shares_and_gaps_over_all_rounds() -> None:
    assert throttle_shares([GOOD, replace(GOOD, reasons={"power cap": 50})]) == {"power cap": 0.25}
    assert throttle_shares([]) == {}
    assert unseen_findings([GOOD, replace(GOOD, longest_gap_s=2.5)]) == [
        "In round 2, there was no sample for 2.5 s: what the GPU did then is not known."
    ]


def test_the_worse_of_client_and_machine_counts_and_reasons_are_said_once() -> None:
    client = {"level": "uncalibrated", "reasons": ["a"], "client_error": None}
    assert with_machine(client, "valid", []) == client
    assert with_machine(client, "degraded", ["b", "a"]) == {
        **client,
        "level": "degraded",
        "reasons": ["a", "b"],
        "levels": {"client": "uncalibrated", "machine": "degraded"},
    }


class Gpus:
    """One idle card."""

    reason: str | None = None

    def __init__(self, card: dict[str, Any], reading: GpuReading, processes: list[Any] | None) -> None:
        self.gpus: tuple[GpuFacts, ...] | None = ({**CARD, **card},)
        self._row, self._processes = reading.row(), processes

    def read(self, stamp_ns: int) -> list[list[Any]]:  # noqa: ARG002 - a trace wants to know
        return [self._row]

    def state(self) -> tuple[list[Any], list[Any]]:
        return [self._processes], []


def test_the_doctor_says_what_an_operator_could_set() -> None:
    assert gpu_hazards(Gpus({}, IDLE, [])) == []
    card = {"persistence": False, "power_limit_w": 400.0, "ecc_uncorrected": 3, "rows_to_remap": True}
    said = " ".join(gpu_hazards(Gpus(card, replace(BUSY, temperature_c=80, event_reasons=0x22), [(7, 2**30)])))
    for words in ("-pm 1", "-pl 700", "3 uncorrected", "remapped", "80 °C", "pid 7 with 1.0 GiB", "-rgc",
                  "software thermal slowdown"):  # fmt: skip
        assert words in said
    assert "GPU 0: " in said
