"""What would spoil a measurement on this machine, and what its operator could set. Looks; sets nothing.

For ``enginebench doctor``. What is wrong while a run lasts is found by ``gpu_validity``, with the same limits.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from enginebench.clock import now_ns
from enginebench.measure.gpu_trace import GpuFacts, GpuReading, Gpus, read_reading
from enginebench.measure.gpu_validity import OF_THE_OPERATOR
from enginebench.measure.nvml import REASONS

HOT_C = 70
GIB = 2**30

_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def gpu_hazards(gpus: Gpus) -> list[str]:
    """A sentence for everything about the visible GPUs that would spoil a measurement, with what to do."""
    rows = gpus.read(now_ns())
    if not gpus.gpus or rows is None:
        return []
    processes, _ = gpus.state()
    found: list[str] = []
    for card, row, present in zip(gpus.gpus, rows, processes, strict=True):
        name = f"GPU {card['index']}"
        found += [f"{name}: {sentence}" for sentence in _of_card(card, read_reading(row), present)]
    return found + list(_of_order(gpus.gpus))


def host_hazards() -> list[str]:
    """The same of the host: swap, other load, and a governor that lets clocks fall."""
    found = []
    swapped, load, cores = psutil.swap_memory().used, os.getloadavg()[0], len(os.sched_getaffinity(0))
    if swapped:
        found.append(f"{swapped / GIB:.1f} GiB are swapped out: stop what needs the memory.")
    if load > cores / 2:
        found.append(f"other processes load {load:.1f} of {cores} cores: wait for them, or stop them.")
    if _GOVERNOR.is_file() and (governor := _GOVERNOR.read_text().strip()) != "performance":
        found.append(f"the CPU governor is {governor}: set it with 'cpupower frequency-set -g performance'.")
    return found


def _of_card(card: GpuFacts, reading: GpuReading, processes: Sequence[Any] | None) -> Iterator[str]:
    index = card["index"]
    if card.get("persistence") is False:
        yield f"persistence mode is off, so the driver unloads between runs: 'nvidia-smi -i {index} -pm 1'."
    if card.get("mig_of"):
        yield "it is a part of a GPU (MIG): others share its power and clocks, and its energy is not told."
    yield from _of_power(card)
    yield from _of_errors(card)
    yield from _of_reasons(index, reading)
    if processes:
        names = ", ".join(f"pid {pid}" + (f" with {used / GIB:.1f} GiB" if used else "") for pid, used in processes)
        yield f"processes compute on it already ({names}): stop them, or choose another with CUDA_VISIBLE_DEVICES."
    if reading.temperature_c is not None and reading.temperature_c > HOT_C:
        yield f"it is {reading.temperature_c} °C warm before anything runs: wait, or see to its cooling."


def _of_power(card: GpuFacts) -> Iterator[str]:
    limit_w, default_w = card.get("power_limit_w"), card.get("power_default_w")
    if limit_w and default_w and limit_w < default_w:
        yield (
            f"its power limit is {limit_w:.0f} W of {default_w:.0f} W: 'nvidia-smi -i {card['index']} -pl "
            f"{default_w:.0f}' lifts it."
        )


def _of_errors(card: GpuFacts) -> Iterator[str]:
    if card.get("ecc_uncorrected"):
        yield f"it has had {card['ecc_uncorrected']} uncorrected ECC errors since the driver was loaded: reset it."
    if card.get("rows_to_remap"):
        yield "rows of its memory wait to be remapped: reset the GPU or restart the host."


def _of_reasons(index: int, reading: GpuReading) -> Iterator[str]:
    mask = reading.event_reasons or 0
    names = [name for bit, name in REASONS.items() if mask & bit and name not in (*OF_THE_OPERATOR, "idle")]
    if names:
        yield f"its clocks are held down now ({', '.join(names)})."
    if mask & 0x2:
        yield f"its clocks are set by someone; 'nvidia-smi -i {index} -rgc -rac' gives them back."


def _of_order(cards: Sequence[GpuFacts]) -> Iterator[str]:
    """CUDA counts the fastest first unless told otherwise; NVML counts by the PCI bus."""
    if len({card.get("name") for card in cards}) > 1 and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        yield "GPUs of several kinds: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or CUDA and NVML count them differently."
