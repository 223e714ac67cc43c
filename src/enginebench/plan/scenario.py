"""The scenario file: its keys, how it is read, and its JSON schema.

What a scenario becomes (cells, requests) is in ``expand.py`` and ``prompts.py``.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from enginebench.errors import ScenarioError
from enginebench.plan.cells import DEFAULT_PATHS, PATHS, Cell
from enginebench.plan.keys import MOST, Bare, Count, Keys, OneOrMany, OrWord, problem
from enginebench.plan.load import Batch, Load, Trim
from enginebench.plan.load_keys import LoadKeys, Share, TrimKeys
from enginebench.plan.messages import did_you_mean, first_problem, shown
from enginebench.plan.prompt_file import OUTPUT_LENGTHS
from enginebench.plan.prompt_keys import Length, Prompts, Text, mean_and_stdev
from enginebench.plan.yaml_file import Document, read_document

_T = TypeVar("_T")

SETS_FILE = "sets.yaml"
FROM_FILE = "from_file"
"""Of answers: as long as the line of the prompt says."""
ORDERS = ("file", "shuffled")
"""In which prompts are asked."""

DISTRIBUTIONS = ("ttft", "service_ttft", "tpot", "itl", "e2e_latency", "tokens_per_s_per_user")
"""Metrics that are gated as a percentile, e.g. ``tpot_p50``."""
RATES = (
    "output_tokens_per_s",
    "total_tokens_per_s",
    "requests_per_s",
    "steady_output_tokens_per_s",
    "steady_requests_per_s",
    "goodput",
    "slo_attainment",
)
"""Metrics that are gated as they are."""
OF_GPU = ("output_tokens_per_s_per_gpu", "energy_per_output_token", "mbu")
"""The same, of builds that compute on a GPU: without one they have no value, and a gate on them never passes."""
GATE_METRICS = (*(f"{name}_{p}" for name in DISTRIBUTIONS for p in ("p50", "p90", "p95", "p99")), *RATES, *OF_GPU)
MEMORY = "gpu_memory"
"""GPU memory of a loaded engine outside its KV pool: gated, too, and of a path rather than of a cell."""
_NEEDS_STREAMING = ("ttft", "service_ttft", "tpot", "itl", "tokens_per_s_per_user", "mbu")


def _known_path(path: str) -> str:
    if path not in PATHS:
        raise problem(f"{shown(path)} is not a path; {did_you_mean(path, PATHS)}")
    return path


def _known_order(order: str) -> str:
    if order not in ORDERS:
        raise problem(f"must be {' or '.join(ORDERS)}, not {shown(order)}")
    return order


Lengths = Annotated[
    tuple[Annotated[Length, Bare("mean", "integer")], ...], Field(min_length=1), OneOrMany(distinct=True)
]
PathName = Annotated[str, AfterValidator(_known_path), Field(json_schema_extra={"enum": [*PATHS]})]


class SamplingKeys(Keys):
    """How tokens are drawn. Request *i* of a round uses ``seed + i``."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_k: Annotated[int, Field(ge=0, lt=2**31)] = Field(default=0, description="0: no limit.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Slo(Keys):
    """Limits that a good request keeps, in milliseconds."""

    ttft_ms: Annotated[float, Field(gt=0)] | None = None
    tpot_ms: Annotated[float, Field(gt=0)] | None = None
    e2e_latency_ms: Annotated[float, Field(gt=0)] | None = None

    @property
    def limits_s(self) -> dict[str, float]:
        """Metric name → limit in seconds, for the limits that are set."""
        return {key.removesuffix("_ms"): value / 1000 for key, value in self.model_dump(exclude_none=True).items()}


class GateEndpoint(Keys):
    """One number that a change of build may not worsen by more than ``margin``."""

    cell: Text = Field(
        description="A cell's id without the scenario's name, e.g. ensemble-stream-out1024-bs008; of gpu_memory a path."
    )
    metric: Text = Field(
        description="E.g. tpot_p50 or output_tokens_per_s.", json_schema_extra={"enum": [*GATE_METRICS, MEMORY]}
    )
    margin: Share = Field(description="E.g. 5%.")

    @model_validator(mode="after")
    def _know_the_metric(self) -> "GateEndpoint":
        known = (*GATE_METRICS, MEMORY)
        if self.metric not in known:
            near = did_you_mean(self.metric, known)
            raise problem(f"{shown(self.metric)} is not a metric that can be gated; {near}", "metric")
        return self

    @property
    def needs_streaming(self) -> bool:
        """True for metrics that have no value without streaming."""
        return self.metric in _NEEDS_STREAMING or self.metric.rpartition("_")[0] in _NEEDS_STREAMING


