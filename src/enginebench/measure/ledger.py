"""The memory ledger of a loaded engine: who holds which bytes of the GPU, how that is known, and what is left over.

Pure: phases of a session, the runtime's own facts and the build in, entries out. A size is the runtime's own where it
tells; else it is worked out from settings or files, and says so; what nobody tells is what is left over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from enginebench.builds.model import Build
from enginebench.server.metrics_page import KV_BLOCKS

LEAK_BYTES = 64 * 2**20
"""More than this after unloading is called a leak: contexts come and go in allocations of some MiB."""

POOL_SHARE = 0.5
"""Of the memory in use, from which on a KV pool hides what the build needs."""

MISMATCH_SHARE = 0.1
"""Between the weights that were expected and those that the runtime holds."""

MIN_SLOPE_S = 10.0
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``bytes`` None: not known, and ``source`` says why. ``expected_bytes``: from the build's shape."""

    what: str
    owner: str  # "gpu": lines that add up to what the GPU has in use; "extra": beside them; "host"
    bytes: int | None
    source: str
    expected_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class KvPool:
    """The KV cache of a loaded engine. ``by_share``: it takes a share of the free memory, whatever the build needs."""

    bytes: int | None
    tokens: int | None
    source: str
    by_share: float | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Entries, and what a reader must know of them."""

    entries: tuple[Entry, ...]
    pool: KvPool
    warnings: tuple[str, ...] = ()
    host_slope_bytes_per_s: Mapping[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The keys that a session in run.json has of it."""
        return {
            "ledger": [asdict(entry) for entry in self.entries],
            "ledger_warnings": list(self.warnings),
            "kv_pool": asdict(self.pool),
            "host_slope_bytes_per_s": dict(self.host_slope_bytes_per_s),
        }


def kv_pool(
    build: Build, facts: Mapping[str, Any], settings: Mapping[str, Any], served_tokens: int | None = None
) -> KvPool:
    """The pool as the runtime tells, else as a server's metrics do, else as it was set.

    ``served_tokens``: what the KV blocks of a server hold, by its metrics; None where they do not say.
    ``facts``: a session's, of which ``kv_pool_bytes`` and ``kv_pool_tokens`` count. ``settings``: the options that the
    engine was opened with, of which ``kv_cache_tokens`` and ``kv_cache_fraction`` count.
    """
    share = settings.get("kv_cache_fraction")
    told, tokens = facts.get("kv_pool_bytes"), facts.get("kv_pool_tokens")
    if told is not None:
        return KvPool(int(told), tokens, "the runtime", share)
    if served_tokens and build.kv_bytes_per_token:
        source = f"{KV_BLOCKS} (blocks x tokens a block) x bytes a token of the build"
        return KvPool(served_tokens * build.kv_bytes_per_token, served_tokens, source, share)
    tokens = tokens or served_tokens or settings.get("kv_cache_tokens")
    if tokens and build.kv_bytes_per_token:
        return KvPool(tokens * build.kv_bytes_per_token, tokens, "tokens that were set x bytes a token", share)
    why = f"a share of {share:g} of what is free after loading" if share else "nobody tells"
    return KvPool(None, tokens, f"{why}: in what is left over", share)


