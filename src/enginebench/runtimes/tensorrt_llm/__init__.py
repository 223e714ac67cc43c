"""TensorRT-LLM in process: one session over every API generation, chosen by what the installed version has.

``adapter`` opens a session; ``llm_api``, ``executor`` and ``model_runner`` each drive one generation. Nothing here was
ever run against TensorRT-LLM itself: signatures.json says against which sources it was written, and tests hold it to
them with a stand-in. Standard library only, beside what the engine's own interpreter has.
"""

from enginebench.runtimes.tensorrt_llm.adapter import open_session

__all__ = ["open_session"]