class Scenario(Keys):
    """A workload: what is asked, at which load, how often. Its name is the file's."""

    description: str = Field(default="", description="One line that says what the scenario is for.")
    prompts: Annotated[tuple[Annotated[Prompts, Bare("text", "string")], ...], Field(min_length=1), OneOrMany()] = (
        Field(description="Texts, {file: x.jsonl}, {synthetic: {input_tokens: 512}} or {token_ids: [[...]]}.")
    )
    output_tokens: Annotated[Lengths | Literal["from_file"], OrWord(FROM_FILE)] = Field(
        description="Lengths of the answers: exact, or mean and stdev, or from_file: as each line of the prompt files "
        "says; end-of-sequence is ignored."
    )
    batch_sizes: Annotated[tuple[Count, ...], Field(min_length=1), OneOrMany(distinct=True)] | None = Field(
        default=None, description="Shorthand for load: [{kind: batch, sizes: ...}]; 1 when neither is given."
    )
    load: Annotated[tuple[LoadKeys, ...], Field(min_length=1), OneOrMany()] | None = Field(
        default=None, description="How requests are released."
    )
    trim: TrimKeys | None = Field(default=None, description="The ends of each round that do not count.")
    streaming: Annotated[tuple[bool, ...], Field(min_length=1), OneOrMany(distinct=True)] = Field(
        default=(True,), description="Whether tokens are sent as they are made; both with [true, false]."
    )
    paths: Annotated[tuple[PathName, ...], Field(min_length=1), OneOrMany(distinct=True)] = Field(
        default=DEFAULT_PATHS, description="Ways to the engine."
    )
    sampling: SamplingKeys = Field(default=SamplingKeys(), description="How tokens are drawn; greedy by default.")
    kv_cache_reuse: bool = Field(
        default=False, description="Whether an engine may reuse the KV cache of equal prefixes."
    )
    order: Annotated[str, AfterValidator(_known_order), Field(json_schema_extra={"enum": [*ORDERS]})] = Field(
        default=ORDERS[0], description="Of the prompts of a round: that of the file, or a new random one each round."
    )
    requests: Count | None = Field(
        default=None, description="Requests a round, rounded up to full batches; by default each prompt once."
    )
    rounds: Count = Field(default=5, description="Measured rounds of each cell.")
    warmup_rounds: Annotated[int, Field(ge=0, le=MOST)] = Field(
        default=1, description="Rounds before them that are not measured."
    )
    slo: Slo | None = Field(default=None, description="Limits that a good request keeps.")
    gate: Annotated[tuple[GateEndpoint, ...], Field(max_length=4), OneOrMany()] = Field(
        default=(), description="At most four numbers that decide; all others are only watched."
    )
    _name: str = PrivateAttr("")

    def model_post_init(self, context: Mapping[str, Any] | None, /) -> None:
        """Take the scenario's name from the file that is being read."""
        self._name = (context or {}).get("name", "")

    @model_validator(mode="after")
    def _lengths_are_known(self) -> "Scenario":
        for number, source in enumerate(self.prompts if self.own_lengths else ()):
            if source.file is None:
                why = f"is {FROM_FILE}, but prompts[{number}] is no file; take it away, or give a length here"
                raise problem(why, "output_tokens")
            if lacking := next((line.source for line in source.lines if line.output_tokens is None), None):
                keys = " or ".join(OUTPUT_LENGTHS)
                why = f"is {FROM_FILE}, but {lacking} has no {keys}; add it there, or give a length here"
                raise problem(why, "output_tokens")
        return self

    @model_validator(mode="after")
    def _keys_agree(self) -> "Scenario":
        if self.load and self.batch_sizes:
            raise problem("and batch_sizes say the same thing; keep one of them", "load")
        for index, entry in enumerate(self.load or ()):
            if entry.endless and not self.requests:
                raise problem("has no end; give it requests or duration_s", "load", index)
        labels = [load.label for load in self.loads]
        for label in labels:
            if labels.count(label) > 1:
                raise problem(f"gives the load {label} twice (ids keep two decimals of a rate); remove one", "load")
        numbers = [(endpoint.cell.removeprefix(f"{self.name}-"), endpoint.metric) for endpoint in self.gate]
        for index, endpoint in enumerate(self.gate):
            self._check_endpoint(index, endpoint)
            if numbers[index] in numbers[:index]:
                raise problem(f"gates {shown(endpoint.metric)} of {endpoint.cell} again; remove one", "gate", index)
        return self

    def _check_endpoint(self, index: int, endpoint: GateEndpoint) -> None:
        if endpoint.metric == MEMORY:
            if endpoint.cell not in self.paths:
                near = did_you_mean(endpoint.cell, self.paths)
                raise problem(f"{shown(endpoint.cell)} is not a path of this scenario; {near}", "gate", index, "cell")
            return
        by_id = {f"{cell.path}-{cell.shape}": cell for cell in self.cells_on(self.paths)}
        cell = by_id.get(endpoint.cell.removeprefix(f"{self.name}-"))
        if cell is None:
            near = did_you_mean(endpoint.cell, by_id)
            raise problem(f"{shown(endpoint.cell)} is not a cell of this scenario; {near}", "gate", index, "cell")
        if endpoint.needs_streaming and not cell.streaming:
            message = f"{shown(endpoint.metric)} has no value without streaming; gate a stream cell or e2e_latency_p50"
            raise problem(message, "gate", index, "metric")

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self._name

    @property
    def loads(self) -> tuple[Load, ...]:
        """Every load, however it was given."""
        if self.load:
            return tuple(load for entry in self.load for load in entry.loads(self.requests))
        return tuple(Batch(size) for size in self.batch_sizes or (1,))

    @property
    def own_lengths(self) -> bool:
        """Whether each answer is as long as the line of its prompt says."""
        return self.output_tokens == FROM_FILE

    @property
    def output_lengths(self) -> tuple[tuple[int, float], ...]:
        """Mean and standard deviation of the answers, of one kind of cell after the other."""
        if isinstance(self.output_tokens, str):
            lines = [line for source in self.prompts for line in source.lines]
            return (mean_and_stdev([line.output_tokens for line in lines if line.output_tokens is not None]),)
        return tuple((length.mean, length.stdev) for length in self.output_tokens)

    @property
    def trimmed(self) -> Trim:
        """What of each round does not count."""
        return self.trim.trim if self.trim else Trim()

    @property
    def prompt_count(self) -> int:
        """How many prompts there are; synthetic prompts without a count are one."""
        return sum(source.count for source in self.prompts)

    @property
    def slo_s(self) -> dict[str, float]:
        """Metric name → limit in seconds; empty without ``slo``."""
        return self.slo.limits_s if self.slo else {}

    def cells_on(self, paths: "tuple[str, ...]") -> tuple[Cell, ...]:
        """The cells on ``paths``, in the order of the file; one for each combination."""
        return tuple(
            Cell(self.name, path, streaming, mean, load, stdev)
            for path in paths
            for streaming in self.streaming
            for mean, stdev in self.output_lengths
            for load in self.loads
        )


