"""TensorRT-LLM's ModelRunnerCpp of 0.7 and 0.8: static batches on the C++ session, whose answers come in one piece.

It neither streams nor tells when the first token was there: measure that with ``ModelRunner``, or with answers of one
token. From 0.9 on there is the Executor, and the class of this name is only a wrapper around it (from 0.10 on).
"""

from typing import Any

from enginebench.errors import SessionError
from enginebench.runtimes.tensorrt_llm.configs import BINDINGS
from enginebench.runtimes.tensorrt_llm.library import find
from enginebench.runtimes.tensorrt_llm.model_runner import ModelRunnerApi


class ModelRunnerCppApi(ModelRunnerApi):
    """``ModelRunnerApi`` on the other class."""

    name = "model_runner_cpp"
    runner = "ModelRunnerCpp"

    def _loaded(self) -> Any:
        if find(f"{BINDINGS}.Executor") is not None:
            raise SessionError("ModelRunnerCpp is for TensorRT-LLM 0.7 and 0.8: use adapter=executor, which it wraps.")
        return super()._loaded()

    def _can_stream(self) -> bool:
        return False  # the parameter is there, and refused

    def _can_profile(self) -> bool:
        return False
