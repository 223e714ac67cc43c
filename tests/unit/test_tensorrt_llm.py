"""Which adapter drives a build, what it tells the library, and what it makes of the library's trouble."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.errors import SessionError
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.tensorrt_llm import open_session
from enginebench.runtimes.tensorrt_llm.session import EngineSession
from tests.contract.suite import collect
from tests.support.trtllm.compute import BREAKS
from tests.support.trtllm.install import installed
from tests.support.trtllm.torch import CONTEXT_BYTES

ROOT = Path(__file__).parents[2]


@contextmanager
def opened(version: str, directory: Path, **options: Any) -> Iterator[EngineSession]:
    with installed(version, ROOT):
        session = open_session({"directory": str(directory), **options})
        yield session
        session.close()


def ask(index: int, *prompt_ids: int, tokens: int = 8) -> Request:
    return Request(index, "", prompt_ids, tokens, streaming=True, sampling=Sampling())


def refused(installed_version: str, directory: Path, **options: Any) -> str:
    with installed(installed_version, ROOT), pytest.raises(SessionError) as caught:
        open_session({"directory": str(directory), **options})
    return str(caught.value)


@pytest.mark.parametrize(
    ("version", "kind", "adapter"),
    [
        ("0.7.1", "tensorrt_llm", "model_runner"),
        ("0.8.0", "tensorrt_llm", "model_runner"),
        ("0.9.0", "tensorrt_llm", "executor"),
        ("0.13.0", "tensorrt_llm", "executor"),
        ("0.15.0", "tensorrt_llm", "llm_api"),
        ("0.19.0", "tensorrt_llm", "llm_api"),
        ("1.3.0rc20", "tensorrt_llm", "llm_api"),
        ("1.0.0rc4", "pytorch", "llm_api"),
    ],
)
def test_the_adapter_follows_from_what_the_version_has(tmp_path: Path, version: str, kind: str, adapter: str) -> None:
    with opened(version, tmp_path, kind=kind) as session:
        facts = session.facts()
        assert facts["adapter"] == adapter
        assert facts["adapter_why"]
        assert facts["tensorrt_llm"] == version


def test_an_engine_runs_on_the_engine_backend_and_a_checkpoint_on_pytorch(tmp_path: Path) -> None:
    with opened("1.2.0rc2", tmp_path) as session:
        engine = session.facts()
    with opened("1.2.0rc2", tmp_path, kind="pytorch", max_seq_len=2048) as session:
        checkpoint = session.facts()
    assert "max_seq_len" not in told(engine)
    assert told(checkpoint)["max_seq_len"] == 2048


def told(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(facts["told"])


def test_what_a_version_cannot_be_told_is_recorded(tmp_path: Path) -> None:
    with opened("0.15.0", tmp_path, max_batch_size=8) as session:
        assert session.facts()["not_settable"] == ["enable_chunked_prefill", "max_batch_size"]
    with opened("0.16.0", tmp_path, max_batch_size=8) as session:
        assert session.facts()["not_settable"] == []


def test_settings_in_force_are_recorded(tmp_path: Path) -> None:
    with opened("0.16.0", tmp_path, kv_cache_tokens=4096, scheduler_policy="max_utilization") as session:
        settings = dict(session.facts()["settings"])  # type: ignore[arg-type]
    assert settings["kv_cache_tokens"] == 4096
    assert settings["kv_cache_reuse"] is False
    assert settings["scheduler_policy"] == "max_utilization"
    assert settings["chunked_context"] is False


def test_pytorch_before_its_time_is_refused(tmp_path: Path) -> None:
    assert "not the PyTorch backend" in refused("0.19.0", tmp_path, kind="pytorch")


def test_a_version_without_an_engine_backend_is_refused_with_those_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed("1.3.0rc20", ROOT):
        for name in ("tensorrt_llm._tensorrt_engine", "tensorrt_llm.bindings", "tensorrt_llm.bindings.executor"):
            monkeypatch.delitem(sys.modules, name)
        with pytest.raises(SessionError, match=r"no engine backend any more \(1\.2\.1"):
            open_session({"directory": str(tmp_path)})
        monkeypatch.undo()


def test_an_engine_of_another_version_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    said = refused("0.16.0", tmp_path, version="0.13.0")
    assert "built by TensorRT-LLM 0.13.0" in said
    assert "python=" in said


def test_a_wrong_number_of_ranks_is_refused(tmp_path: Path) -> None:
    assert "needs 4 ranks (tp 2 × pp 2 × cp 1)" in refused("0.13.0", tmp_path, tp=2, pp=2)


def test_under_mpirun_the_executor_drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with opened("1.2.0rc2", tmp_path, tp=2) as session:
        assert session.facts()["adapter"] == "executor"


@pytest.mark.parametrize("version", ["0.8.0", "0.13.0", "0.16.0", "1.2.0rc2"])
def test_a_directory_that_does_not_load_is_named_with_the_reason(tmp_path: Path, version: str) -> None:
    said = refused(version, tmp_path / "missing")
    assert "missing" in said
    assert "RuntimeError" in said


def test_a_missing_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="has no module tensorrt_llm"):
        open_session({"directory": str(tmp_path)})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kvcache": 1}, "no option 'kvcache'"),
        ({"directory": None}, "'directory'"),
        ({"kv_cache_tokens": 1, "kv_cache_fraction": 0.5}, "give one of them"),
        ({"kv_cache_fraction": 2.0}, "between 0 and 1"),
        ({"scheduler_policy": "fifo"}, "guaranteed_no_evict"),
        ({"adapter": "vllm"}, "llm_api"),
        ({"kind": "reference"}, "'reference'"),
        ({"tp": 0}, "at least 1"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SessionError, match=said):
        open_session({"directory": ".", **options})


@pytest.mark.parametrize(
    ("version", "adapter"), [("0.16.0", "llm_api"), ("0.13.0", "executor"), ("0.8.0", "model_runner")]
)
def test_an_engine_that_breaks_fails_the_request_in_one_line(tmp_path: Path, version: str, adapter: str) -> None:
    with opened(version, tmp_path, adapter=adapter) as session:
        session.submit([ask(0, BREAKS, 14)])
        *_, last = collect(session, 1)
        assert "CUDA error: an illegal memory access" in str(last.error)
        assert "prompt 2 + output 8 tokens" in str(last.error)


def test_a_refusal_leaves_the_other_requests_of_the_release_alone(tmp_path: Path) -> None:
    with opened("0.13.0", tmp_path) as session:
        session.submit([ask(0, 1, tokens=99999), ask(1, 1)])
        ended = {each.request_index: each.error for each in collect(session, 2) if each.ended}
        assert "99999" in str(ended[0])
        assert ended[1] is None


@pytest.mark.parametrize(
    ("version", "adapter", "has_timings"),
    [
        ("0.15.0", "llm_api", False),
        ("0.16.0", "llm_api", False),  # the engine has them, its results do not show them
        ("0.16.0", "executor", True),
        ("1.2.0rc2", "llm_api", True),
        ("1.2.0rc2", "executor", True),
    ],
)
def test_the_engines_own_stamps_are_kept_beside_ours(
    tmp_path: Path, version: str, adapter: str, has_timings: bool
) -> None:
    with opened(version, tmp_path, adapter=adapter) as session:
        session.submit([ask(0, 1, 2), ask(1, 3)])
        collect(session, 2)
        session.drain(10)
        seen = session.observations()
        again = session.observations()
    timings: list[dict[str, float]] = list(seen["requests"])  # type: ignore[arg-type]
    assert sorted(each["request"] for each in timings) == ([0, 1] if has_timings else [])
    for each in timings:
        assert 0 < each["first_scheduled_s"] < each["first_token_s"] <= each["last_token_s"]
    assert seen["iterations"]
    assert not again["requests"]


def test_iteration_statistics_are_left_alone_when_not_wanted(tmp_path: Path) -> None:
    with opened("0.16.0", tmp_path, iteration_statistics=False, perf_metrics=False) as session:
        assert session.observations() == {"requests": [], "iterations": []}


def test_a_version_that_cannot_abort_says_so_and_computes_to_the_end(tmp_path: Path) -> None:
    with opened("0.16.0", tmp_path) as session:
        assert session.facts()["cancels"] is False
        session.submit([ask(0, 1, tokens=40)])
        session.cancel(0)
        session.drain(30)
        assert list(session.poll(0)) == []


def test_model_runner_0_6_does_not_stream(tmp_path: Path) -> None:
    with opened("0.6.1", tmp_path) as session:
        session.submit([ask(0, 1)])
        (arrival,) = collect(session, 1)
        assert "no streaming" in str(arrival.error)
        session.submit([Request(0, "", (1, 2), 8, streaming=False, sampling=Sampling())])
        (arrival,) = collect(session, 1)
        assert len(arrival.payload) == 8


def test_a_closed_session_says_so(tmp_path: Path) -> None:
    with opened("0.16.0", tmp_path) as session:
        session.close()
        with pytest.raises(SessionError, match="closed"):
            session.submit([ask(0, 1)])


def test_a_checkpoints_own_arguments_reach_the_llm(tmp_path: Path) -> None:
    given = {"kv_cache_config": {"max_tokens": 4096}, "cuda_graph_config": {}, "max_num_tokens": 512}
    with opened("1.2.0rc2", tmp_path, kind="pytorch", llm_args=given) as session:
        assert {"cuda_graph_config", "max_num_tokens"} <= set(told(session.facts()))
    assert "'graphs' is unknown" in refused("1.2.0rc2", tmp_path, kind="pytorch", llm_args={"graphs": 1})


def test_only_model_runner_loads_engines_of_before_0_8(tmp_path: Path) -> None:
    with opened("0.16.0", tmp_path, layout="builder_config") as session:
        assert session.facts()["adapter"] == "model_runner"
    assert "before 0.8" in refused("1.2.0rc2", tmp_path, layout="builder_config")


def test_who_loads_into_this_process_tells_what_its_context_takes_and_nobody_else(tmp_path: Path) -> None:
    """Asked before the engine is there; where the library starts processes of its own, this one gets no context."""
    for version, adapter in (("0.16.0", "model_runner"), ("0.8.0", "model_runner_cpp")):
        with opened(version, tmp_path, adapter=adapter) as session:
            assert session.facts()["used_with_context_bytes"] == [CONTEXT_BYTES]
    for version, adapter in (("0.16.0", "llm_api"), ("0.13.0", "executor")):
        with opened(version, tmp_path, adapter=adapter) as session:
            assert "used_with_context_bytes" not in session.facts()


def test_model_runner_is_run_on_as_many_ranks_as_the_engine_has(tmp_path: Path) -> None:
    assert "needs 2 ranks" in refused("0.8.0", tmp_path, tp=2)


@pytest.mark.parametrize("version", ["0.7.1", "0.8.0", "0.11.0", "0.16.0"])
def test_a_batch_in_one_piece_tells_when_its_first_token_was_there(tmp_path: Path, version: str) -> None:
    with opened(version, tmp_path, adapter="model_runner") as session:
        assert session.facts()["perf_metrics"] is True
        session.submit([replace(ask(index, 1, index), streaming=False) for index in range(2)])
        arrivals = collect(session, 2)
        timings: list[dict[str, float]] = list(session.observations()["requests"])  # type: ignore[arg-type]
        assert not session.observations()["requests"]
        session.submit([ask(0, 1)])  # streamed: our own stamps are there
        collect(session, 1)
        assert not session.observations()["requests"]
    assert [len(each.payload) for each in arrivals] == [8, 8]
    assert [each["request"] for each in timings] == [0, 1]
    assert all(0 < each["first_token_s"] < each["last_token_s"] for each in timings)


def test_a_first_token_is_not_asked_for_where_it_cannot_be_told(tmp_path: Path) -> None:
    for version, adapter in (("0.6.1", "model_runner"), ("0.8.0", "model_runner_cpp")):
        with opened(version, tmp_path, adapter=adapter) as session:
            assert session.facts()["perf_metrics"] is False
            session.submit([replace(ask(0, 1), streaming=False)])
            collect(session, 1)
            assert not session.observations()["requests"]


def test_model_runner_cpp_is_left_to_the_executor_where_there_is_one(tmp_path: Path) -> None:
    assert "adapter=executor" in refused("0.9.0", tmp_path, adapter="model_runner_cpp")
    assert "has no ModelRunnerCpp" in refused("0.6.1", tmp_path, adapter="model_runner_cpp")


@pytest.mark.parametrize("asked", [{"kv_cache_reuse": True}, {"kv_cache_tokens": 9}, {"chunked_context": True}])
def test_what_whole_batches_cannot_be_told_is_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    assert f"cannot be told {next(iter(asked))}" in refused("0.8.0", tmp_path, **asked)


def test_chunked_context_that_a_version_cannot_be_told_is_refused(tmp_path: Path) -> None:
    assert "cannot be told chunked_context" in refused("0.15.0", tmp_path, chunked_context=True)
