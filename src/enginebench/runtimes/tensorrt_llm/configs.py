"""The configuration objects that LLM API and Executor share: KV pool and scheduler.

Each is looked for in ``llmapi`` first (pydantic, from 2025 on) and in the bindings otherwise.
"""

from collections.abc import Mapping
from typing import Any

from enginebench.errors import SessionError
from enginebench.runtimes.tensorrt_llm.library import accepted, find, supported
from enginebench.runtimes.tensorrt_llm.settings import Settings

LLMAPI = "tensorrt_llm.llmapi"
BINDINGS = "tensorrt_llm.bindings.executor"


def config_class(name: str, *modules: str) -> Any:
    """The class ``name`` of the first of ``modules`` that has it. Raises SessionError when none does."""
    found = find(*(f"{module}.{name}" for module in modules))
    if found is None:
        raise SessionError(
            f"The installed tensorrt_llm has no {name} in {' or '.join(modules)}: run enginebench doctor."
        )
    return found


def kv_cache_config(settings: Settings, *modules: str) -> Any:
    """Size of the KV pool and reuse of blocks, both said: defaults differ between versions."""
    kind = config_class("KvCacheConfig", *modules)
    size = {"max_tokens": settings.kv_cache_tokens, "free_gpu_memory_fraction": settings.kv_cache_fraction}
    wanted = {
        **settings.llm_args.get("kv_cache_config", {}),
        **{name: value for name, value in size.items() if value is not None},
        "enable_block_reuse": settings.kv_cache_reuse,
    }
    return kind(**supported(accepted(kind), wanted))


def require_told(settings: Settings, told: Mapping[str, Any], name: str) -> None:
    """Raise SessionError when chunked context was asked for, and ``name``, which asks for it, is not in ``told``."""
    if settings.chunked_context and name not in told:
        raise SessionError("The installed tensorrt_llm cannot be told chunked_context: leave it off.")


def scheduler_config(settings: Settings, *modules: str) -> Any:
    """The policy that decides which requests a step takes; named ``policy`` before 0.10."""
    kind = config_class("SchedulerConfig", *modules)
    policies = find(
        *(f"{module}.{name}" for module in modules for name in ("CapacitySchedulerPolicy", "SchedulerPolicy"))
    )
    policy = getattr(policies, settings.scheduler_policy.upper())
    return kind(**supported(accepted(kind), {"capacity_scheduler_policy": policy, "policy": policy}))