def max_concurrency(pool: KvPool, build: Build, tokens: int) -> int | None:
    """Requests of ``tokens`` (prompt and answer) that run at once before others queue; None where that is not known."""
    limits = [limit for limit in (build.limits.max_batch_size,) if limit]
    if pool.tokens and tokens:
        limits.append(pool.tokens // tokens)
    return min(limits, default=None)


def gpu_ledger(
    build: Build,
    phases: Mapping[str, int | None] | None,
    pool: KvPool,
    facts: Mapping[str, Any],
    others: int | None,
    by_gpu: Sequence[int] = (),
) -> Ledger:
    """The GPU's part of a ledger; empty without one.

    ``phases``: bytes in use before_load, after_load, peak and after_unload, of all GPUs of the session. ``others``:
    bytes that other processes held before loading; None where they cannot be seen. ``by_gpu``: bytes in use on each
    after loading.
    """
    if phases is None:
        return Ledger((), pool)
    before, after = phases.get("before_load"), phases.get("after_load")
    weights, context = _weights(build, facts), _context(before, facts)
    entries = [
        Entry("other processes", "gpu", others, "NVML, before loading" if others is not None else "NVML hides them"),
        Entry("driver and idle contexts", "gpu", _less(before, others or 0), "NVML before loading, less the above"),
        context,
        weights,
        Entry("KV pool", "gpu", pool.bytes, pool.source, _expected_pool(build, pool)),
        _rest(before, after, context, weights, pool),
        *_each(by_gpu),
        Entry("growth in rounds", "extra", _less(phases.get("peak"), after), "NVML: peak less after loading"),
        Entry("left after unloading", "extra", _less(phases.get("after_unload"), before), "NVML: after less before"),
    ]
    return Ledger(tuple(entries), pool, tuple(_warnings(build, entries, pool, after)))


def host_entries(host: Mapping[str, Mapping[str, int | None]]) -> list[Entry]:
    """Resident memory by role; ``host``: of a session's memory."""
    source = "resident set of the processes (RSS)"
    return [
        Entry(f"{role} processes, {words}", "host", phases.get(key), source)
        for role, phases in host.items()
        for key, words in (("after_load", "after loading"), ("peak", "at most"))
    ]


def slope_bytes_per_s(
    stamps_ns: Sequence[int], used_bytes: Sequence[int], spans_ns: Sequence[tuple[int, int]]
) -> float | None:
    """Growth of memory within ``spans_ns`` by least squares, one slope for all, whatever happens between them.

    None when they hold less than ten seconds together, of which nothing can be said.
    """
    stamps, used = np.asarray(stamps_ns, dtype=np.int64), np.asarray(used_bytes, dtype=np.float64)
    length_s = above = below = 0.0
    for start_ns, end_ns in spans_ns:
        within = (stamps >= start_ns) & (stamps <= end_ns)
        if within.sum() < 2:
            continue
        seconds = (stamps[within] - start_ns) / 1e9
        length_s += float(seconds[-1] - seconds[0])
        seconds -= seconds.mean()
        above += float(seconds @ (used[within] - used[within].mean()))
        below += float(seconds @ seconds)
    return above / below if length_s >= MIN_SLOPE_S and below else None


def _weights(build: Build, facts: Mapping[str, Any]) -> Entry:
    told = facts.get("weight_bytes")
    if told is not None:
        return Entry("weights", "gpu", int(told), "the runtime", build.parameter_bytes)
    if build.kind == "tensorrt_llm":
        return Entry("weights", "gpu", build.engine_bytes, "size of the engine files", build.parameter_bytes)
    return Entry("weights", "gpu", build.parameter_bytes, "estimated from the build's shape", build.parameter_bytes)


def _expected_pool(build: Build, pool: KvPool) -> int | None:
    return pool.tokens * build.kv_bytes_per_token if pool.tokens and build.kv_bytes_per_token else None


def _context(before: int | None, facts: Mapping[str, Any]) -> Entry:
    """What was in use once the runtime had a context on each of its GPUs and nothing else, less what was before."""
    told = facts.get("used_with_context_bytes")
    if told is None:
        return Entry("CUDA context", "gpu", None, "not told by this runtime: in the rest")
    return Entry("CUDA context", "gpu", _less(sum(told), before), "the runtime, less NVML before loading")


def _rest(before: int | None, after: int | None, context: Entry, weights: Entry, pool: KvPool) -> Entry:
    known = {"KV pool": pool.bytes, "context": context.bytes}
    what = ", ".join([*(name for name, held in known.items() if held is None), "buffers and the rest"])
    if before is None or after is None or weights.bytes is None:
        return Entry(what, "gpu", None, "NVML gave no sample before or after loading, or the weights are not known")
    held = weights.bytes + sum(each or 0 for each in known.values())
    return Entry(what, "gpu", after - before - held, "NVML: what is left over")


def _each(used: Sequence[int]) -> list[Entry]:
    """What is in use on each of several GPUs."""
    source = "NVML, after loading"
    return [Entry(f"in use on GPU {n}", "extra", held, source) for n, held in enumerate(used) if len(used) > 1]


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other


def _warnings(build: Build, entries: Sequence[Entry], pool: KvPool, after: int | None) -> list[str]:
    by_name = {entry.what: entry for entry in entries}
    return [*_swallowed(entries, pool, after), *_unexpected(by_name["weights"]), *_leaked(build, by_name)]


def _swallowed(entries: Sequence[Entry], pool: KvPool, after: int | None) -> list[str]:
    """A pool that takes what is free makes every build look alike."""
    held = pool.bytes if pool.bytes is not None else next(e.bytes for e in entries if e.what.startswith("KV pool, "))
    if not after or not held or pool.by_share is None or held < POOL_SHARE * after:
        return []
    sentence = (
        f"The KV pool takes about {held / GIB:.1f} of the {after / GIB:.1f} GiB in use, since it takes "
        f"{pool.by_share:.0%} of what is free after loading: any build looks alike. Set its size to see the build's "
        "own memory (--engine kv_cache_tokens=N)."
    )
    return [sentence]


def _unexpected(weights: Entry) -> list[str]:
    held, expected = weights.bytes, weights.expected_bytes
    if not held or not expected or weights.source != "the runtime":
        return []
    if abs(held / expected - 1) <= MISMATCH_SHARE:
        return []
    return [f"The runtime holds {held / GIB:.2f} GiB of weights; the build's shape asks for {expected / GIB:.2f} GiB."]


def _leaked(build: Build, by_name: Mapping[str, Entry]) -> list[str]:
    left = by_name["left after unloading"].bytes
    rest = next(entry.bytes for name, entry in by_name.items() if name.endswith("rest"))
    found = []
    if left is not None and left > LEAK_BYTES:
        found.append(f"{left / GIB:.2f} GiB are still in use after {build.name} was unloaded.")
    if rest is not None and rest < -LEAK_BYTES:
        found.append(
            f"Context, weights and KV pool together are {-rest / GIB:.2f} GiB more than the GPU gained by loading: one "
            "of the sources is wrong."
        )
    return found
