"""GPU memory of engines that were loaded side by side: no value, with the reason. Pure.

What a build or a runtime says of itself stays; what NVML saw was of both engines together.
"""

from collections.abc import Mapping
from typing import Any

REASON = "both engines were loaded at once, and the GPU memory of one cannot be told from that of the other"
_OF_ONE_ENGINE = ("weights", "KV pool")


def session_side_by_side(session: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of ``sessions`` in run.json without what was read off the GPU."""
    ledger = [
        entry
        if entry["owner"] == "host" or entry["what"] in _OF_ONE_ENGINE
        else {**entry, "bytes": None, "source": REASON}
        for entry in session["ledger"]
    ]
    memory = {**session["memory"], "gpu": None, "gpu_reason": REASON}
    return {**session, "memory": memory, "ledger": ledger, "ledger_warnings": []}


def cell_side_by_side(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A measured cell of run.json without what was read off the GPU's memory."""
    result = {**cell, "memory": {**cell["memory"], "gpu_peak_bytes": None, "gpu_reason": REASON}}
    if gpu := cell.get("gpu"):
        by_gpu = [{**each, "peak_bytes": None} for each in gpu.get("by_gpu") or ()]
        notes = [*gpu["notes"], f"No GPU memory: {REASON}."]
        result["gpu"] = {**gpu, "peak_bytes": None, "by_gpu": by_gpu, "notes": notes}
    return result
