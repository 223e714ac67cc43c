"""NVML: which GPUs a build may use, what they are, and what they say while it runs.

The only module that knows pynvml. A call that a card, a driver or a container does not answer is asked once and then
left alone: its value is None, never 0. Nothing is ever set. What each call costs: ``NvmlReader``.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from enginebench.measure.gpu_trace import GpuFacts

REASONS: Mapping[int, str] = {
    0x1: "idle",
    0x2: "clocks set by the operator",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clock setting",
}
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, nvmlClocksEventReason*)."""


def visible(
    uuids: Sequence[str], names: str | None, instances: Mapping[str, Sequence[str]] | None = None
) -> tuple[str, ...]:
    """The devices that CUDA shows, in its order, out of ``uuids`` in that of the PCI bus.

    ``names``: CUDA_VISIBLE_DEVICES; None: not set. ``instances``: the MIG devices of each GPU that is divided; of such
    a GPU an index means the first one. As CUDA has it, everything from the first unknown name on is invisible
    (CUDA Programming Guide, "CUDA Environment Variables").
    """
    parts = instances or {}
    cards = [next(iter(parts[uuid]), None) if uuid in parts else uuid for uuid in uuids]
    if names is None:
        return tuple(card for card in cards if card)
    found: list[str] = []
    for name in names.split(","):
        one = _named(name.strip(), cards, [*uuids, *(each for group in parts.values() for each in group)])
        if one is None or one in found:
            break
        found.append(one)
    return tuple(found)


