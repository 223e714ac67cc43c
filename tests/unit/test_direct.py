"""How a build is run in process: runtime, options, ranks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import Build, Limits
from enginebench.errors import BuildError
from enginebench.run.direct import runtime_of, world_of
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


def test_an_old_engine_on_several_ranks_is_refused() -> None:
    with pytest.raises(BuildError, match="needs 2 ranks"):
        world_of(build(tp=2, version=None, layout="builder_config"))
