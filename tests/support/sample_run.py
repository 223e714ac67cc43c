"""Synthetic ``run.json`` records for tests of what reads them: their numbers follow a simple model of an engine.

Deterministic: the same call gives the same record. Nothing here imports enginebench's measuring side.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.plan.cells import Cell
from enginebench.plan.load import Batch, load_from_json, load_to_json
from tests.support.sample_environment import GIB, MIB, build, environment

Run = dict[str, Any]

SCENARIOS: Mapping[str, Mapping[str, Any]] = {
    "who-are-you": {
        "description": "A short greeting in Chinese; the first token weighs most.",
        "prompts": [{"text": "你是谁？"}],
        "output_tokens": [50],
        "batch_sizes": [1, 8],
        "streaming": [True, False],
    },
    "novel-zh": {
        "description": "One long Chinese answer; decode-bound.",
        "prompts": [{"text": "写一篇1000字的玄幻小说"}],
        "output_tokens": [128],
        "batch_sizes": [1, 4, 8],
        "streaming": [True],
    },
    "chat-mixed": {
        "description": "Several prompts and output lengths, as a chat service sees them.",
        "prompts": [
            {"text": "你是谁？"},
            {"text": "Explain a KV cache in one sentence."},
            {"text": "Why is the sky blue?"},
        ],
        "output_tokens": [32, 96],
        "batch_sizes": [1, 8],
        "streaming": [True],
    },
    "long-prompt": {
        "description": "Long synthetic prompts; prefill-bound.",
        "prompts": [{"synthetic": {"input_tokens": {"mean": 512, "stdev": 64}, "count": 8}}],
        "output_tokens": [16],
        "batch_sizes": [1, 8],
        "streaming": [True],
    },
}

PROMPT_TOKENS = {"who-are-you": (4, 4), "novel-zh": (13, 13), "chat-mixed": (4, 35), "long-prompt": (401, 640)}

# What a path adds to the first token and to each later one (seconds), alone and with eight requests in flight.
OVERHEAD_S = {
    "direct": (0.0, 0.0),
    "core": (0.0021, 0.00015),
    "ensemble": (0.0058, 0.00034),
    "bls": (0.0077, 0.00062),
    "llmapi": (0.004, 0.0003),
}


SAMPLE_PATHS = ("direct", "core", "ensemble", "bls")


def full_run(
    *, paths: Sequence[str] = SAMPLE_PATHS, scenarios: Mapping[str, Mapping[str, Any]] = SCENARIOS, seed: int = 7
) -> Run:
    """Every cell measured, on a laptop with the reference engine."""
    cells = [cell for name, spec in scenarios.items() for cell in _expand(name, spec, paths)]
    rng = random.Random(seed)
    return _record(scenarios, paths, {cell.id: measured(cell, rng) for cell in cells})


def run_of(cells: Sequence[Cell]) -> Run:
    """These cells, measured."""
    scenarios = {cell.scenario: SCENARIOS["novel-zh"] for cell in cells}
    rng = random.Random(7)
    paths = tuple(dict.fromkeys(cell.path for cell in cells))
    return _record(scenarios, paths, {cell.id: measured(cell, rng) for cell in cells})


def typical_run() -> Run:
    """What a newcomer sees: direct beside ensemble, a failed cell, some beyond limits or left out, a finding."""
    run = full_run(paths=("direct", "ensemble"))
    over = _unmeasured(
        Cell("long-prompt", "ensemble", True, 16, Batch(8)), "failed", "the server died in mid-stream: exit status 139"
    )
    run["cells"]["long-prompt-ensemble-stream-out0016-bs008"] = over
    for path in ("direct", "ensemble"):
        cell = Cell("novel-zh", path, True, 1024, Batch(8))
        run["plan"]["left_out"][cell.id] = (
            "1,024 output tokens exceed the 128 of the set 'default'; choose --scenario novel-zh"
        )
        limit = Cell("long-prompt", path, True, 1024, Batch(1))
        reason = "prompt 640 + output 1024 tokens exceed the build's max_seq_len 1536"
        run["plan"]["cells"].append(limit.id)
        run["cells"][limit.id] = _unmeasured(limit, "not_applicable", reason)
    noisy = run["cells"]["chat-mixed-ensemble-stream-out0096-bs008"]
    noisy["findings"] = ["Round 3 took 9% longer than the median of the rounds."]
    noisy["makespan_s"][2] *= 1.09
    return run


def gpu_run() -> Run:
    """A TensorRT-LLM build on a GPU: memory phases, percentiles in the tail."""
    run = full_run(paths=("direct", "ensemble"), scenarios={"novel-zh": SCENARIOS["novel-zh"]})
    run["build"].update(name="chatglm3-fp16", kind="tensorrt_llm", version="0.12.0", architecture="ChatGLMForCausalLM")
    device = {"index": 0, "name": "NVIDIA A10", "driver": "550.54.15", "memory_bytes": 24 * GIB, "power_limit_w": 150.0}
    run["environment"].update(gpus=[device], gpu_reason=None)
    run["calibration"] = {"schema": "enginebench/calibration/1", "points": {}}
    for session in run["sessions"]:
        session["memory"]["gpu"] = {
            "before_load": 410 * MIB,
            "after_load": 14 * GIB,
            "peak": int(20.5 * GIB),
            "after_unload": 410 * MIB,
        }
    for cell in run["cells"].values():
        cell["memory"]["gpu_peak_bytes"] = int(20.5 * GIB)
    return run


def one_cell_run() -> Run:
    """The smallest run that measured something."""
    spec = {**SCENARIOS["who-are-you"], "batch_sizes": [1], "streaming": [True]}
    return full_run(paths=("direct",), scenarios={"who-are-you": spec})


def empty_run() -> Run:
    """Stopped before anything was planned."""
    run = _record({}, (), {})
    run.update(finished=None, interrupted=True)
    return run


def failures_run() -> Run:
    """Nothing but failed and skipped cells."""
    run = full_run(paths=("direct", "ensemble"), scenarios={"who-are-you": SCENARIOS["who-are-you"]})
    for name, cell in run["cells"].items():
        status = "skipped" if "nostream" in name else "failed"
        reason = "skipped with -k" if status == "skipped" else "the worker died: Illegal instruction"
        run["cells"][name] = _unmeasured(_cell_of(cell), status, reason)
    return run


def interrupted_run() -> Run:
    """Ctrl-C in the middle: the second half of the cells was never reached."""
    run = full_run(paths=("direct", "ensemble"))
    reached = run["plan"]["cells"][: len(run["plan"]["cells"]) // 2]
    run["cells"] = {name: run["cells"][name] for name in reached}
    run.update(finished=None, interrupted=True)
    return run


def hostile_run() -> Run:
    """Names and sentences that try to leave their place."""
    name = '</script><script>alert(1)</script><img src=x onerror="alert(2)">{{7*7}}'
    spec = {
        **SCENARIOS["who-are-you"],
        "description": "<b>bold</b> & \u202e backwards",
        "prompts": [{"text": "</title><h1>你是谁？"}],
    }
    run = full_run(paths=("direct", "ensemble"), scenarios={name: spec})
    run["build"]["name"] = name
    run["command"] = ["pytest", "-k", name]
    next(iter(run["cells"].values()))["findings"] = [name]
    failed = list(run["cells"])[-1]
    run["cells"][failed] = _unmeasured(_cell_of(run["cells"][failed]), "failed", name)
    return run


def unbounded_run() -> Run:
    """Measured, but most requests of a cell failed: its percentiles have no bound."""
    run = one_cell_run()
    (cell,) = run["cells"].values()
    cell["failed_requests"] = 4
    for metric in ("ttft", "tpot", "e2e_latency"):
        cell["metrics"][metric]["summary"].update(p50=None, max=None, failed=4)
    return run


def write_run(run: Run, directory: Path) -> Path:
    """Write ``run`` as ``directory/run.json``; return ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps(run, ensure_ascii=False, indent=1), encoding="utf-8")
    return directory


