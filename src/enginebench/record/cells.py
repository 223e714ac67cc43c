"""What came out of each cell."""

from typing import Annotated, Literal

from pydantic import Field

from enginebench.measure.validity import Level
from enginebench.record.kinds import OPTIONAL, Count, Measured, Number, Part, Positive, Whole


class Load(Part):
    kind: str
    label: str
    level: Number
    arrival: str | None = OPTIONAL
    burstiness: Number = OPTIONAL
    trace: str | None = OPTIONAL
    speedup: Number = OPTIONAL
    per_s: Number | None = OPTIONAL
    ramp_to_per_s: Number | None = OPTIONAL


Summary = dict[str, Measured | None]
Two = Annotated[list[Whole], Field(min_length=2, max_length=2)]


class Metric(Part):
    summary: Summary
    per_round: list[Measured | None] = OPTIONAL


class EndpointValidity(Part):
    level: Level
    relative: Number | None = OPTIONAL


class Levels(Part):
    client: Level
    machine: Level


class Validity(Part):
    level: Level
    cause: str | None = OPTIONAL
    reasons: list[str]
    client_error: Number | None = OPTIONAL
    endpoints: dict[str, EndpointValidity] | None = OPTIONAL
    levels: Levels | None = OPTIONAL


class Block(Part):
    block: Whole
    pair: Whole | None
    rounds: Count = OPTIONAL
    requests: Count
    failed_requests: Count
    broken: str | None
    validity: Validity | None = OPTIONAL
    metrics: dict[str, Summary]


class CellMemory(Part):
    gpu_peak_bytes: Count | None = OPTIONAL
    gpu_reason: str | None = OPTIONAL
    host_peak_bytes: dict[str, Count] = OPTIONAL


class Seen(Part):
    p50: Number | None = OPTIONAL
    min: Number | None = OPTIONAL
    max: Number | None = OPTIONAL


class OneGpu(Part):
    average_power_w: Number | None = OPTIONAL
    peak_bytes: Count | None = OPTIONAL
    sm_clock_mhz: Seen | None = OPTIONAL
    temperature_c: Seen | None = OPTIONAL
    throttle: dict[str, Number] | None = OPTIONAL


class Work(Part):
    seconds: Positive
    bytes: Positive
    flops: Number
    requests: Number
    tokens: Number


class GpuLimits(Part):
    gpus: Count
    peak_bytes_per_s: Positive | None = OPTIONAL
    peak_flops_per_s: Positive | None = OPTIONAL
    decode: Work | None = OPTIONAL
    prefill: Work | None = OPTIONAL
    reasons: dict[str, str] | None = OPTIONAL


class CellGpu(OneGpu):
    energy_per_output_token_j: Number | None = OPTIONAL
    energy_per_request_j: Number | None = OPTIONAL
    tokens_per_j: Number | None = OPTIONAL
    energy_source: str | None = OPTIONAL
    energy_error: Number | None = OPTIONAL
    by_gpu: list[OneGpu] | None = OPTIONAL
    mbu: Number | None = OPTIONAL
    mfu: Number | None = OPTIONAL
    limits: GpuLimits | None = OPTIONAL
    round_spans_ns: list[Two] | None = OPTIONAL
    notes: list[str] | None = OPTIONAL


class Step(Part):
    mean: Number


class Engine(Part):
    source: str | None
    requests: Count
    told: Count
    queue: Step | None
    prefill: Step | None
    decode: Step | None
    iterations: dict[str, Number | None] | None = OPTIONAL


class Counted(Part):
    what: str
    client: Whole | None
    server: Whole | None
    source: str


class ModelCounts(Part):
    requests: Count
    inferences: Count
    executions: Count
    queue_s: Number
    compute_input_s: Number
    compute_infer_s: Number
    compute_output_s: Number


LayerName = Literal["client", "http_queue", "preprocessing", "slot", "prefill", "decode", "postprocessing"]


class GaugeSpan(Part):
    min: Number
    max: Number


class Gauges(Part):
    pages: Count = OPTIONAL
    values: dict[str, GaugeSpan]


class Layer(Part):
    layers: Annotated[list[LayerName], Field(min_length=1)]
    s: Number
    source: str


class Waterfall(Part):
    total_s: Positive
    measured_s: Number
    parts: list[Layer]
    residual_s: Number
    with_residual: list[LayerName]


class Layers(Part):
    first: Waterfall | None = OPTIONAL
    whole: Waterfall | None = OPTIONAL
    servers: Count = OPTIONAL
    requests: Count = OPTIONAL
    traced: bool = OPTIONAL
    why_not_traced: str | None = OPTIONAL


class OneServer(Part):
    server: str
    statistics: dict[str, ModelCounts] | None = OPTIONAL
    gauges: Gauges | None
    counted: list[Counted] | None = OPTIONAL


class Idle(Part):
    status: str


class Server(Part):
    idle_before: Idle | None = OPTIONAL
    statistics: dict[str, ModelCounts] | None = OPTIONAL
    not_offered: list[str] | None = OPTIONAL
    started_ns: Whole
    ended_ns: Whole
    gauges: Gauges | None = OPTIONAL
    counted: list[Counted] | None = OPTIONAL
    layers: Layers | None = OPTIONAL
    servers: list[OneServer] | None = OPTIONAL


class Share(Part):
    server: str
    requests: Count
    output_tokens: Count | None
    mean_e2e_latency_s: Number | None


class Cell(Part):
    scenario: str
    path: str
    streaming: bool
    output_tokens: Count
    output_stdev: Number | None = OPTIONAL
    load: Load
    status: Literal["measured", "failed", "not_applicable", "skipped"]
    reason: str | None
    prompt_tokens: Two | None = OPTIONAL
    requests_per_round: Count | None = OPTIONAL
    rounds: Count | None = OPTIONAL
    warmup_rounds: Count | None = OPTIONAL
    stamp_kind: str | None = OPTIONAL
    makespan_s: list[Positive] | None = OPTIONAL
    requests: Count = OPTIONAL
    failed_requests: Count = OPTIONAL
    findings: list[str] = OPTIONAL
    metrics: dict[str, Metric]
    memory: CellMemory = OPTIONAL
    per_block: list[Block] = OPTIONAL
    validity: Validity | None = OPTIONAL
    gpu: CellGpu | None = OPTIONAL
    engine: Engine | None = OPTIONAL
    layers: Layers | None = OPTIONAL
    server: Server | None = OPTIONAL
    shares: list[Share] | None = OPTIONAL
