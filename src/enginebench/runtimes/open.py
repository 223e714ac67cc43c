"""Opening a runtime by its name. Imports the one that is asked for, and no other."""

import importlib
from collections.abc import Mapping

from enginebench.errors import SessionError
from enginebench.runtimes.base import JsonValue, Session

RUNTIMES: Mapping[str, str] = {
    "null": "enginebench.runtimes.null",
    "openai_http": "enginebench.runtimes.openai_http",
    "reference": "enginebench.runtimes.reference",
    "scripted": "enginebench.runtimes.scripted",
    "tensorrt_llm": "enginebench.runtimes.tensorrt_llm",
    "triton_http": "enginebench.runtimes.triton_http",
}
"""Module of each runtime; it has a function ``open_session(options) -> Session``."""


def open_session(runtime: str, options: Mapping[str, JsonValue]) -> Session:
    """Open ``runtime`` with its ``options``. Raises SessionError for an unknown one, and what the runtime raises."""
    if runtime not in RUNTIMES:
        raise SessionError(f"There is no runtime {runtime!r}: use one of {', '.join(RUNTIMES)}.")
    session: Session = importlib.import_module(RUNTIMES[runtime]).open_session(options)
    return session
