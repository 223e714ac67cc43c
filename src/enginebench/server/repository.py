"""The model repository of a reference build: the five models of ``inflight_batcher_llm``, on Triton's python backend.

Names, data types and shapes are those of upstream 1.x for every tensor that the reference engine implements; others
are not declared, so that a client that reads the metadata sends nothing that would be ignored.
Writes files only; a TensorRT-LLM engine wants upstream's own repository.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import tokenizer_spec
from enginebench.errors import ServerError

MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls", "ensemble")


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model, without the batch dimension that Triton adds."""

    name: str
    data_type: str
    dims: tuple[int, ...] = (1,)
    optional: bool = False
    scalar: bool = False  # the model sees (batch,) where the client sends (batch, 1)
    ragged: bool = False  # requests of different lengths may be handed over together


@dataclass(frozen=True, slots=True)
class Model:
    """One model on the python backend."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: Mapping[str, str]
    batching: bool = False  # Triton may hand over several requests at once
    decoupled: bool = False  # several responses a request
    instances: int = 1


def write_reference_repository(build: Build, directory: Path, bls_instances: int = 1) -> None:
    """Write the repository for ``build`` into ``directory`` (made when missing, models in it replaced).

    ``bls_instances``: the BLS model serves one request an instance, so it must be at least the largest concurrency.

    Raises:
        ServerError: ``build`` is no reference build, or ``bls_instances`` is below 1.
    """
    if build.kind != "reference":
        raise ServerError(
            f"The embedded server runs reference builds only and {build.name!r} ({build.directory}) is none: "
            "start Triton with TensorRT-LLM's own model repository and attach with --triton-url."
        )
    if bls_instances < 1:
        raise ServerError(f"bls_instances is {bls_instances}: use at least 1, and as many as requests run at once.")
    for model, config in _configs(build, bls_instances).items():
        _write_model(directory / model, config, model)


def _write_model(directory: Path, config: str, model: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    version = directory / "1"
    version.mkdir(parents=True)  # an ensemble needs its version directory too, empty
    (directory / "config.pbtxt").write_text(config, encoding="utf-8")
    source = Path(__file__).parent / "models" / model / "model.py"
    if source.is_file():
        shutil.copyfile(source, version / "model.py")


def _configs(build: Build, bls_instances: int) -> dict[str, str]:
    batch = build.limits.max_batch_size or 1
    tokenizer = {"tokenizer_spec": json.dumps(tokenizer_spec(build))}
    core = {"gpt_model_path": str(build.directory.resolve()), "exclude_input_in_output": "false"}
    bls = {"accumulate_tokens": "false", "tensorrt_llm_model_name": "tensorrt_llm"}
    models = (
        Model("preprocessing", PREPROCESSING_INPUTS, PREPROCESSING_OUTPUTS, tokenizer, batching=True),
        Model("tensorrt_llm", CORE_INPUTS, CORE_OUTPUTS, core, batching=True, decoupled=True),
        Model("postprocessing", POSTPROCESSING_INPUTS, POSTPROCESSING_OUTPUTS, tokenizer, batching=True),
        Model("tensorrt_llm_bls", TEXT_INPUTS, TEXT_OUTPUTS, bls, decoupled=True, instances=bls_instances),
    )
    return {model.name: _python_model(model, batch) for model in models} | {"ensemble": _ensemble(batch)}


def _python_model(model: Model, max_batch_size: int) -> str:
    blocks = [_head(model.name, 'backend: "python"', max_batch_size)]
    if model.decoupled:
        blocks.append("model_transaction_policy { decoupled: true }")
    if model.batching:
        blocks.append("dynamic_batching { }")
    blocks += _tensors("input", model.inputs) + _tensors("output", model.outputs)
    blocks += [
        f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
        for key, value in model.parameters.items()
    ]
    blocks.append(f"instance_group [ {{ count: {model.instances} kind: KIND_CPU }} ]")
    return "\n".join(blocks) + "\n"


def _ensemble(max_batch_size: int) -> str:
    blocks = [_head("ensemble", 'platform: "ensemble"', max_batch_size)]
    blocks += _tensors("input", TEXT_INPUTS) + _tensors("output", TEXT_OUTPUTS)
    blocks.append("ensemble_scheduling {")
    blocks += [_step(model, inputs, outputs) for model, inputs, outputs in ENSEMBLE_STEPS]
    return "\n".join([*blocks, "}"]) + "\n"


def _head(name: str, engine: str, max_batch_size: int) -> str:
    return f"name: {_quoted(name)}\n{engine}\nmax_batch_size: {max_batch_size}"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [
        f"    {kind} {{ key: {_quoted(key)} value: {_quoted(value)} }}"
        for kind, pairs in (("input_map", inputs), ("output_map", outputs))
        for key, value in pairs.items()
    ]
    return "\n".join(["  step {", f"    model_name: {_quoted(model)}", "    model_version: -1", *maps, "  }"])


def _tensors(kind: str, tensors: Iterable[Tensor]) -> list[str]:
    return [f"{kind} {{ {_fields(tensor)} }}" for tensor in tensors]


def _fields(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims))
    fields = [f"name: {_quoted(tensor.name)}", f"data_type: TYPE_{tensor.data_type}", f"dims: [ {dims} ]"]
    if tensor.scalar:
        fields.append("reshape { shape: [ ] }")
    if tensor.ragged:
        fields.append("allow_ragged_batch: true")
    if tensor.optional:
        fields.append("optional: true")
    return " ".join(fields)


def _quoted(text: str) -> str:
    """A string of protobuf's text format."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _option(name: str, data_type: str, *, scalar: bool = False) -> Tensor:
    return Tensor(name, data_type, optional=True, scalar=scalar)


