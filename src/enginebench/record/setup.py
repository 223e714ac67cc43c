"""What was measured, and on what: the build, the machine, the plan, the sessions."""

from typing import Annotated, Any, Literal

from enginebench.plan.scenario import GATE_METRICS, MEMORY
from enginebench.record.kinds import OPTIONAL, Count, Number, Part, Positive, Share, Whole, one_of


class Build(Part):
    name: str
    kind: str
    directory: str
    version: str | None
    architecture: str
    dtype: str
    fingerprint: str
    facts: dict[str, dict[str, Any]] | None = OPTIONAL


class Cpu(Part):
    model: str | None = OPTIONAL
    usable_cores: Whole | None = OPTIONAL


class Gpu(Part):
    name: str | None = OPTIONAL
    driver: str | None = OPTIONAL
    power_limit_w: Number | None = OPTIONAL


class Git(Part):
    commit: str | None = OPTIONAL


class Environment(Part):
    cpu: Cpu | None = OPTIONAL
    packages: dict[str, str | None] | None = OPTIONAL
    gpus: list[Gpu] | None = OPTIONAL
    git: Git | None = OPTIONAL


class Gate(Part):
    cell: str
    metric: Annotated[str, one_of((*GATE_METRICS, MEMORY))]
    margin: Share


class Prompts(Part):
    text: str = OPTIONAL


class Scenario(Part):
    description: str = OPTIONAL
    prompts: list[Prompts] = OPTIONAL
    slo: dict[Literal["ttft_ms", "tpot_ms", "e2e_latency_ms"], Positive | None] | None = OPTIONAL
    gate: list[Gate] = OPTIONAL


class Plan(Part):
    set: str | None = OPTIONAL
    scenarios: dict[str, Scenario]
    cells: list[str]
    left_out: dict[str, str] = OPTIONAL
    engine: dict[str, Any] | None = OPTIONAL
    servers: dict[str, list[str]] = OPTIONAL


class HostPhases(Part):
    before_load: Count | None = OPTIONAL
    after_load: Count | None = OPTIONAL
    peak: Count | None = OPTIONAL
    after_unload: Count | None = OPTIONAL


class Memory(Part):
    gpu: HostPhases | None = OPTIONAL
    gpu_reason: str | None = OPTIONAL
    host: dict[str, HostPhases | None] | None = OPTIONAL


class LedgerLine(Part):
    what: str
    owner: str
    bytes: Whole | None
    source: str
    expected_bytes: Whole | None = OPTIONAL


class Pool(Part):
    bytes: Count | None = OPTIONAL


class Check(Part):
    name: str
    status: Literal["verified", "failed", "unverified", "not applicable"]
    detail: str
    server: str | None = OPTIONAL


class Filled(Part):
    model: str
    variable: str
    value: str
    source: str


class Repository(Part):
    templates: str
    kind: str
    filled: list[Filled]
    left: dict[str, list[str]]
    warnings: list[str]


class Session(Part):
    path: str
    block: Whole = OPTIONAL
    facts: dict[str, Any] | None = OPTIONAL
    opened_s: Number | None = OPTIONAL
    memory: Memory | None = OPTIONAL
    gpus: list[Any] | None = OPTIONAL
    ledger: list[LedgerLine] | None = OPTIONAL
    ledger_warnings: list[str] | None = OPTIONAL
    kv_pool: Pool | None = OPTIONAL
    host_slope_bytes_per_s: dict[str, Number | None] | None = OPTIONAL
    preflight: list[Check] | None = OPTIONAL
    repository: Repository | None = OPTIONAL
