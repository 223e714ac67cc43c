"""How a build is run in process: runtime, options, ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import Build, Limits
from enginebench.errors import BuildError, EnginebenchError
from enginebench.run import serve
from enginebench.run.direct import (
    check_gpus,
    read_settings,
    reuses_no_kv_cache,
    runtime_of,
    visible_gpus,
    world_of,
)
from enginebench.runtimes.tensorrt_llm.settings import settings_from

ENGINE = Build(
    name="fp16",
    directory=Path("/engines/fp16"),
    kind="tensorrt_llm",
    version="0.16.0",
    architecture="ChatGLMForCausalLM",
    dtype="float16",
    limits=Limits(8, 1024, 2048, 8192),
    fingerprint="sha256:0",
    engine_bytes=1,
)


def build(**changes: Any) -> Build:
    return replace(ENGINE, **changes)


def test_a_reference_build_runs_on_the_reference_engine() -> None:
    assert runtime_of(build(kind="reference")) == ("reference", {"directory": "/engines/fp16"})
    assert world_of(build(kind="reference")) is None


def test_an_engines_options_are_those_that_the_runtime_takes() -> None:
    runtime, options = runtime_of(ENGINE)
    settings = settings_from(options)
    assert runtime == "tensorrt_llm"
    assert (settings.max_batch_size, settings.max_seq_len, settings.version) == (8, 2048, "0.16.0")
    assert settings.kv_cache_fraction == 0.9
    assert settings.adapter is None


def test_a_checkpoints_own_arguments_come_with_it() -> None:
    given = {"kv_cache_config": {"max_tokens": 4096}, "cuda_graph_config": {}}
    settings = settings_from(runtime_of(build(kind="pytorch", layout="checkpoint", llm_args=given))[1])
    assert settings.llm_args == given
    assert settings.kv_cache_fraction is None


def test_an_engine_without_inflight_batching_runs_whole_batches() -> None:
    assert runtime_of(build(inflight_off="paged_kv_cache is off"))[1]["adapter"] == "model_runner"


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [
        ({"tp": 2, "version": "0.16.0"}, None),  # the LLM API starts them
        ({"tp": 2, "pp": 2, "version": "0.13.0"}, 4),
        ({"version": "0.13.0"}, None),
        ({"tp": 2, "kind": "pytorch", "version": None}, None),
    ],
)
def test_ranks_are_started_together_where_the_library_does_not(changes: dict[str, Any], ranks: int | None) -> None:
    world = world_of(build(**changes))
    assert (world.size if world else None) == ranks


# --- What a command line decides --------------------------------------------------------------------------------------


def test_what_a_command_line_gives_goes_before_what_is_chosen_here() -> None:
    given = read_settings(["kv_cache_tokens=4096", "scheduler_policy=max_utilization", "chunked_context=on"], ENGINE)
    settings = settings_from(runtime_of(ENGINE, {**given, "kv_cache_reuse": True})[1])
    assert (settings.kv_cache_tokens, settings.kv_cache_fraction) == (4096, None)
    assert settings.scheduler_policy == "max_utilization"
    assert settings.chunked_context
    assert settings.kv_cache_reuse
    assert read_settings(["kv_cache_fraction=0.5", "adapter=executor"], ENGINE) == {
        "kv_cache_fraction": 0.5,
        "adapter": "executor",
    }
    assert read_settings([], build(kind="reference")) == {}


@pytest.mark.parametrize(
    ("texts", "changes", "said"),
    [
        (["kvcache=1"], {}, "names no setting: give one of kv_cache_tokens"),
        (["kv_cache_tokens=many"], {}, "needs a number of tokens"),
        (["chunked_context=yes"], {}, "needs on or off"),
        (["chunked_context"], {}, "needs on or off"),
        (["kv_cache_tokens=0"], {}, "at least 1"),
        (["kv_cache_tokens=9", "kv_cache_tokens=8"], {}, "given twice"),
        (["kv_cache_tokens=9", "kv_cache_fraction=0.5"], {}, "give one of them"),
        (["scheduler_policy=fifo"], {}, "guaranteed_no_evict"),
        (["adapter=vllm"], {}, "llm_api"),
        (["adapter=executor"], {"kind": "pytorch"}, "only llm_api does"),
        (["kv_cache_tokens=9"], {"kind": "reference"}, "reference engine, which has no such setting"),
        (["chunked_context=on"], {"inflight_off": "paged_kv_cache is off"}, "whole batches"),
        (["kv_cache_fraction=0.5"], {"version": "0.8.0"}, "whole batches"),
        (["kv_cache_tokens=9"], {"kind": "pytorch", "llm_args": {"kv_cache_config": {}}}, "say it there"),
    ],
)
def test_what_an_engine_cannot_be_told_is_refused_in_one_sentence(
    texts: list[str], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(EnginebenchError, match=said) as caught:
        read_settings(texts, build(**changes))
    assert str(caught.value).count(". ") == 0


def test_settings_without_an_engine_of_our_own_are_refused() -> None:
    with pytest.raises(BuildError, match="a server that runs already keeps its own"):
        read_settings(["kv_cache_tokens=9"], ENGINE, [])


def test_who_cannot_reuse_a_kv_cache_says_so() -> None:
    assert reuses_no_kv_cache(ENGINE) is None
    assert reuses_no_kv_cache(build(kind="pytorch", version=None)) is None
    assert "reference engine" in str(reuses_no_kv_cache(build(kind="reference")))
    assert "whole batches" in str(reuses_no_kv_cache(build(layout="builder_config", version=None)))


def test_the_executor_needs_its_ranks_started_whatever_the_version() -> None:
    world = world_of(build(tp=2), {"adapter": "executor"})
    assert world is not None
    assert world.options["adapter"] == "executor"


@pytest.mark.parametrize(
    "changes",
    [{"version": "0.8.0"}, {"version": None, "layout": "builder_config"}, {"inflight_off": "paged_kv_cache is off"}],
)
def test_whole_batches_on_several_ranks_need_these_started(changes: dict[str, Any]) -> None:
    world = world_of(build(tp=2, **changes))
    assert world is not None
    assert world.size == 2


def test_an_llm_api_that_starts_no_ranks_is_refused_on_several() -> None:
    with pytest.raises(BuildError, match=r"not run on several: leave out adapter=llm_api"):
        world_of(build(tp=2, version="0.13.0"), {"adapter": "llm_api"})


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_too_few_gpus_are_refused_before_anything_is_started() -> None:
    check_gpus(build(tp=2), 2)
    check_gpus(build(tp=2), None)
    check_gpus(build(kind="reference"), 0)
    with pytest.raises(BuildError, match="needs 2 GPUs"):
        check_gpus(build(kind="reference", pp=2, config={"build_config": {"device": "cuda"}}), 1)
    with pytest.raises(BuildError, match=r"needs 4 GPUs \(tp 2 × pp 2 × cp 1\), and 2 can be seen here"):
        check_gpus(build(tp=2, pp=2), 2)


def test_an_engine_of_more_ranks_than_gpus_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "host_gpus", lambda: ([{"name": "the only one"}], None))
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BuildError, match=r"needs 2 GPUs .* and 1 can be seen here"):
        serve.serve(build(tp=2), None, 1)


@pytest.mark.parametrize(("visible", "count"), [(None, 4), ("0,2", 2), ("", 0), ("1,-1,2", 1), ("GPU-a, GPU-b", 2)])
def test_the_gpus_that_an_interpreter_sees_are_counted(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int
) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus(ENGINE, ("a", "b", "c", "d")) == count
    assert visible_gpus(ENGINE, None) is None
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    assert visible_gpus(ENGINE, ("a",)) is None
    monkeypatch.delenv("SLURM_JOB_NUM_NODES")
    assert visible_gpus(build(container=("docker", "run", "image")), ("a",)) is None
