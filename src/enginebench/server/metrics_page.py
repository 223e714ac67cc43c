"""The text of a ``/metrics`` page, in Prometheus' exposition format, as readings. Pure; asks no server.

Which families a server has depends on its version and backend: one that is not there was not offered, and is never
taken for zero.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

KEPT = ("nv_trt_llm_", "nv_llm_", "nv_inference_", "nv_gpu_")
_LEFT_OUT = re.compile(r"_bucket$|_summary_us(_count|_sum)?$")

REQUESTS = "nv_trt_llm_request_metrics"
KV_BLOCKS = "nv_trt_llm_kv_cache_block_metrics"
IN_FLIGHT = "nv_trt_llm_inflight_batcher_metrics"
GENERAL = "nv_trt_llm_general_metrics"
OUTPUT_TOKENS = "nv_llm_output_token_len"
INPUT_TOKENS = "nv_llm_input_token_len"
PENDING = "nv_inference_pending_request_count"
SUCCESS = "nv_inference_request_success"
DURATION_US = "nv_inference_request_duration_us"
INSTANCE = "instance"
"""The label that tells pages of several servers apart, as Prometheus calls it; here it is the server's URL."""

GPU = "nv_gpu_"

EXPECTED = (REQUESTS, KV_BLOCKS, IN_FLIGHT, GENERAL, OUTPUT_TOKENS, PENDING, SUCCESS, GPU)
"""What a Triton with the C++ TensorRT-LLM backend offers, in versions since 0.16; of others some are missing."""


class Gauge(NamedTuple):
    """Where a gauge stands: in which family, under which label, and that label's value."""

    family: str
    label: str
    kind: str


ACTIVE = Gauge(REQUESTS, "request_type", "active")
SCHEDULED = Gauge(REQUESTS, "request_type", "scheduled")
WAITING = Gauge(REQUESTS, "request_type", "waiting")
PAUSED = Gauge(IN_FLIGHT, "inflight_batcher_specific_metric", "paused_requests")
CONTEXT_TOKENS = Gauge(IN_FLIGHT, "inflight_batcher_specific_metric", "total_context_tokens")
GENERATION_REQUESTS = Gauge(IN_FLIGHT, "inflight_batcher_specific_metric", "generation_requests")
KV_USED = Gauge(KV_BLOCKS, "kv_cache_block_type", "used")
KV_MAX = Gauge(KV_BLOCKS, "kv_cache_block_type", "max")
ITERATIONS = Gauge(GENERAL, "general_type", "iteration_counter")

_LINE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?\s*")
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}

Labels = tuple[tuple[str, str], ...]


class Reading(NamedTuple):
    """One value of one series."""

    family: str
    labels: Labels  # sorted by name
    value: float

    def label(self, name: str) -> str | None:
        """The value of a label; None: there is no such label."""
        return dict(self.labels).get(name)


def parse(text: str) -> list[Reading]:
    """The readings of a page, in its order; lines that are none, such as comments, are left out."""
    return [reading for line in text.splitlines() if (reading := _reading(line))]


def kept(readings: Iterable[Reading]) -> list[Reading]:
    """Those that a run keeps: the engine's, the inference counters and the GPU's, without buckets and quantiles."""
    return [each for each in readings if each.family.startswith(KEPT) and not _LEFT_OUT.search(each.family)]


def families(readings: Iterable[Reading]) -> list[str]:
    """The names of the families, sorted."""
    return sorted({each.family for each in readings})


def not_offered(names: Sequence[str]) -> list[str]:
    """Of the families that there can be, those without any series among ``names``."""
    return [each for each in EXPECTED if not any(name.startswith(each) for name in names)]


def values(readings: Iterable[Reading], family: str, label: str) -> dict[str, float]:
    """Of one family the value by ``label``, summed over all other labels; empty: not offered."""
    found: dict[str, float] = {}
    for each in readings:
        if each.family == family and (key := each.label(label)) is not None:
            found[key] = found.get(key, 0.0) + each.value
    return found


def gauge(state: Mapping[tuple[str, Labels], float], which: Gauge) -> float | None:
    """The sum of the values in ``state``, as of ``series``, whatever their other labels; None: not offered."""
    found = [
        value
        for (family, labels), value in state.items()
        if family == which.family and (which.label, which.kind) in labels
    ]
    return sum(found) if found else None


def series(readings: Iterable[Reading]) -> Mapping[tuple[str, Labels], float]:
    """Value by family and labels."""
    return {(each.family, each.labels): each.value for each in readings}


def _reading(line: str) -> Reading | None:
    match = None if line.startswith("#") else _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        value = float(match[3])
    except ValueError:
        return None
    return Reading(match[1], tuple(sorted(_labels(match[2] or ""))), value)


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)
