"""Whether servers are replicas of one deployment, of scripts that declare the same or not."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from enginebench.errors import ServerError
from enginebench.server.preflight import Check
from enginebench.server.replicas import check_replicas, require_replicas
from tests.support.scripted_server import ScriptedServer
from tests.support.scripted_triton import INPUTS, ScriptedTriton

OTHER_SEED = {**INPUTS, "ensemble": {**INPUTS["ensemble"], "seed": "INT64"}}
NO_TOP_K = {**INPUTS, "ensemble": {name: kind for name, kind in INPUTS["ensemble"].items() if name != "top_k"}}
ONE_MORE = {**INPUTS, "ensemble": {**INPUTS["ensemble"], "lora": "UINT64"}}


@contextmanager
def servers(**changes: Any) -> Iterator[list[str]]:
    """Three, of which the last is another one."""
    with ExitStack() as stack:
        scripts = (ScriptedTriton(), ScriptedTriton(), ScriptedTriton(**changes))
        yield [stack.enter_context(ScriptedServer(script)).url for script in scripts]


def checked(**changes: Any) -> Check:
    with servers(**changes) as urls:
        found = check_replicas(urls, "ensemble")
        return Check(found.name, found.status, found.detail.replace(urls[0], "FIRST").replace(urls[2], "LAST"))


def test_servers_alike_are_replicas() -> None:
    with servers() as urls:
        require_replicas(urls, "ensemble")
    found = checked()
    assert (found.status, found.detail) == ("verified", "All 3 servers have Triton 2.51.0 and the same configuration.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoupled": False}, "differs in decoupled (True and False)"),
        ({"inputs": OTHER_SEED}, "differs in the input seed (UINT64 [-1, 1] and INT64 [-1, 1])"),
        ({"inputs": NO_TOP_K}, "differs in the input top_k (INT32 [-1, 1] and not there)"),
        ({"inputs": ONE_MORE}, "differs in the input lora (not there and UINT64 [-1, 1])"),
    ],
)
def test_what_a_request_would_notice_is_refused_with_both_urls(changes: dict[str, Any], words: str) -> None:
    with servers(**changes) as urls, pytest.raises(ServerError) as refused:
        require_replicas(urls, "ensemble")
    assert str(refused.value).startswith(f"{urls[0]} and {urls[2]} are no replicas, for their model 'ensemble' {words}")


def test_another_version_or_setting_is_a_failed_check() -> None:
    found = checked(version="2.58.0")
    assert (found.status, found.detail) == ("failed", "the version of Triton is 2.58.0 at LAST and 2.51.0 at FIRST.")
    found = checked(parameters={"batch_scheduler_policy": "max_utilization", "engine_dir": "/engines/1"})
    assert found.status == "failed"
    name = "ensemble.parameters.batch_scheduler_policy.string_value"
    assert found.detail.startswith(f"{name} is max_utilization at LAST and not there at FIRST; ")
    assert found.detail.endswith("; and 1 more.")


def test_the_same_engine_may_lie_elsewhere_and_on_another_gpu() -> None:
    with ExitStack() as stack:
        scripts = [ScriptedTriton(parameters={"engine_dir": f"/engines/{n}", "gpu_device_ids": f"{n}"}) for n in (0, 1)]
        urls = [stack.enter_context(ScriptedServer(script)).url for script in scripts]
        found = check_replicas(urls, "tensorrt_llm")
    assert found.status == "unverified"
    assert found.detail == (
        f"tensorrt_llm.parameters.engine_dir.string_value is /engines/1 at {urls[1]} and /engines/0 at {urls[0]}."
    )
