"""What the variables of a template are filled with for one build and one load, and where each value comes from. Pure.

Everything that the build, the load or a fair benchmark decides has a value here. What is left keeps the default of the
version: upstream's code takes an unfilled ``${variable}`` inside quotes for "not given".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.errors import ServerError

USUAL_BATCH_SIZE = 128
"""``max_batch_size`` where a build does not say: what the templates of 0.5 have."""

_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16"}


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run, or a person, wants of the server."""

    bls_concurrency: int  # most requests in flight to the BLS model
    kv_cache_reuse: bool = False
    kv_cache_tokens: int | None = None  # the exact size of the pool
    kv_cache_fraction: float | None = None  # of the GPU memory that is free after loading
    scheduler_policy: str = "guaranteed_no_evict"
    chunked_context: bool = False
    overrides: Mapping[tuple[str, str], str] = field(default_factory=dict)  # (model, variable) → value


@dataclass(frozen=True, slots=True)
class Value:
    """A value and, in a few words, why it is that."""

    text: str
    source: str


def read_overrides(texts: Sequence[str]) -> dict[tuple[str, str], str]:
    """Read the values of ``--set``, each MODEL.VARIABLE=VALUE. Raises ServerError."""
    found: dict[tuple[str, str], str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        model, dot, variable = name.partition(".")
        if not (equals and dot and model and variable):
            raise ServerError(
                f"--set {text!r} is not of the form MODEL.VARIABLE=VALUE, e.g. tensorrt_llm.max_beam_width=1."
            )
        found[model, variable] = value
    return found


def values_of(build: Build, demand: Demand, tokenizer: Path) -> dict[str, Value]:
    """Variable → value, for the templates of every version: each takes those that it has."""
    return {
        **_of_build(build, tokenizer),
        **_of_demand(demand),
        **_of_a_fair_benchmark(),
    }


def older_policy(policy: str) -> str:
    """``policy`` in the words of 0.5."""
    return {"guaranteed_no_evict": "guaranteed_completion"}.get(policy, policy)


def _of_build(build: Build, tokenizer: Path) -> dict[str, Value]:
    batch = build.limits.max_batch_size
    said = "max_batch_size of the build" if batch else "the build does not say; the templates of 0.5 have it"
    engine_type = Value(_TYPES.get(build.dtype, "TYPE_FP16"), f"the build computes in {build.dtype}")
    logits = str((build.config.get("pretrained_config") or {}).get("logits_dtype") or "float32")
    return {
        "engine_dir": Value(str(build.directory.resolve()), "the build, where it lies"),
        "triton_max_batch_size": Value(str(batch or USUAL_BATCH_SIZE), said),
        "tokenizer_dir": Value(str(tokenizer), "the build's tokenizer"),
        "logits_datatype": Value(_TYPES.get(logits, "TYPE_FP32"), f"logits_dtype {logits} of the build"),
        "encoder_input_features_data_type": engine_type,
        "prompt_embedding_table_data_type": engine_type,
    }


def _of_demand(demand: Demand) -> dict[str, Value]:
    values = {
        "bls_instance_count": Value(str(demand.bls_concurrency), "one request an instance: as many as are in flight"),
        "enable_kv_cache_reuse": Value(_bool(demand.kv_cache_reuse), "kv_cache_reuse of the scenario, if any"),
        "batch_scheduler_policy": Value(demand.scheduler_policy, "as on the path direct"),
        "enable_chunked_context": Value(_bool(demand.chunked_context), "as on the path direct"),
    }
    if demand.kv_cache_tokens is not None:
        values["max_tokens_in_paged_kv_cache"] = Value(str(demand.kv_cache_tokens), "as on the path direct")
    if demand.kv_cache_fraction is not None:
        fraction = Value(f"{demand.kv_cache_fraction:g}", "as on the path direct")
        values["kv_cache_free_gpu_mem_fraction"] = fraction
    return values


def _of_a_fair_benchmark() -> dict[str, Value]:
    return {
        "triton_backend": Value("tensorrtllm", "the C++ backend"),
        "batching_strategy": Value("inflight_fused_batching", "in-flight batching, as on the path direct"),
        "decoupled_mode": Value("true", "or nothing streams"),
        "max_queue_delay_microseconds": Value("0", "no request waits for others: the engine batches in flight"),
        "max_queue_size": Value("0", "no request is refused for others: no limit"),
        "preprocessing_instance_count": Value("1", "upstream's default"),
        "postprocessing_instance_count": Value("1", "with more, tokens of a stream overtake each other"),
        "max_beam_width": Value("1", "nothing here searches beams"),
        "tokenizer_type": Value("auto", "AutoTokenizer knows it"),
        "add_special_tokens": Value("False", "or prompts are longer than on the path direct"),
        "skip_special_tokens": Value("True", "upstream's default, said because versions differ"),
        "exclude_input_in_output": Value("true", "an answer without streaming must not repeat its prompt"),
        "accumulate_tokens": Value("false", "each response carries its own tokens"),
        "tensorrt_llm_model_name": Value("tensorrt_llm", "the core's name"),
    }


def _bool(value: bool) -> str:
    return "true" if value else "false"