COUNTS = (Tensor("num_input_tokens", "INT32"), Tensor("num_output_tokens", "INT32"))
PERF = (
    Tensor("kv_cache_reused_blocks", "INT32"),
    Tensor("arrival_time_ns", "INT64"),
    Tensor("first_scheduled_time_ns", "INT64"),
    Tensor("first_token_time_ns", "INT64"),
    Tensor("last_token_time_ns", "INT64"),
)

TEXT_INPUTS = (
    Tensor("text_input", "STRING"),
    Tensor("max_tokens", "INT32"),
    _option("exclude_input_in_output", "BOOL"),
    _option("end_id", "INT32"),
    _option("pad_id", "INT32"),
    _option("top_k", "INT32"),
    _option("temperature", "FP32"),
    _option("seed", "UINT64"),
    _option("return_num_input_tokens", "BOOL"),
    _option("return_num_output_tokens", "BOOL"),
    _option("return_perf_metrics", "BOOL"),
    _option("stream", "BOOL"),
)
TEXT_OUTPUTS = (Tensor("text_output", "STRING", (-1,)), *COUNTS, *PERF)

PREPROCESSING_INPUTS = (
    Tensor("QUERY", "STRING"),
    Tensor("REQUEST_OUTPUT_LEN", "INT32"),
    _option("END_ID", "INT32"),
    _option("PAD_ID", "INT32"),
)
PREPROCESSING_OUTPUTS = (
    Tensor("INPUT_ID", "INT32", (-1,)),
    Tensor("REQUEST_INPUT_LEN", "INT32"),
    Tensor("REQUEST_OUTPUT_LEN", "INT32", (-1,)),
    Tensor("OUT_END_ID", "INT32"),
    Tensor("OUT_PAD_ID", "INT32"),
)

CORE_INPUTS = (
    Tensor("input_ids", "INT32", (-1,), optional=True, ragged=True),
    Tensor("input_lengths", "INT32", scalar=True),
    Tensor("request_output_len", "INT32", scalar=True),
    _option("end_id", "INT32", scalar=True),
    _option("pad_id", "INT32", scalar=True),
    _option("temperature", "FP32", scalar=True),
    _option("runtime_top_k", "INT32", scalar=True),
    _option("seed", "UINT64", scalar=True),
    _option("return_num_input_tokens", "BOOL", scalar=True),
    _option("return_num_output_tokens", "BOOL", scalar=True),
    _option("return_perf_metrics", "BOOL", scalar=True),
    _option("exclude_input_in_output", "BOOL", scalar=True),
    _option("streaming", "BOOL", scalar=True),
)
CORE_OUTPUTS = (Tensor("output_ids", "INT32", (-1, -1)), Tensor("sequence_length", "INT32", (-1,)), *COUNTS, *PERF)

POSTPROCESSING_INPUTS = (Tensor("TOKENS_BATCH", "INT32", (-1, -1)), Tensor("SEQUENCE_LENGTH", "INT32", (-1,)))
POSTPROCESSING_OUTPUTS = (Tensor("OUTPUT", "STRING", (-1,)),)

ENSEMBLE_STEPS: tuple[tuple[str, Mapping[str, str], Mapping[str, str]], ...] = (
    (
        "preprocessing",
        {"QUERY": "text_input", "REQUEST_OUTPUT_LEN": "max_tokens", "END_ID": "end_id", "PAD_ID": "pad_id"},
        {
            "INPUT_ID": "_INPUT_ID",
            "REQUEST_INPUT_LEN": "_REQUEST_INPUT_LEN",
            "REQUEST_OUTPUT_LEN": "_REQUEST_OUTPUT_LEN",
            "OUT_END_ID": "_PREPROCESSOR_END_ID",
            "OUT_PAD_ID": "_PREPROCESSOR_PAD_ID",
        },
    ),
    (
        "tensorrt_llm",
        {
            "input_ids": "_INPUT_ID",
            "input_lengths": "_REQUEST_INPUT_LEN",
            "request_output_len": "_REQUEST_OUTPUT_LEN",
            "end_id": "_PREPROCESSOR_END_ID",
            "pad_id": "_PREPROCESSOR_PAD_ID",
            "exclude_input_in_output": "exclude_input_in_output",
            "runtime_top_k": "top_k",
            "temperature": "temperature",
            "seed": "seed",
            "return_num_input_tokens": "return_num_input_tokens",
            "return_num_output_tokens": "return_num_output_tokens",
            "return_perf_metrics": "return_perf_metrics",
            "streaming": "stream",
        },
        {
            "output_ids": "_TOKENS_BATCH",
            "sequence_length": "_SEQUENCE_LENGTH",
            "num_input_tokens": "num_input_tokens",
            "num_output_tokens": "num_output_tokens",
            **{tensor.name: tensor.name for tensor in PERF},
        },
    ),
    (
        "postprocessing",
        {"TOKENS_BATCH": "_TOKENS_BATCH", "SEQUENCE_LENGTH": "_SEQUENCE_LENGTH"},
        {"OUTPUT": "text_output"},
    ),
)
