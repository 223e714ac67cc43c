"""The engine's own stamps of a request: when it arrived, was first scheduled, gave its first and its last token.

They are on a clock of the engine's, so only differences mean something: queue time against compute time.
"""

from datetime import timedelta
from typing import Any

from enginebench.runtimes.base import JsonValue
from enginebench.runtimes.tensorrt_llm.library import has

STAMPS = ("arrival_time", "first_scheduled_time", "first_token_time", "last_token_time")


def timing(index: int, metrics: Any) -> dict[str, JsonValue] | None:
    """Seconds since the request's arrival at the engine, from a ``RequestPerfMetrics``; None when it has none."""
    if metrics is None or not has(metrics, "timing_metrics"):
        return None
    stamps = {name: seconds(getattr(metrics.timing_metrics, name)) for name in STAMPS}
    arrival_s = stamps["arrival_time"]
    return {
        "request": index,
        "first_scheduled_s": stamps["first_scheduled_time"] - arrival_s,
        "first_token_s": stamps["first_token_time"] - arrival_s,
        "last_token_s": stamps["last_token_time"] - arrival_s,
    }


def seconds(value: Any) -> float:
    """A stamp as a number: bindings hand out ``timedelta``."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)