def measured(cell: Cell, rng: random.Random, rounds: int = 5) -> Run:
    """Return a measured cell whose numbers hang together: makespan, latencies and throughput of one model."""
    first, later = _model(cell)
    per_round = [(first * _noise(rng), later * _noise(rng)) for _ in range(rounds)]
    spans = [one + two * (cell.output_tokens - 1) for one, two in per_round]
    requests = max(4, _size(cell))
    batches = requests / _size(cell)
    metrics = _metrics(cell, per_round, spans)
    low, high = PROMPT_TOKENS.get(cell.scenario, (4, 4))
    return {
        **_head(cell),
        "status": "measured",
        "reason": None,
        "prompt_tokens": [low, high],
        "requests_per_round": requests,
        "rounds": rounds,
        "warmup_rounds": 1,
        "stamp_kind": "engine" if cell.path == "direct" else "kernel",
        "makespan_s": [span * batches for span in spans],
        "failed_requests": 0,
        "requests": requests * rounds,
        "findings": [],
        "metrics": metrics,
        "memory": {"gpu_peak_bytes": None, "host_peak_bytes": _host_peak(cell)},
    }


def _model(cell: Cell) -> tuple[float, float]:
    extra_first, extra_later = OVERHEAD_S[cell.path]
    prefill = 0.0009 * PROMPT_TOKENS.get(cell.scenario, (4, 4))[1] * _size(cell) ** 0.8
    step = 0.012 + 0.00022 * max(0, _size(cell) - 1)
    crowd = _size(cell) ** 0.5
    return 0.013 + prefill + extra_first * crowd, step + extra_later * crowd


