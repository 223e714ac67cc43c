"""How far a cell is from what its card can do: bandwidth that decode used, operations that prefill used.

Pure. Work is counted from the build's shape (``builds.sizes``), time is that of the cell's own metrics, and the limit
of a card is what NVML says of its memory, or its data sheet. A share above 1 is an error of these numbers, never a
result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from enginebench.builds.model import Build
from enginebench.builds.sizes import decode_flops, prefill_flops, step_weight_bytes
from enginebench.measure.gpu_trace import GpuFacts
from enginebench.measure.metrics import nearest_rank, request_values
from enginebench.measure.records import UNKNOWN, RoundRecord

TERA = 1e12


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a data sheet promises of a card: dense products on tensor cores, without sparsity."""

    name: str  # part of NVML's name
    bandwidth: float  # bytes/s
    half: float  # operations/s in float16 and bfloat16
    eight: float | None = None  # in FP8, or INT8 where a card has no FP8
    source: str = ""


_DATA_SHEET = "NVIDIA data sheet"
SHEETS = (
    Sheet("GB200", 8.0e12, 2500 * TERA, 5000 * TERA, _DATA_SHEET),
    Sheet("B200", 8.0e12, 2250 * TERA, 4500 * TERA, _DATA_SHEET),
    Sheet("H200", 4.8e12, 989.4 * TERA, 1978.9 * TERA, _DATA_SHEET),
    Sheet("GH200", 4.0e12, 989.4 * TERA, 1978.9 * TERA, _DATA_SHEET),
    Sheet("H100 PCIe", 2.039e12, 756 * TERA, 1513 * TERA, _DATA_SHEET),
    Sheet("H100 NVL", 3.9e12, 835 * TERA, 1671 * TERA, _DATA_SHEET),
    Sheet("H100", 3.352e12, 989.4 * TERA, 1978.9 * TERA, _DATA_SHEET),
    Sheet("H20", 4.0e12, 148 * TERA, 296 * TERA, _DATA_SHEET),
    Sheet("A100-SXM4-40GB", 1.555e12, 312 * TERA, 624 * TERA, _DATA_SHEET),
    Sheet("A100-PCIE-40GB", 1.555e12, 312 * TERA, 624 * TERA, _DATA_SHEET),
    Sheet("A100", 2.039e12, 312 * TERA, 624 * TERA, _DATA_SHEET),
    Sheet("A30", 0.933e12, 165 * TERA, 330 * TERA, _DATA_SHEET),
    Sheet("A40", 0.696e12, 149.7 * TERA, 299.3 * TERA, _DATA_SHEET),
    Sheet("A10", 0.600e12, 125 * TERA, 250 * TERA, _DATA_SHEET),
    Sheet("L40S", 0.864e12, 362 * TERA, 733 * TERA, _DATA_SHEET),
    Sheet("L40", 0.864e12, 181 * TERA, 362 * TERA, _DATA_SHEET),
    Sheet("L4", 0.300e12, 121 * TERA, 242 * TERA, _DATA_SHEET),
    Sheet("T4", 0.320e12, 65 * TERA, 130 * TERA, _DATA_SHEET),
    Sheet("V100", 0.900e12, 125 * TERA, None, _DATA_SHEET),
)
"""The first whose name is in NVML's, word by word."""


@dataclass(frozen=True, slots=True)
class Peak:
    """A limit of the GPUs of a build. ``value`` None: ``source`` says why it is not known."""

    value: float | None
    source: str


def sheet_of(name: str) -> Sheet | None:
    """The data sheet of the card that NVML calls ``name``; None: not in the table."""
    words = name.replace("-", " ").split()
    for sheet in SHEETS:
        wanted = sheet.name.replace("-", " ").split()
        if all(word in words for word in wanted):
            return sheet
    return None


def peak_bandwidth(cards: Sequence[GpuFacts], stages: int = 1) -> Peak:
    """Bytes/s that the memory of ``cards`` can move for one token.

    From NVML: the bus in bytes x 2 transfers a cycle x the highest memory clock; GDDR6 and HBM alike. Of a part of a
    card it is not known. The ``stages`` of a pipeline compute a token one after the other, each on its own cards.
    """
    if any(card.get("mig_of") for card in cards):
        return Peak(None, "a part of a GPU (MIG): its share of the bandwidth is not told")
    found = [_card_bandwidth(card) for card in cards]
    known = [each.value for each in found if each.value is not None]
    if not cards or len(known) < len(cards):
        return Peak(None, next((each.source for each in found if each.value is None), "no GPU"))
    at_once = f"one of {stages} stages at a time" if stages > 1 else ""
    sources = dict.fromkeys([*(each.source for each in found), *([at_once] if at_once else [])])
    return Peak(sum(known) / stages, ", ".join(sources))


