"""Looking into the installed tensorrt_llm: what it has, and which keywords its callables take.

The one module that imports the library, by name and when it is asked to. Asking never touches an attribute that may be
absent, so that a stand-in can treat such a touch as the mistake that it would be anywhere else.
"""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from enginebench.errors import SessionError

FIELDS = ("model_fields", "__pydantic_fields__", "__dataclass_fields__")
"""Where a class keeps its fields, if it is a pydantic model or a dataclass."""


def load() -> ModuleType:
    """Import tensorrt_llm. Raises SessionError when it is missing, or breaks while it is imported."""
    try:
        return importlib.import_module("tensorrt_llm")
    except ModuleNotFoundError as error:
        raise SessionError(
            f"{sys.executable} has no module {error.name}: name the interpreter that has TensorRT-LLM "
            "(--build NAME=DIR,python=PATH)."
        ) from error
    except Exception as error:  # a driver, a CUDA library or an extension that does not fit
        raise SessionError(
            f"tensorrt_llm cannot be imported under {sys.executable} ({one_line(error)}): "
            "run `enginebench doctor` for what the machine lacks."
        ) from error


def find(*paths: str) -> Any:
    """Return the first of ``paths`` (dotted: module, then name) that there is, or None."""
    for path in paths:
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        if has(module, name):
            return getattr(module, name)
    return None


def version() -> str | None:
    """The version of the installed library, as it calls itself."""
    found = find("tensorrt_llm.__version__", "tensorrt_llm.version.__version__")
    return None if found is None else str(found)


def has(thing: object, name: str) -> bool:
    """Whether ``thing`` has ``name``, without touching it."""
    return name in dir(thing)


def accepted(target: type) -> frozenset[str]:
    """The keywords that the class ``target`` takes.

    From the fields of a pydantic model or a dataclass; a class of the C++ bindings has none, nor a signature, but
    properties of the same names.
    """
    for fields in FIELDS:
        if has(target, fields):
            return frozenset(getattr(target, fields))
    return frozenset(name for name in dir(target) if not name.startswith("_"))


def named(target: Callable[..., Any]) -> frozenset[str]:
    """The parameters that a Python function names; more may be hidden behind its ``**kwargs``."""
    return frozenset(inspect.signature(target).parameters)


def supported(known: frozenset[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``wanted`` that is among ``known`` and has a value."""
    return {name: value for name, value in wanted.items() if name in known and value is not None}


def one_line(error: BaseException) -> str:
    """The type and the text of a foreign error, on one line of bearable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}" if text else type(error).__name__
