"""What a GPU did in a profiled round: time by kernel and by family, and how long it waited for the host. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAUNCH_GAP_NS = 100_000
"""Shorter than this, the time between two kernels is one launch; longer, the host had something else to do."""

MOST_KERNELS = 20

# The first that is found in a name decides: attention kernels are made of matrix products, and say so.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("memcpy", r"memcpy|memset|\bcopy_kernel|direct_copy|catarray"),
    ("comm", r"nccl|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast_kernel|oneshot|twoshot"),
    ("attention", r"attention|attn|fmha|mha|flash|xqa|softmax|kv_?cache"),
    ("norm", r"norm"),
    ("gemm", r"gemm|gemv|matmul|xmma|nvjet|cutlass|cublas|splitk|wgrad|\bdot_kernel"),
)


@dataclass(frozen=True, slots=True)
class KernelTime:
    """All launches of one kernel, or all copies of one kind."""

    name: str
    calls: int
    s: float

    def as_json(self) -> dict[str, Any]:
        """As it stands in profile.json."""
        return {"name": self.name, "family": family_of(self.name), "calls": self.calls, "s": self.s}


def family_of(name: str) -> str:
    """What kind of work a kernel does, by its name."""
    lower = name.lower()
    return next((family for family, pattern in _PATTERNS if re.search(pattern, lower)), "other")


def families(kernels: Iterable[KernelTime]) -> list[dict[str, Any]]:
    """Seconds, share and launches by family, the longest first."""
    seconds: dict[str, float] = {}
    calls: dict[str, int] = {}
    for kernel in kernels:
        family = family_of(kernel.name)
        seconds[family] = seconds.get(family, 0.0) + kernel.s
        calls[family] = calls.get(family, 0) + kernel.calls
    total = sum(seconds.values())
    ranked = sorted(seconds, key=lambda family: -seconds[family])
    return [
        {"family": each, "s": seconds[each], "share": seconds[each] / total if total else 0.0, "calls": calls[each]}
        for each in ranked
    ]


def longest(kernels: Sequence[KernelTime]) -> list[dict[str, Any]]:
    """The kernels that took most."""
    return [each.as_json() for each in sorted(kernels, key=lambda each: -each.s)[:MOST_KERNELS]]


def occupation(
    starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], window_ns: tuple[int, int]
) -> Mapping[str, Any]:
    """How ``window_ns`` divides: something ran on the GPU, a launch was under way, or the GPU waited for the host.

    Args:
        starts_ns: of each kernel and copy, of all streams of one GPU, shape (n,).
        ends_ns: the same.
        window_ns: the round.
    """
    low, high = window_ns
    order = np.argsort(starts_ns, kind="stable")
    starts, ends = np.clip(starts_ns[order], low, high), np.clip(ends_ns[order], low, high)
    reached = np.maximum.accumulate(np.concatenate([[low], ends]))
    gaps = np.concatenate([starts, [high]]) - reached
    gaps = gaps[gaps > 0]
    short = gaps[gaps < LAUNCH_GAP_NS]
    launch_s, host_s = float(short.sum()) / 1e9, float(gaps.sum() - short.sum()) / 1e9
    return {
        "window_s": (high - low) / 1e9,
        "busy_s": (high - low) / 1e9 - launch_s - host_s,
        "launch_gaps_s": launch_s,
        "launches": len(short),
        "host_s": host_s,
    }
