"""Which API generation drives a build on the installed TensorRT-LLM, and why.

Decided by what the installed version has. A build that cannot work with it is refused before anything is loaded.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from enginebench.errors import SessionError
from enginebench.runtimes.mailbox import Mailbox
from enginebench.runtimes.tensorrt_llm.configs import BINDINGS, LLMAPI
from enginebench.runtimes.tensorrt_llm.executor import ExecutorApi
from enginebench.runtimes.tensorrt_llm.library import accepted, find, load, version
from enginebench.runtimes.tensorrt_llm.llm_api import LlmApi
from enginebench.runtimes.tensorrt_llm.model_runner import ModelRunnerApi
from enginebench.runtimes.tensorrt_llm.model_runner_cpp import ModelRunnerCppApi
from enginebench.runtimes.tensorrt_llm.session import Engine, EngineSession
from enginebench.runtimes.tensorrt_llm.settings import AdapterName, Settings, settings_from

ENGINES: Mapping[AdapterName, Callable[[Settings, Mailbox], Engine]] = {
    "llm_api": LlmApi,
    "executor": ExecutorApi,
    "model_runner": ModelRunnerApi,
    "model_runner_cpp": ModelRunnerCppApi,
}
WORLD_SIZE = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


@dataclass(frozen=True, slots=True)
class Choice:
    """An adapter and the reason for it; no adapter: the reason why nothing fits."""

    adapter: AdapterName | None
    why: str


def open_session(options: Mapping[str, Any]) -> EngineSession:
    """Open an engine or a checkpoint with the installed TensorRT-LLM.

    ``options``: the fields of ``Settings``. Raises SessionError when they, the installed version and the build do not
    go together, or when the engine cannot be loaded.
    """
    settings = settings_from(options)
    load()
    _check_version(settings)
    choice = choose(settings)
    if choice.adapter is None:
        raise SessionError(f"{settings.directory} cannot be run under {sys.executable}: {choice.why}.")
    _check_ranks(settings, choice.adapter)
    make = ENGINES[choice.adapter]
    facts = {
        "runtime": "tensorrt_llm",
        "tensorrt_llm": version(),
        "python": sys.executable,
        "adapter_why": choice.why,
        "settings": settings.as_json(),
    }
    return EngineSession(lambda mailbox: make(settings, mailbox), facts)


def choose(settings: Settings) -> Choice:
    """Choose the adapter for a build; imports parts of tensorrt_llm, which must be installed."""
    if settings.adapter is not None:
        return Choice(settings.adapter, "asked for")
    if settings.kind == "pytorch":
        return _choose_pytorch()
    return _choose_for_old_engines() if settings.layout == "builder_config" else _choose_for_engines()


def mpi_ranks() -> int:
    """How many ranks this process was started with; 1 without MPI."""
    return int(next((os.environ[name] for name in WORLD_SIZE if name in os.environ), 1))


def is_pytorch(llm_class: Any) -> bool:
    """Whether an LLM class runs the PyTorch backend, by what it derives from."""
    return any(base.__name__ == "_TorchLLM" for base in llm_class.__mro__)


def _choose_for_engines() -> Choice:
    if mpi_ranks() == 1 and (why := _engine_llm()):
        return Choice("llm_api", why)
    if find(f"{BINDINGS}.Executor") is not None:
        return Choice("executor", "it has the Executor bindings" + _because_of_ranks())
    if find("tensorrt_llm.runtime.ModelRunner") is not None:
        return Choice("model_runner", "it has ModelRunner and nothing newer")
    return Choice(None, f"tensorrt_llm {version()} has no engine backend any more (1.2.1 and 1.3.0rc15 have)")


def _choose_pytorch() -> Choice:
    llm = find("tensorrt_llm.LLM")
    if llm is not None and is_pytorch(llm):
        return Choice("llm_api", "its LLM is the PyTorch backend")
    return Choice(None, f"the LLM of tensorrt_llm {version()} is not the PyTorch backend (1.0 and later are)")


def _choose_for_old_engines() -> Choice:
    if find("tensorrt_llm.runtime.ModelRunner") is None:
        return Choice(None, f"tensorrt_llm {version()} loads no engines of before 0.8 (0.6 to 0.16 do)")
    return Choice("model_runner", "only ModelRunner loads engines of before 0.8")


def _engine_llm() -> str:
    """Why the LLM API can run an engine; empty when it cannot."""
    if find("tensorrt_llm._tensorrt_engine.LLM") is not None:
        return "it has the engine backend's LLM"
    llm, sampling = find("tensorrt_llm.LLM"), find("tensorrt_llm.SamplingParams", f"{LLMAPI}.SamplingParams")
    if llm is None or sampling is None or is_pytorch(llm):
        return ""
    return "its LLM runs engines, with answers of exact length" if "ignore_eos" in accepted(sampling) else ""


def _because_of_ranks() -> str:
    return f", and was started with {mpi_ranks()} ranks" if mpi_ranks() > 1 else ""


def _check_version(settings: Settings) -> None:
    installed = version()
    if settings.kind == "pytorch" or settings.version is None or installed is None:
        return
    if _minor(settings.version) != _minor(installed):
        raise SessionError(
            f"{settings.directory} was built by TensorRT-LLM {settings.version}, and {sys.executable} has {installed}: "
            "name an interpreter of the build's version (--build NAME=DIR,python=PATH), or build it again."
        )


def _minor(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", text)[:2])


def _check_ranks(settings: Settings, adapter: AdapterName) -> None:
    ranks, needed = mpi_ranks(), 1 if adapter == "llm_api" else settings.world_size
    if ranks != needed:
        raise SessionError(
            f"{settings.directory} needs {needed} ranks (tp {settings.tp} × pp {settings.pp} × cp {settings.cp}) "
            f"with the {adapter} adapter, and {ranks} were started."
        )