def _named(name: str, cards: Sequence[str | None], known: Sequence[str]) -> str | None:
    if name.isdigit():
        return cards[int(name)] if int(name) < len(cards) else None
    if not name.startswith(("GPU-", "MIG-")):
        return None
    matches = [uuid for uuid in known if uuid.startswith(name)]
    return matches[0] if len(matches) == 1 else None


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU, or one MIG instance of it. ``card``: the handle of the whole GPU, which alone knows power and clocks."""

    uuid: str
    index: int
    handle: Any
    card: Any
    card_uuid: str

    @property
    def mig(self) -> bool:
        """Whether it is a part of a GPU."""
        return self.uuid != self.card_uuid


@dataclass(slots=True)
class Inventory:
    """All devices of the host in the order of the PCI bus, or why there are none."""

    devices: dict[str, Device] = field(default_factory=dict)
    uuids: list[str] = field(default_factory=list)
    instances: dict[str, list[str]] = field(default_factory=dict)
    reason: str | None = None

    def visible(self, names: str | None) -> list[Device]:
        """What CUDA shows with these CUDA_VISIBLE_DEVICES."""
        return [self.devices[uuid] for uuid in visible(self.uuids, names, self.instances)]


def find_devices() -> Inventory:
    """Look for GPUs. NVML stays initialised for the life of the process."""
    import pynvml

    found = Inventory()
    try:
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            found.uuids.append(uuid)
            found.devices[uuid] = Device(uuid, index, handle, handle, uuid)
            if _told(pynvml.nvmlDeviceGetMigMode, handle, default=(0, 0))[0]:
                found.instances[uuid] = _instances(found, found.devices[uuid])
    except pynvml.NVMLError as error:
        found.reason = f"no GPU ({error})" if not found.uuids else f"the GPUs cannot be read ({error})"
    if not found.uuids and not found.reason:
        found.reason = "no GPU (NVML finds none)"
    return found


def _instances(found: Inventory, card: Device) -> list[str]:
    import pynvml

    uuids = []
    for place in range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, card.handle, default=0)):
        with suppress(pynvml.NVMLError):  # a place without an instance
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, place)
            uuid = pynvml.nvmlDeviceGetUUID(handle)
            found.devices[uuid] = Device(uuid, card.index, handle, card.handle, card.uuid)
            uuids.append(uuid)
    return uuids


def facts_of(device: Device) -> GpuFacts:
    """What does not change while a run lasts; None where the device does not tell."""
    import pynvml as nvml

    card = device.card

    def told(name: str, *arguments: Any, of: Any = card) -> Any:
        return _told(getattr(nvml, name), of, *arguments)

    def watts(name: str) -> float | None:
        return None if (limit := told(name)) is None else limit / 1000

    memory, capability = told("nvmlDeviceGetMemoryInfo", of=device.handle), told("nvmlDeviceGetCudaComputeCapability")
    remapped, ecc = told("nvmlDeviceGetRemappedRows"), told("nvmlDeviceGetEccMode")
    return {
        "index": device.index,
        "name": told("nvmlDeviceGetName"),
        "uuid": device.uuid,
        "memory_bytes": None if memory is None else int(memory.total),
        "driver": _told(nvml.nvmlSystemGetDriverVersion),
        "power_limit_w": watts("nvmlDeviceGetEnforcedPowerLimit"),
        "power_default_w": watts("nvmlDeviceGetPowerManagementDefaultLimit"),
        "max_sm_clock_mhz": told("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        "max_memory_clock_mhz": told("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM),
        "memory_bus_bits": told("nvmlDeviceGetMemoryBusWidth"),
        "compute_capability": None if capability is None else f"{capability[0]}.{capability[1]}",
        "persistence": _flag(told("nvmlDeviceGetPersistenceMode")),
        "mig_of": device.card_uuid if device.mig else None,
        "ecc": None if ecc is None else bool(ecc[0]),
        "ecc_uncorrected": _ecc(card),
        "rows_to_remap": None if remapped is None else bool(remapped[2]),
        "energy_counter": not device.mig and told("nvmlDeviceGetTotalEnergyConsumption") is not None,
    }


def host_gpus() -> tuple[list[dict[str, Any]] | None, str | None]:
    """Facts of every GPU of the host, whether a build may use it or not; or None and why there are none."""
    found = find_devices()
    if found.reason:
        return None, found.reason
    return [dict(facts_of(found.devices[uuid])) for uuid in found.uuids], None


def _told(call: Callable[..., Any], *arguments: Any, default: Any = None) -> Any:
    """What ``call`` returns; ``default`` where this card, driver or container does not tell."""
    import pynvml

    try:
        return call(*arguments)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError):  # also: an older driver's library lacks the function
        return default


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


def _ecc(card: Any) -> int | None:
    import pynvml

    count = _told(
        pynvml.nvmlDeviceGetTotalEccErrors, card, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    )
    return None if count is None else int(count)


class NvmlReader:
    """The devices that this process's CUDA_VISIBLE_DEVICES shows.

    On an H100, ``read`` takes 20 to 50 µs a GPU, ``state`` some 15 µs and ``edge``, with the energy counter, 4 ms.
    """

    def __init__(self) -> None:
        found = find_devices()
        self.reason = found.reason
        self._devices = [] if found.reason else found.visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
        if not self._devices and not self.reason:
            self.reason = f"no GPU (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r} shows none)"
        self.gpus = tuple(facts_of(device) for device in self._devices) or None
        self._readers = [_cheap(device) for device in self._devices]
        self._events = _event_set(self._devices)

    def read(self, stamp_ns: int) -> list[list[Any]] | None:  # noqa: ARG002 - a trace wants to know
        """What each device says now, in the order of ``COLUMNS``."""
        if self.gpus is None:
            return None
        return [[value for call in calls for value in call()] for calls in self._readers]

    def state(self) -> tuple[list[Any], list[Any]]:
        """Processes of each device with their bytes, and what has happened since the last call."""
        return [_processes(device) for device in self._devices], self._happened()

    def edge(self, mark: str, stamp_ns: int) -> dict[str, Any]:  # noqa: ARG002 - a trace wants to know
        """Energy since the driver was loaded, and ECC errors; None of a part of a GPU."""
        if self.gpus is None:
            return {"energy_j": None, "ecc_uncorrected": None}
        return {
            "energy_j": [_energy_j(device) for device in self._devices],
            "ecc_uncorrected": [_ecc(device.card) for device in self._devices],
        }

    def _happened(self) -> list[tuple[int, str, int]]:
        import pynvml

        events: list[tuple[int, str, int]] = []
        with suppress(pynvml.NVMLError):  # nothing more has happened, or nobody may know
            while self._events is not None:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                uuid = pynvml.nvmlDeviceGetUUID(event.device)
                kind = "xid" if event.eventType == pynvml.nvmlEventTypeXidCriticalError else "ecc"
                code = int(event.eventData) if kind == "xid" else 0
                events += [(place, kind, code) for place, each in enumerate(self._devices) if each.card_uuid == uuid]
        return events


Call = Callable[[], "tuple[Any, ...]"]


def _cheap(device: Device) -> list[Call]:
    """Calls of some microseconds; what they give, one after the other, are the ``COLUMNS``."""
    import pynvml as nvml

    handle, card = device.handle, device.card

    def memory() -> tuple[int, int]:
        info = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
        return int(info.used), int(info.reserved)

    def memory_of_old_drivers() -> tuple[int, None]:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used), None

    def utilisation() -> tuple[int, int]:
        rates = nvml.nvmlDeviceGetUtilizationRates(card)
        return int(rates.gpu), int(rates.memory)

    return [
        _or_none(memory if _told(memory) else memory_of_old_drivers, 2),
        (lambda: (None, None)) if device.mig else _or_none(utilisation, 2),
        _or_none(lambda: (int(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_SM)),)),
        _or_none(lambda: (int(nvml.nvmlDeviceGetClockInfo(card, nvml.NVML_CLOCK_MEM)),)),
        _or_none(lambda: (nvml.nvmlDeviceGetPowerUsage(card) / 1000,)),
        _or_none(lambda: (int(nvml.nvmlDeviceGetTemperature(card, nvml.NVML_TEMPERATURE_GPU)),)),
        _or_none(lambda: (int(_reasons(nvml)(card)),)),
    ]


def _reasons(nvml: Any) -> Any:
    """The call by the name that it had before 2023, where the library has no other."""
    newer = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    return newer or nvml.nvmlDeviceGetCurrentClocksThrottleReasons


def _or_none(call: Call, width: int = 1) -> Call:
    """``call``, or Nones where it fails; where it fails the first time already, it is not tried again."""
    nothing = (None,) * width
    if _told(call) is None:
        return lambda: nothing
    return lambda: _told(call, default=nothing)


def _processes(device: Device) -> list[tuple[int, int | None]] | None:
    import pynvml

    found = _told(pynvml.nvmlDeviceGetComputeRunningProcesses, device.handle)
    return None if found is None else [(each.pid, each.usedGpuMemory) for each in found]


def _energy_j(device: Device) -> float | None:
    import pynvml

    if device.mig:  # the counter is of the whole GPU
        return None
    millijoules = _told(pynvml.nvmlDeviceGetTotalEnergyConsumption, device.card)
    return None if millijoules is None else millijoules / 1000


def _event_set(devices: Sequence[Device]) -> Any:
    """A set in which XID and ECC errors of ``devices`` are noted; None where that is not allowed."""
    import pynvml

    try:
        events = pynvml.nvmlEventSetCreate()
        for device in devices:
            wanted = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
            allowed = pynvml.nvmlDeviceGetSupportedEventTypes(device.card) & wanted
            pynvml.nvmlDeviceRegisterEvents(device.card, allowed, events)
    except pynvml.NVMLError:
        return None
    return events if devices else None