def _card_bandwidth(card: GpuFacts) -> Peak:
    bits, clock_mhz = card.get("memory_bus_bits"), card.get("max_memory_clock_mhz")
    if bits and clock_mhz:
        return Peak(bits / 8 * 2 * clock_mhz * 1e6, f"NVML: {bits} bits x 2 x {clock_mhz} MHz")
    sheet = sheet_of(str(card.get("name")))
    if sheet is None:
        return Peak(None, f"NVML does not tell the memory of {card.get('name')}, and no data sheet of it is known here")
    return Peak(sheet.bandwidth, sheet.source)


def peak_flops(cards: Sequence[GpuFacts], build: Build) -> Peak:
    """Operations/s of ``cards`` on tensor cores in the width in which the matrix products of ``build`` are computed."""
    if any(card.get("mig_of") for card in cards):
        return Peak(None, "a part of a GPU (MIG): its share of the tensor cores is not told")
    bits = _compute_bits(build)
    if bits is None:
        return Peak(None, f"{build.quantisation or build.dtype} is computed in a width that no table here has")
    values = []
    for card in cards:
        sheet = sheet_of(str(card.get("name")))
        value = None if sheet is None else sheet.half if bits == 16 else sheet.eight
        if value is None:
            return Peak(None, f"no data sheet of {card.get('name')} is known here for {bits}-bit products")
        values.append(value)
    width = "float16 and bfloat16" if bits == 16 else "FP8 or INT8"
    return Peak(sum(values), f"{_DATA_SHEET}, dense {width}") if values else Peak(None, "no GPU")


def _compute_bits(build: Build) -> int | None:
    """The width of the products: weight-only quantisation computes in that of the activations."""
    name = (build.quantisation or "").upper()
    if name.startswith(("FP8", "W8A8", "W4A8")):
        return 8
    if not name or name.startswith(("W8A16", "W4A16", "INT4", "INT8")):
        return 16 if build.dtype in ("float16", "bfloat16") else None
    return None


@dataclass(frozen=True, slots=True)
class Work:
    """What one step (decode) or one batch of prompts (prefill) asks of the cards, and how long it took."""

    seconds: float
    bytes: float
    flops: float
    requests: float  # that were computed together, on average
    tokens: float  # of context (decode), or of a prompt

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a cell: ``mbu``, the share of the bandwidth that decode used; ``mfu``, that of the operations in prefill."""

    bandwidth: Peak
    flops: Peak
    gpus: int
    decode: Work | None = None
    prefill: Work | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)  # why "mbu" or "mfu" is not known

    @property
    def mbu(self) -> float | None:
        """Bytes of a step / its time / the bandwidth."""
        if self.decode is None or self.bandwidth.value is None:
            return None
        return self.decode.bytes / self.decode.seconds / self.bandwidth.value

    @property
    def mfu(self) -> float | None:
        """Operations of the prompts / their time / the operations that the cards can do."""
        if self.prefill is None or self.flops.value is None:
            return None
        return self.prefill.flops / self.prefill.seconds / self.flops.value

    def impossible(self) -> list[str]:
        """Sentences on shares above 1."""
        shares = {"memory bandwidth (MBU)": self.mbu, "operations (MFU)": self.mfu}
        return [
            f"{share:.0%} of the card's {what}: more than it has, so the shape, the times or the limit are wrong"
            for what, share in shares.items()
            if share is not None and share > 1
        ]

    def as_json(self) -> dict[str, Any]:
        """As it stands in run.json, under a cell's ``gpu``."""
        return {
            "gpus": self.gpus,
            "peak_bytes_per_s": self.bandwidth.value,
            "peak_bytes_source": self.bandwidth.source,
            "peak_flops_per_s": self.flops.value,
            "peak_flops_source": self.flops.source,
            "decode": asdict(self.decode) if self.decode else None,
            "prefill": asdict(self.prefill) if self.prefill else None,
            "reasons": dict(self.reasons),
        }


def cell_limits(build: Build, cards: Sequence[GpuFacts], rounds: Sequence[RoundRecord], *, reuse: bool) -> Limits:
    """Hold the measured ``rounds`` of a cell against ``cards``. ``reuse``: whether prompts may come from a cache."""
    measured = [record for record in rounds if not record.warmup and record.valid]
    decode, why_not_decode = decode_work(build, measured)
    prefill, why_not_prefill = (None, "prompts may come from the KV cache") if reuse else prefill_work(build, measured)
    bandwidth, flops = peak_bandwidth(cards, build.pp), peak_flops(cards, build)
    reasons = {
        "mbu": why_not_decode or ("" if bandwidth.value else bandwidth.source),
        "mfu": why_not_prefill or ("" if flops.value else flops.source),
    }
    known = {name: reason for name, reason in reasons.items() if reason}
    return Limits(bandwidth, flops, len(cards), decode, prefill, known)


