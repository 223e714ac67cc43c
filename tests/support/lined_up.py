"""Runs that stand side by side, on disk: five quantisations of one model, and runs that do not belong together.

Nobody measured these numbers: they are those of ``sample_run``, made faster or slower.
"""

import copy
from pathlib import Path
from typing import Any

from enginebench.report.lineup import Lineup
from enginebench.run.lineups import line_up_stored
from tests.support import sample_run
from tests.support.compared import HOSTILE
from tests.support.sample_environment import GIB

Run = dict[str, Any]

SCENARIO: Run = {**sample_run.SCENARIOS["novel-zh"], "batch_sizes": [1, 4, 8, 16, 32], "streaming": [True, False]}
# Time of a step, weights in GiB, joules a token, and how many GPUs, beside those of FP16.
BUILDS = {
    "fp16": (1.0, 11.7, 2.4, 1),
    "int8-wo": (0.83, 6.4, 2.0, 1),
    "smoothquant": (0.71, 6.4, 1.7, 1),
    "int4-awq": (0.6, 3.9, 1.6, 1),
    "fp8-tp2": (0.48, 6.4, 1.9, 2),
}
LAPTOPS = ("deep", "flat", "small")
CARD = {"index": 0, "name": "NVIDIA H100 80GB HBM3", "driver": "550.54.15", "memory_bytes": 80 * GIB,
        "power_limit_w": 700.0}  # fmt: skip
CELL = "novel-zh-direct-stream-out0128-bs008"
FAILED = "novel-zh-direct-stream-out0128-bs032"
DEGRADED = "novel-zh-ensemble-stream-out0128-bs016"
INVALID = "novel-zh-direct-stream-out0128-bs016"


def five() -> list[Run]:
    """FP16 ran out of memory in one cell, int8 lacks one, and two cells are not to be trusted."""
    runs = {name: _run(name) for name in BUILDS}
    runs["fp16"]["cells"][FAILED] |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    del runs["int8-wo"]["cells"][DEGRADED]
    runs["int8-wo"]["plan"]["cells"].remove(DEGRADED)
    _doubt(runs["smoothquant"], DEGRADED, "degraded", "the GPU held its clocks down for 9% of the time (power cap)")
    _doubt(runs["int4-awq"], INVALID, "invalid", "the client could not resolve TTFT p50")
    return list(runs.values())


def unlike() -> list[Run]:
    """The second ran on another GPU, the third was asked something else under the same name, the fourth has no GPU."""
    runs = [_run(name) for name in ("fp16", "int8-wo", "smoothquant", "int4-awq")]
    runs[1]["environment"]["gpus"] = [CARD | {"name": "NVIDIA H200"}]
    runs[2]["plan"]["scenarios"]["novel-zh"]["prompts"] = [{"text": "Why is the sky blue?"}]
    runs[3] = _of_reference_engine("deep")
    return runs


def on_a_laptop() -> list[Run]:
    """Three reference engines without a GPU."""
    return [_of_reference_engine(name) for name in LAPTOPS]


def hostile() -> list[Run]:
    """Builds and scenarios whose names try to leave their place."""
    runs = []
    for number in range(3):
        run = copy.deepcopy(sample_run.hostile_run()) | {"id": f"run-{number}"}
        run["build"] |= {"name": f"{number} {HOSTILE}", "directory": HOSTILE, "facts": {"limits": {HOSTILE: number}}}
        runs.append(run)
    return runs


def lined_up(runs: list[Run], root: Path) -> Lineup:
    """``runs`` as stored in ``root``."""
    return line_up_stored([str(put(run, root)) for run in runs], root)


def put(run: Run, root: Path) -> Path:
    """Write ``run`` among the runs of ``root``; return its directory."""
    return sample_run.write_run(run, root / "reports" / "runs" / str(run["id"]))


def _of_reference_engine(name: str) -> Run:
    run = sample_run.full_run(paths=("direct",), scenarios={"novel-zh": SCENARIO}, seed=LAPTOPS.index(name))
    return _named(run, name)


def _run(name: str) -> Run:
    factor, weights_gib, joules, gpus = BUILDS[name]
    run = _named(sample_run.full_run(paths=("direct", "ensemble"), scenarios={"novel-zh": SCENARIO}), name)
    run["build"] |= {"kind": "tensorrt_llm", "version": "0.16.0", "architecture": "ChatGLMForCausalLM"}
    run["build"]["facts"] = {
        "build": {"dtype": "float16", "quantisation": None if name == "fp16" else name.partition("-tp")[0]},
        "parallelism": {"tp": gpus},
    }
    run["environment"] |= {"gpus": [CARD, CARD | {"index": 1}], "gpu_reason": None}
    for session in run["sessions"]:
        loaded = int((weights_gib + 1 + 20) * GIB)
        session["memory"]["gpu"] = {"before_load": 0, "after_load": loaded, "peak": loaded + GIB, "after_unload": 0}
        session["kv_pool"] = {"bytes": 20 * GIB, "tokens": 20 * 2**15, "source": "the runtime", "by_share": None}
    for cell in run["cells"].values():
        _scale(cell, factor)
        rate = cell["metrics"]["output_tokens_per_s"]
        cell["metrics"]["output_tokens_per_s_per_gpu"] = _scalar("tokens/s", "higher", rate["summary"]["value"] / gpus)
        size = cell["batch_size"]
        cell["metrics"]["energy_per_output_token"] = _scalar("J", "lower", joules / size**0.8)
        cell["memory"]["gpu_peak_bytes"] = int((weights_gib + 21.5) * GIB)
    return run


def _named(run: Run, name: str) -> Run:
    number = [*BUILDS, *LAPTOPS].index(name)
    run |= {"id": f"2026-11-2{number}T08-00-00-{name}", "created": f"2026-11-2{number}T08:00:00Z"}
    run["build"] |= {"name": name, "directory": f"/engines/{name}", "fingerprint": f"sha256:{name:0<64}"}
    return run


def _scale(cell: Run, factor: float) -> None:
    for metric in cell["metrics"].values():
        times = factor if metric["better"] == "lower" else 1 / factor
        for key, value in metric["summary"].items():
            if key not in ("count", "failed") and value is not None:
                metric["summary"][key] = value * times
        metric["per_round"] = [value * times for value in metric["per_round"]]


def _scalar(unit: str, better: str, value: float) -> Run:
    return {"unit": unit, "better": better, "summary": {"value": value}, "per_round": [value] * 5}


def _doubt(run: Run, cell_id: str, level: str, reason: str) -> None:
    run["cells"][cell_id]["validity"] = {"level": level, "reasons": [reason], "client_error": 0.01, "endpoints": {}}
