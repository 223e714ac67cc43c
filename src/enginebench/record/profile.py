"""What a profile.json holds of a profiled rerun: of each kind other keys."""

from enginebench.record.kinds import OPTIONAL, Count, Number, Part, Whole


class RequestShares(Part):
    waiting_s: Number | None
    prefill_s: Number | None
    until_first_s: Number
    decode_s: Number


class EngineShares(Part):
    prefill_s: Number
    decode_s: Number
    idle_s: Number


class GpuShares(Part):
    busy_s: Number
    launch_gaps_s: Number
    host_s: Number


class Gap(Part):
    request: Whole
    start_ns: Whole
    s: Number
    cause: str
    explained_s: Number | None
    evidence: str
    others: list[Whole] = OPTIONAL


class Family(Part):
    family: str
    s: Number


class Kernel(Family):
    name: str
    calls: Count


class Operator(Part):
    name: str
    own_s: Number
    s: Number
    calls: Count


class MemoryOperation(Part):
    name: str
    s: Number
    calls: Count


class Range(Part):
    range: str
    s: Number
    calls: Count


class Function(Part):
    thread: str
    function: str
    place: str
    s: Number


class ProfileRecord(Part):
    """A profile.json."""

    status: str = OPTIONAL
    reason: str | None = OPTIONAL
    command: list[str] | None = OPTIONAL
    notes: list[str] = OPTIONAL
    files: list[str] = OPTIONAL
    started_ns: Whole | None = OPTIONAL
    round_started_ns: Whole | None = OPTIONAL
    scheduled_ns: dict[str, Whole] | None = OPTIONAL
    requests: RequestShares | None = OPTIONAL
    engine: EngineShares | None = OPTIONAL
    gpu: GpuShares | None = OPTIONAL
    gaps: list[Gap] | None = OPTIONAL
    families: list[Family] | None = OPTIONAL
    kernels: list[Kernel] | None = OPTIONAL
    operators: list[Operator] | None = OPTIONAL
    memory: list[MemoryOperation] | None = OPTIONAL
    nvtx: list[Range] | None = OPTIONAL
    functions: list[Function] | None = OPTIONAL
