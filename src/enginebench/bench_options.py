"""What a person may ask of ``pytest bench/``: every option, with the arguments that argparse takes for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.plan.cells import DEFAULT_PATHS, PATHS
from enginebench.plan.selection import DEFAULT_SET
from enginebench.profile.kinds import KINDS, MOST_CELLS

BENCH_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--scenario": {
        "action": "append",
        "default": [],
        "metavar": "NAME",
        "help": "a scenario in scenarios/, a path to a scenario file, or a set of scenarios/sets.yaml; "
        f"may be repeated (default: the set {DEFAULT_SET!r})",
    },
    "--path": {
        "action": "append",
        "default": [],
        "metavar": "PATH",
        "help": f"the way to the engine: {', '.join(PATHS)}; may be repeated "
        f"(default: those of the scenario, else {' and '.join(DEFAULT_PATHS)})",
    },
    "--build": {
        "action": "append",
        "metavar": "NAME=DIR",
        "help": "the engine build to measure, and the name it has in the report; ',python=PATH', ',tokenizer=DIR', "
        "',llm_args=FILE' and ',container=COMMAND' may follow (default: a small reference engine, made under "
        "reports/builds when it is missing)",
    },
    "--tokenizer": {
        "type": Path,
        "metavar": "DIR",
        "help": "the directory of the build's Hugging Face tokenizer (default: the build's own, when it holds one)",
    },
    "--trust-remote-code": {
        "action": "store_true",
        "help": "let the tokenizer run the Python that its directory brings, as ChatGLM's does; read it before",
    },
    "--engine": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "a setting of the engine, in process and in a server that is started: kv_cache_tokens, "
        "kv_cache_fraction, scheduler_policy, chunked_context=on, adapter; may be repeated (docs/tensorrt-llm.md)",
    },
    "--profile": {
        "action": "append",
        "default": [],
        "metavar": "KIND",
        "choices": KINDS,
        "help": "after the measurement, drive each selected cell once more under a profiler, apart from all that is "
        f"compared or gated: {', '.join(KINDS)}; may be repeated; at most {MOST_CELLS} cells (docs/profiling.md)",
    },
    "--rounds": {"type": int, "metavar": "N", "help": "measured rounds a cell, in place of the scenario's"},
    "--triton-url": {
        "action": "append",
        "default": [],
        "metavar": "URL",
        "help": "send the server paths to this running Triton server, e.g. http://127.0.0.1:8000, "
        "instead of starting one; several times: replicas of one deployment, which take requests in turn and are "
        "measured as one endpoint (docs/triton.md)",
    },
    "--templates": {
        "type": Path,
        "metavar": "DIR",
        "help": "a checkout of tensorrtllm_backend or TensorRT-LLM whose all_models Triton is started with for a "
        "TensorRT-LLM build (default: where images have them, /app/all_models and others)",
    },
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "MODEL.VARIABLE=VALUE",
        "help": "fill this variable of those templates with a value of your own; may be repeated",
    },
    "--openai-url": {
        "action": "append",
        "default": [],
        "metavar": "URL",
        "help": "the OpenAI-compatible server of the openai paths: trtllm-serve, or Triton's OpenAI frontend; several "
        "times: replicas, as for --triton-url",
    },
    "--openai-model": {"metavar": "NAME", "help": "the model there (default: the only one that it serves)"},
    "--shards": {
        "default": "1",
        "metavar": "N",
        "help": "client processes that each load of a server path is divided over, started together and merged into "
        "one result; or mpi: one on every MPI rank of mpiexec -n RANKS python -m mpi4py.futures -m pytest ... "
        "(default: 1)",
    },
}
