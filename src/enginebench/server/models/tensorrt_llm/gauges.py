"""What upstream's C++ backend shows on ``/metrics``, here of the reference engine: same families, same labels.

Sampled ten times a second while requests are under way, as upstream does: what happens in between is not seen. A block
of the KV cache is a slot: it holds one request's tokens, up to the longest that the build allows.
"""

from collections.abc import Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from enginebench.reference.batcher import IterationStatistics
from enginebench.reference.options import ReferenceOptions

LABELS = {"model": "tensorrt_llm", "version": "1"}
_FAMILIES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nv_trt_llm_request_metrics": ("request_type", ("active", "max", "scheduled", "context", "waiting")),
    "nv_trt_llm_kv_cache_block_metrics": ("kv_cache_block_type", ("max", "free", "used", "tokens_per", "reused")),
    "nv_trt_llm_inflight_batcher_metrics": (
        "inflight_batcher_specific_metric",
        ("total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"),
    ),
    "nv_trt_llm_general_metrics": ("general_type", ("iteration_counter",)),
}
_LENGTHS = ("nv_llm_input_token_len", "nv_llm_output_token_len")
_LENGTH_TYPES = ("total_input_tokens", "total_output_tokens")


class Gauges:
    """The families and their last values; only what has changed is told to the server, since telling takes time."""

    def __init__(self, options: ReferenceOptions) -> None:
        self._options = options
        self._told: dict[tuple[str, str], float] = {}
        self._families: dict[str, Any] = {}  # a metric dies with its family
        self._metrics = {
            (family, kind): self._made(family, pb_utils.MetricFamily.GAUGE, {label: kind})
            for family, (label, kinds) in _FAMILIES.items()
            for kind in kinds
        }
        # The sum and the count of a histogram, as counters: this server's python backend has no histograms.
        self._lengths = [
            [
                self._made(f"{family}_{what}", pb_utils.MetricFamily.COUNTER, {"response_metric_type": kind})
                for what in ("sum", "count")
            ]
            for family, kind in zip(_LENGTHS, _LENGTH_TYPES, strict=True)
        ]
        self.show(IterationStatistics(0, 0, 0, 0, 0, options.max_batch_size, 0.0), idle=True)

    def show(self, last: IterationStatistics, *, idle: bool) -> None:
        """Show the ``last`` step; of an ``idle`` engine, that nothing is under way."""
        slots = self._options.max_batch_size
        active = 0 if idle else last.active
        used = 0 if idle else slots - last.free_slots
        waiting = 0 if idle else last.queued
        generation = 0 if idle else last.generation_tokens
        self._tell("nv_trt_llm_request_metrics", active=active + waiting, max=slots, scheduled=active)
        self._tell("nv_trt_llm_request_metrics", context=active - generation, waiting=waiting)
        per_block = self._options.max_seq_len
        self._tell("nv_trt_llm_kv_cache_block_metrics", max=slots, free=slots - used, used=used, tokens_per=per_block)
        self._tell("nv_trt_llm_kv_cache_block_metrics", reused=0)
        self._tell(
            "nv_trt_llm_inflight_batcher_metrics",
            total_context_tokens=0 if idle else last.context_tokens,
            generation_requests=generation,
            micro_batch_id=0,
            paused_requests=0,
        )
        self._tell("nv_trt_llm_general_metrics", iteration_counter=last.iteration)

    def count(self, prompt_tokens: int, output_tokens: int) -> None:
        """Count a request that ended well."""
        for (total, number), tokens in zip(self._lengths, (prompt_tokens, output_tokens), strict=True):
            total.increment(tokens)
            number.increment(1)

    def _made(self, name: str, kind: Any, labels: Mapping[str, str]) -> Any:
        if name not in self._families:
            made = pb_utils.MetricFamily(name=name, description="of the reference engine", kind=kind)
            self._families[name] = made
        return self._families[name].Metric(labels={**LABELS, **labels})

    def _tell(self, family: str, **values: float) -> None:
        for kind, value in values.items():
            if self._told.get((family, kind)) != value:
                self._metrics[family, kind].set(value)
                self._told[family, kind] = value


def open_gauges(options: ReferenceOptions) -> Gauges | None:
    """The families, made; None where the server shows no metrics."""
    try:
        return Gauges(options)
    except pb_utils.TritonModelException as error:
        pb_utils.Logger.log_info(f"no metrics of the engine: {error}")
        return None