def decode_work(build: Build, rounds: Sequence[RoundRecord]) -> tuple[Work | None, str]:
    """One decode step of an average request, its time the median TPOT; or None and why.

    A step reads the weights once, and the KV cache of as many requests as were being decoded on average, each at its
    mean length: its prompt and half of its answer. A pipeline may split them into as many micro-batches as it has
    stages, which follow each other (TensorRT-LLM does: TrtGptModelInflightBatching, mNumMicroBatches): of them a token
    waits for its own alone, so the KV cache of no more is counted.
    """
    weights = step_weight_bytes(build.shape, build.dtype, build.quantisation)
    if weights is None or build.kv_bytes_per_token is None:
        return None, "the build does not say its shape, or a step reads only some of its weights (experts)"
    step_s = _median_tpot_s(rounds)
    if step_s is None:
        return None, "no TPOT: decode cannot be told from prefill"
    together, context = max(1.0, _mean(decoding(record) for record in rounds) / build.pp), _mean_context(rounds)
    flops = decode_flops(build.shape, context)
    assert flops is not None  # as the weights are known
    step_bytes = weights + together * context * build.kv_bytes_per_token
    return Work(step_s, step_bytes, together * flops, together, context), ""


def prefill_work(build: Build, rounds: Sequence[RoundRecord]) -> tuple[Work | None, str]:
    """The prompts of an average batch, their time from the release to the last first token; or None and why.

    Only where prompts are computed with nothing else: in batches that fit into the engine at once.
    """
    weights = step_weight_bytes(build.shape, build.dtype, build.quantisation)
    if weights is None or build.kv_bytes_per_token is None:
        return None, "the build does not say its shape, or a step reads only some of its weights (experts)"
    if any(record.load["kind"] != "batch" for record in rounds) or not all(record.streaming for record in rounds):
        return None, "prefill is told from decode only in streamed batches"
    batches = [batch for record in rounds for batch in _batches(record)]
    if not batches:
        return None, "no batch of completed requests"
    limit = build.limits.max_batch_size
    if limit is not None and max(len(tokens) for _, tokens in batches) > limit:
        return None, f"batches of more than the build's {limit} requests are prefilled between steps of decode"
    tokens = [each for _, prompts in batches for each in prompts]
    flops = sum(prefill_flops(build.shape, each) or 0.0 for each in tokens)
    moved = len(batches) * weights + sum(tokens) * build.kv_bytes_per_token
    count = len(batches)
    seconds = sum(seconds for seconds, _ in batches)
    return Work(seconds / count, moved / count, flops / count, len(tokens) / count, sum(tokens) / len(tokens)), ""


def decoding(record: RoundRecord) -> float | None:
    """How many requests of a round were between their first and last token at once, on average while any was."""
    requests = record.requests
    known = (requests.first_ns > 0) & (requests.last_ns > requests.first_ns)
    if not known.any():
        return None
    first, last = requests.first_ns[known], requests.last_ns[known]
    order = np.argsort(first)
    first, last = first[order], np.maximum.accumulate(last[order])
    covered = last - first  # each as if alone, less what an earlier one covers already
    covered[1:] -= np.clip(last[:-1] - first[1:], 0, covered[1:])
    return float(np.sum((requests.last_ns - requests.first_ns)[known]) / np.sum(covered))


def _median_tpot_s(rounds: Sequence[RoundRecord]) -> float | None:
    """As the metric has it; None where a path does not tell what came when, or a failed request is the median."""
    if any(not record.streaming or (record.chunks.tokens == UNKNOWN).any() for record in rounds):
        return None
    values = np.concatenate([request_values("tpot", record) for record in rounds]) if rounds else np.array([])
    known = np.sort(values[~np.isnan(values)])
    middle = nearest_rank(known, 50) if len(known) else np.inf
    return middle if 0 < middle < np.inf else None


def _mean_context(rounds: Sequence[RoundRecord]) -> float:
    """Tokens in front of the average output token."""
    prompts = np.concatenate([record.requests.prompt_tokens for record in rounds]).astype(float)
    outputs = np.concatenate([record.requests.tokens for record in rounds]).astype(float)
    known = outputs > 0
    return float(np.average(prompts[known] + outputs[known] / 2, weights=outputs[known]))


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 1.0


def _batches(record: RoundRecord) -> list[tuple[float, list[int]]]:
    """Of each batch: seconds from its release to its last first token, and the tokens of its prompts."""
    requests = record.requests
    if not requests.ok.all() or (requests.first_ns <= 0).any() or (requests.prompt_tokens == UNKNOWN).any():
        return []
    found = []
    for release_ns in np.unique(requests.intended_ns):
        rows = requests.intended_ns == release_ns
        seconds = float(requests.first_ns[rows].max() - requests.sent_ns[rows].min()) / 1e9
        found.append((seconds, requests.prompt_tokens[rows].tolist()))
    return found
