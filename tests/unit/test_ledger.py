"""The memory ledger: it adds up, it names its sources, and it says what is odd."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.model import Build, Limits
from enginebench.measure.ledger import (
    Entry,
    KvPool,
    Ledger,
    gpu_ledger,
    host_entries,
    kv_pool,
    max_concurrency,
    slope_bytes_per_s,
)  # fmt: skip

GIB = 2**30
BUILD = Build(
    name="fp16", directory=Path("/b"), kind="tensorrt_llm", version="0.12.0", architecture="A", dtype="float16",
    limits=Limits(64, 1024, 2048), fingerprint="sha256:0", engine_bytes=12 * GIB, parameter_bytes=12 * GIB,
    kv_bytes_per_token=28_672,
)  # fmt: skip
PHASES = {"before_load": GIB, "after_load": 72 * GIB, "peak": 73 * GIB, "after_unload": GIB}
TOLD = {"weight_bytes": 12 * GIB, "kv_pool_bytes": 20 * GIB, "kv_pool_tokens": 20 * GIB // 28_672}


def ledger(facts: dict[str, Any], phases: Mapping[str, int | None] | None = None, **settings: Any) -> Ledger:
    pool = kv_pool(BUILD, facts, settings)
    return gpu_ledger(BUILD, PHASES if phases is None else phases, pool, facts, 0)


def by_name(found: Ledger) -> dict[str, Entry]:
    return {entry.what: entry for entry in found.entries}


def test_what_the_runtime_tells_is_taken_and_the_rest_is_left_over() -> None:
    lines = by_name(ledger(TOLD))
    assert (lines["weights"].bytes, lines["weights"].source) == (12 * GIB, "the runtime")
    assert (lines["KV pool"].bytes, lines["KV pool"].source) == (20 * GIB, "the runtime")
    assert lines["KV pool"].expected_bytes == pytest.approx(20 * GIB, abs=28_672)
    assert lines["context, buffers and the rest"].bytes == (71 - 12 - 20) * GIB
    assert lines["growth in rounds"].bytes == GIB
    assert lines["left after unloading"].bytes == 0


def test_the_context_has_a_line_of_its_own_where_the_runtime_tells() -> None:
    """One GiB was in use before loading; with a context on each of two cards, two and a half were."""
    told = {**TOLD, "used_with_context_bytes": [3 * GIB // 2, GIB]}
    pool = kv_pool(BUILD, told, {})
    lines = by_name(gpu_ledger(BUILD, PHASES, pool, told, 0, by_gpu=(40 * GIB, 32 * GIB)))
    assert lines["CUDA context"].bytes == 3 * GIB // 2
    assert lines["buffers and the rest"].bytes == (71 - 12 - 20) * GIB - 3 * GIB // 2
    assert [lines[f"in use on GPU {place}"].bytes for place in (0, 1)] == [40 * GIB, 32 * GIB]
    silent = by_name(ledger(TOLD))["CUDA context"]
    assert (silent.bytes, silent.source) == (None, "not told by this runtime: in the rest")


def test_settings_and_files_stand_in_and_say_so() -> None:
    lines = by_name(ledger({}, kv_cache_tokens=100_000))
    assert (lines["KV pool"].bytes, lines["KV pool"].source) == (
        100_000 * 28_672, "tokens that were set x bytes a token"
    )  # fmt: skip
    assert lines["weights"].source == "size of the engine files"
    shapes_own = gpu_ledger(replace(BUILD, kind="pytorch"), PHASES, kv_pool(BUILD, {}, {}), {}, None)
    assert by_name(shapes_own)["weights"].source == "estimated from the build's shape"
    assert by_name(shapes_own)["other processes"].bytes is None


def test_the_blocks_of_a_server_are_the_pool_where_the_runtime_tells_none() -> None:
    found = kv_pool(BUILD, {}, {}, served_tokens=6239 * 64)
    assert (found.bytes, found.tokens) == (6239 * 64 * 28_672, 6239 * 64)
    assert found.source.startswith("nv_trt_llm_kv_cache_block_metrics")
    assert kv_pool(BUILD, TOLD, {}, served_tokens=1).source == "the runtime"
    shapeless = kv_pool(replace(BUILD, kv_bytes_per_token=None), {}, {}, served_tokens=640)
    assert (shapeless.bytes, shapeless.tokens, shapeless.source) == (None, 640, "nobody tells: in what is left over")


def test_a_pool_that_takes_what_is_free_hides_the_build() -> None:
    found = ledger({}, kv_cache_fraction=0.9)
    assert by_name(found)["KV pool"].bytes is None
    assert by_name(found)["KV pool, context, buffers and the rest"].bytes == 59 * GIB
    (warning,) = found.warnings
    assert "about 59.0 of the 72.0 GiB" in warning
    assert "kv_cache_tokens=N" in warning
    assert ledger(TOLD, kv_cache_tokens=700_000).warnings == ()
    assert ledger({**TOLD, "kv_pool_bytes": 50 * GIB}, kv_cache_fraction=0.9).warnings != ()


def test_leaks_and_sizes_that_cannot_be_are_said() -> None:
    said = " ".join(ledger({**TOLD, "weight_bytes": 60 * GIB}, PHASES | {"after_unload": 3 * GIB}).warnings)
    for words in (
        "60.00 GiB of weights; the build's shape asks for 12.00",
        "2.00 GiB are still in use",
        "9.00 GiB more",
    ):
        assert words in said


def test_without_a_gpu_there_are_no_lines() -> None:
    assert gpu_ledger(BUILD, None, kv_pool(BUILD, {}, {}), {}, None).entries == ()
    nothing = by_name(ledger(TOLD, dict.fromkeys(PHASES)))
    assert nothing["context, buffers and the rest"].bytes is None
    assert nothing["growth in rounds"].bytes is None


@given(
    *(st.none() | st.integers(0, 40 * GIB) for _ in range(3)),
    st.integers(0, GIB),
    st.none() | st.integers(GIB, 2 * GIB),
)
def test_lines_add_up_whatever_is_known(
    weights: int | None, pool: int | None, free: int | None, others: int, used: int | None
) -> None:
    facts = {"weight_bytes": weights, "kv_pool_bytes": pool, "used_with_context_bytes": used and [used]}
    phases = PHASES | {"before_load": GIB + (free or 0)}
    found = gpu_ledger(BUILD, phases, kv_pool(BUILD, facts, {}), facts, others)
    assert sum(entry.bytes or 0 for entry in found.entries if entry.owner == "gpu") == phases["after_load"]


@pytest.mark.parametrize(
    ("pool", "tokens", "most"),
    [(KvPool(1, 10_000, ""), 1_000, 10), (KvPool(1, 100_000, ""), 1_000, 64), (KvPool(None, None, ""), 1_000, 64)],
)
def test_concurrency_is_bounded_by_the_pool_and_by_the_build(pool: KvPool, tokens: int, most: int) -> None:
    assert max_concurrency(pool, BUILD, tokens) == most


def test_host_memory_by_role_and_its_slope() -> None:
    lines = host_entries({"server": {"before_load": None, "after_load": 5, "peak": 9}})
    assert [(line.what, line.bytes) for line in lines] == [
        ("server processes, after loading", 5), ("server processes, at most", 9)
    ]  # fmt: skip
    stamps = [second * 10**9 for second in range(20)]
    whole = [(stamps[0], stamps[-1])]
    assert slope_bytes_per_s(stamps, [1000 + 7 * second for second in range(20)], whole) == pytest.approx(7)
    assert slope_bytes_per_s(stamps[:5], [1, 2, 3, 4, 5], whole) is None


def test_loading_and_what_lies_between_cells_is_no_growth() -> None:
    stamps = [second * 10**9 for second in range(30)]
    loading, first, between = [second * 500 for second in range(6)], [3000 + second for second in range(9)], [9000] * 5
    used = [*loading, *first, *between, *(9000 + second for second in range(10))]
    cells = [(stamps[6], stamps[14]), (stamps[20], stamps[29])]
    assert slope_bytes_per_s(stamps, used, cells) == pytest.approx(1)
    assert slope_bytes_per_s(stamps, used, cells[:1]) is None
    assert slope_bytes_per_s(stamps, used, []) is None