def _metrics(cell: Cell, per_round: Sequence[tuple[float, float]], spans: Sequence[float]) -> Run:
    count = max(4, _size(cell)) * len(spans)
    tokens = [_size(cell) * cell.output_tokens / span for span in spans]
    metrics = {
        "e2e_latency": _latency(spans, count),
        "output_tokens_per_s": _scalar("tokens/s", tokens),
        "requests_per_s": _scalar("requests/s", [_size(cell) / span for span in spans]),
    }
    if cell.streaming:
        metrics["ttft"] = _latency([one for one, _ in per_round], count)
        metrics["tpot"] = _latency([two for _, two in per_round], count)
        metrics["itl"] = _latency([two * 0.998 for _, two in per_round], count)
        metrics["tokens_per_s_per_user"] = _scalar("tokens/s", [1 / two for _, two in per_round])
    return metrics


def _latency(values: Sequence[float], count: int) -> Run:
    middle = sorted(values)[(len(values) - 1) // 2]
    summary: Run = {"p50": middle, "p90": None, "p95": None, "p99": None}
    if count >= 64:
        summary["p90"] = max(values) * 1.01
    summary.update(min=min(values) * 0.97, max=max(values) * 1.04, count=count, failed=0)
    return {"unit": "s", "better": "lower", "summary": summary, "per_round": list(values)}


def _scalar(unit: str, values: Sequence[float]) -> Run:
    middle = sorted(values)[(len(values) - 1) // 2]
    return {"unit": unit, "better": "higher", "summary": {"value": middle}, "per_round": list(values)}


def _noise(rng: random.Random) -> float:
    return 1 + abs(rng.gauss(0, 0.012))


def _host_peak(cell: Cell) -> Run:
    if cell.path == "direct":
        return {"engine": 64 * MIB + _size(cell) * MIB}
    return {"server": 258 * MIB + _size(cell) * MIB, "client": 38 * MIB}


def _expand(name: str, spec: Mapping[str, Any], paths: Sequence[str]) -> list[Cell]:
    return [
        Cell(name, path, streaming, output, Batch(size))
        for path in paths
        for streaming in spec["streaming"]
        for output in spec["output_tokens"]
        for size in spec["batch_sizes"]
    ]


def _cell_of(record: Mapping[str, Any]) -> Cell:
    load = load_from_json(record["load"])
    return Cell(record["scenario"], record["path"], record["streaming"], record["output_tokens"], load)


def _size(cell: Cell) -> int:
    return cell.load.connections


def _head(cell: Cell) -> Run:
    return {
        "scenario": cell.scenario,
        "path": cell.path,
        "streaming": cell.streaming,
        "output_tokens": cell.output_tokens,
        "load": load_to_json(cell.load),
        "batch_size": cell.batch_size,
    }


def _unmeasured(cell: Cell, status: str, reason: str) -> Run:
    return {
        **_head(cell),
        "prompt_tokens": list(PROMPT_TOKENS.get(cell.scenario, (4, 4))),
        "rounds": 5,
        "warmup_rounds": 1,
        "status": status,
        "reason": reason,
        "findings": [],
        "metrics": {},
    }


def _session(path: str) -> Run:
    if path == "direct":
        host = {"engine": _phases(61, 72)}
    else:
        host = {"server": _phases(254, 266), "client": _phases(None, 38)}
    return {
        "path": path,
        "facts": {"runtime": "reference" if path == "direct" else "triton_http", "loads": ["batch", "rate"]},
        "opened_s": 0.84 if path == "direct" else 6.31,
        "memory": {"gpu": None, "host": host},
    }


def _phases(after_mib: int | None, peak_mib: int) -> Run:
    after = None if after_mib is None else after_mib * MIB
    return {"before_load": None, "after_load": after, "peak": peak_mib * MIB}


def _record(scenarios: Mapping[str, Mapping[str, Any]], paths: Sequence[str], cells: Run) -> Run:
    return {
        "schema": "enginebench/run/1",
        "id": "2026-11-22T21-14-47-a1b2",
        "created": "2026-11-22T21:14:47Z",
        "finished": "2026-11-22T21:18:31Z",
        "interrupted": False,
        "command": ["pytest", "bench/", "--benchmark-only"],
        "build": build(),
        "attached_url": None,
        "environment": environment(),
        "calibration": None,
        "plan": {
            "set": "default",
            "scenarios": {name: {**spec, "rounds": 5} for name, spec in scenarios.items()},
            "cells": list(cells),
            "left_out": {},
        },
        "sessions": [_session(path) for path in paths],
        "cells": cells,
    }