class ScenarioSet(Keys):
    """A named choice of scenarios."""

    description: str = ""
    scenarios: Annotated[tuple[Text, ...], Field(min_length=1), OneOrMany(distinct=True)]
    max_output_tokens: Count | None = None  # cells with longer answers are left out


def load_scenario(path: Path) -> Scenario:
    """Read one scenario file, and the prompt files that it names. Raises ScenarioError with file, line and fix."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", path.stem):
        raise ScenarioError(
            f"{path}: '{path.stem}' cannot be a scenario's name; use a-z, 0-9, '-', '_', '.' after a letter or digit"
        )
    return _checked(Scenario, read_document(path), {"name": path.stem, "directory": path.parent})


def load_sets(path: Path) -> dict[str, ScenarioSet]:
    """Read the named sets of scenarios; every name in them must be a scenario beside the file."""
    document = read_document(path)
    sets = _checked(dict[str, ScenarioSet], document)
    known = scenario_names(path.parent)
    for set_name, chosen in sets.items():
        if set_name in known:
            raise document.error((set_name,), f"the set '{set_name}' has the name of a scenario; rename one of them")
        for index, name in enumerate(chosen.scenarios):
            if name not in known:
                message = f"there is no scenario '{name}' for the set '{set_name}'; {did_you_mean(name, known)}"
                raise document.error((set_name, "scenarios", index), message)
    return sets


def scenario_names(directory: Path) -> list[str]:
    """The names of the scenarios in ``directory``, sorted."""
    return sorted(path.stem for path in directory.glob("*.yaml") if path.name != SETS_FILE)


def scenario_facts(scenario: Scenario) -> dict[str, Any]:
    """The scenario as it was loaded, for JSON; of a prompt file the number and the digest of what is asked."""
    facts = scenario.model_dump(mode="json", exclude_none=True)
    for source, entry in zip(scenario.prompts, facts["prompts"], strict=True):
        if source.file:
            asked = [line.prompt for line in source.lines]
            lengths = [line.output_tokens for line in source.lines if scenario.own_lengths]
            digest = hashlib.sha256(json.dumps([asked, lengths] if lengths else asked).encode()).hexdigest()
            entry |= {"count": source.count, "sha256": digest}
    return {"name": scenario.name, **facts}


class _PlainSchema(GenerateJsonSchema):
    """Without the titles that repeat each key's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        return False


def schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors (``scenarios/schema.json``)."""
    made = Scenario.model_json_schema(schema_generator=_PlainSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **made}


def _checked(kind: type[_T], document: Document, context: Mapping[str, object] | None = None) -> _T:
    try:
        return TypeAdapter(kind).validate_python(document.data, context=dict(context or {}))
    except ValidationError as error:
        raise first_problem(document, error.errors(include_url=False)) from None
