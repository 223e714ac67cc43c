"""How the time of a profiled round divides: requests wait, prefill and decode; the engine computes prompts or nothing.

Pure: stamps in, seconds out. What nobody recorded is None.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from enginebench.measure.records import RoundRecord
from enginebench.profile.iterations import Iterations


def request_shares(record: RoundRecord, scheduled_ns: Mapping[int, int]) -> dict[str, Any] | None:
    """Mean seconds a request waited, was in prefill and decoded; None without a request that streamed to its end.

    ``scheduled_ns``: by request, when the engine took it up. Where any is missing, waiting and prefill are one.
    """
    table = record.requests
    ok = np.flatnonzero(table.ok & (table.first_ns > 0))
    if not record.streaming or not len(ok):
        return None
    decode = float((table.last_ns - table.first_ns)[ok].mean()) / 1e9
    first = float((table.first_ns - table.intended_ns)[ok].mean()) / 1e9
    known = [scheduled_ns.get(int(index)) for index in table.index[ok]]
    taken = np.array([stamp for stamp in known if stamp is not None], dtype=np.int64)
    if len(taken) < len(ok):
        return {"requests": len(ok), "waiting_s": None, "prefill_s": None, "until_first_s": first, "decode_s": decode}
    waiting = float(np.maximum(taken - table.intended_ns[ok], 0).mean()) / 1e9
    return {
        "requests": len(ok),
        "waiting_s": waiting,
        "prefill_s": first - waiting,
        "until_first_s": first,
        "decode_s": decode,
    }


def engine_shares(record: RoundRecord, iterations: Iterations) -> dict[str, Any] | None:
    """Seconds of the round in steps with a prompt, in others, and in none; None where steps are not known."""
    if iterations.sampled or not len(iterations):
        return None
    within = (iterations.stamp_ns > record.started_ns) & (iterations.stamp_ns <= record.ended_ns)
    step_s = np.nan_to_num(iterations["step_ns"])[within] / 1e9
    prompt = iterations["context_tokens"][within] > 0
    steps_s = float(step_s.sum())
    return {
        "window_s": record.window_s,
        "prefill_s": float(step_s[prompt].sum()),
        "decode_s": float(step_s[~prompt].sum()),
        "idle_s": max(0.0, record.window_s - steps_s),
        "steps": int(within.sum()),
        "typical_step_s": float(np.median(step_s[~prompt])) if (~prompt).any() else None,
    }
