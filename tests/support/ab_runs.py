"""Synthetic run.json records whose blocks are given: what a comparison reads, and nothing more."""

import copy
import random
from collections.abc import Sequence
from typing import Any

from tests.support.sample_environment import GIB, build, environment

Run = dict[str, Any]

SCENARIO: dict[str, Any] = {
    "name": "tiny",
    "prompts": [{"text": "你是谁？"}],
    "output_tokens": [16],
    "batch_sizes": [2],
    "streaming": [True],
    "rounds": 2,
    "gate": [{"cell": "direct-stream-out0016-bs002", "metric": "tpot_p50", "margin": 0.05}],
}
CELL = "tiny-direct-stream-out0016-bs002"
QUIET = 0.005
REQUESTS = 8


def block(number: int, tpot_s: float, *, pair: int | None = None, failed: int = 0, **changes: Any) -> Run:
    """An entry of ``per_block`` in which every token takes ``tpot_s``."""

    def spread(value: float) -> dict[str, float | int | None]:
        shown = None if failed * 2 >= REQUESTS else value
        keys = ("p50", "p90", "p95", "p99", "min", "max", "mean")
        return {key: shown if key == "p50" else None for key in keys} | {"count": REQUESTS, "failed": failed}

    metrics = {
        "ttft": spread(tpot_s),
        "slip": {**spread(1e-5), "p50": 1e-5, "max": 2e-5},
        "tpot": spread(tpot_s),
        "e2e_latency": spread(16 * tpot_s),
        "output_tokens_per_s": {"value": 2 / tpot_s},
    }
    entry = {
        "block": number,
        "pair": pair,
        "seed": 0,
        "rounds": 2,
        "requests": REQUESTS,
        "failed_requests": failed,
        "broken": "requests failed" if failed else None,
        "calibration": None,
        "validity": None,
        "metrics": metrics,
    }
    return entry | changes


def run(blocks: Sequence[Run], run_id: str = "old", *, name: str = "old", cell_id: str = CELL) -> Run:
    """A run with one cell, measured in ``blocks``; of the cell's own numbers only the first block's are there."""
    first = blocks[0]
    cell = {
        "scenario": "tiny",
        "path": "direct",
        "streaming": True,
        "output_tokens": 16,
        "load": {"kind": "batch", "label": "bs002", "level": 2},
        "prompt_tokens": [4, 4],
        "status": "measured",
        "reason": None,
        "stamp_kind": "engine",
        "requests_per_round": 4,
        "requests": REQUESTS * len(blocks),
        "failed_requests": 0,
        "findings": [],
        "metrics": {
            metric: {"unit": "s", "better": "lower", "summary": summary, "per_round": [summary.get("p50")] * 4}
            for metric, summary in first["metrics"].items()
        },
        "memory": {"gpu_peak_bytes": None, "host_peak_bytes": {}},
        "per_block": list(blocks),
    }
    return {
        "schema": "enginebench/run/1",
        "id": run_id,
        "created": "2026-11-22T21:14:47Z",
        "finished": "2026-11-22T21:18:31Z",
        "interrupted": False,
        "command": ["pytest"],
        "build": build() | {"name": name, "fingerprint": f"sha256:{name}", "facts": {}},
        "attached_url": None,
        "environment": environment(),
        "calibration": None,
        "plan": {"set": None, "scenarios": {"tiny": copy.deepcopy(SCENARIO)}, "cells": [cell_id], "left_out": {}},
        "sessions": [],
        "cells": {cell_id: cell},
    }


def stored(tpot_s: float = 0.01, run_id: str = "old", **settings: Any) -> Run:
    """A run of its own, with one block."""
    return run([block(0, tpot_s)], run_id, name=run_id, **settings)


def sides(slower: float = 0.0, pairs: int = 8, *, sd: float = QUIET, seed: int = 1) -> tuple[Run, Run]:
    """The two runs of an A/B measurement whose new build takes ``slower`` times longer."""
    rng = random.Random(seed)
    made = {}
    for side, factor in (("old", 1.0), ("new", 1.0 + slower)):
        blocks = [block(pair, 0.01 * factor * rng.lognormvariate(0, sd), pair=pair) for pair in range(pairs)]
        made[side] = run(blocks, f"{side}-run", name=side)
    for side, other in (("old", "new"), ("new", "old")):
        made[side]["ab"] = {
            "side": side,
            "other": f"{other}-run",
            "order": [turn(pair, each) for pair in range(pairs) for each in ("old", "new")],
            "discarded": [],
            "gated": [],
            "gate_source": "the scenario",
            "pairs_planned": pairs,
            "looks": [4, pairs] if pairs > 4 else [pairs],
            "stopped": "all pairs were measured",
            "smallest_effect": {},
        }
    return made["old"], made["new"]


def turn(pair: int, side: str) -> Run:
    """One block of ``ab.order``."""
    return {
        "block": pair,
        "pair": pair,
        "side": side,
        "seed": None,
        "started": "2026-11-22T21:14:47+00:00",
        "duration_s": 1.0,
        "loads": 1,
        "temperature_c": None,
    }


def with_memory(made: Run, outside_bytes: Sequence[float]) -> Run:
    """``made`` with a session a block whose engine takes this much GPU memory beside a pool of 8 GiB."""
    made["sessions"] = [
        {
            "path": "direct",
            "block": number,
            "facts": {},
            "memory": {"gpu": {"before_load": GIB, "after_load": int(9 * GIB + used), "peak": 0, "after_unload": 0}},
            "kv_pool": {"bytes": 8 * GIB, "tokens": None, "source": "the runtime", "by_share": None},
        }
        for number, used in enumerate(outside_bytes)
    ]
    return made
