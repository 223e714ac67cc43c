"""Classes that have exactly what a version has: anything else that is called, passed, read or set is a violation.

A violation raises what Python would raise, and is kept as well, so that code that swallows the error still fails its
test. Looking a name up with ``dir()`` is not one: that is how features are detected. Calls must use keywords.
"""

import ast
import enum
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

VIOLATIONS: list[str] = []
VIOLATIONS_FILE = "STANDIN_VIOLATIONS"  # for processes whose memory the test cannot see


def violation(text: str) -> str:
    """Keep ``text`` for the test."""
    VIOLATIONS.append(text)
    if path := os.environ.get(VIOLATIONS_FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    return text


class Missing:
    """Refuses what is absent, on an instance."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            violation(f"{type(self).__name__} has no {name!r}")
        raise AttributeError(name)


class StrictMeta(type):
    """Refuses what is absent, on a class."""

    def __getattr__(cls, name: str) -> Any:
        if not name.startswith("__"):
            violation(f"class {cls.__name__} has no {name!r}")
        raise AttributeError(name)


class Strict(Missing, metaclass=StrictMeta):
    """Base of every class of the stand-in; ``_spec`` is its entry in the signatures."""

    _spec: Mapping[str, Any] = {}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        values = bind(type(self).__name__, self._spec["parameters"], args, kwargs, self._spec.get("keywords"))
        self._fill(values)
        self._ready()

    def _ready(self) -> None:
        """What a behaviour does once it is constructed."""

    @classmethod
    def _made(cls, **values: Any) -> Any:
        """An instance that the library itself makes."""
        made = cls.__new__(cls)
        made._fill(values)
        return made

    def _fill(self, values: Mapping[str, Any]) -> None:
        for name in self._spec["attributes"]:
            self.__dict__.setdefault("=" + name, None)
        for name, value in values.items():
            self.__dict__["=" + name] = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            self.__dict__[name] = value
        elif name in self._spec["attributes"]:
            self.__dict__["=" + name] = value
        else:
            raise AttributeError(violation(f"{type(self).__name__} takes no {name!r}"))


def bind(
    where: str,
    parameters: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    keywords: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Hold a call against ``parameters``; return every value by its name, defaults included."""
    if args:
        raise TypeError(violation(f"{where} was called with positional arguments"))
    known = {text.partition("=")[0]: text.partition("=")[2] for text in parameters if not text.startswith("*")}
    open_ended = any(text.startswith("**") for text in parameters)
    allowed = set(known) | (set(keywords or kwargs) if open_ended else set())
    for name in kwargs:
        if name not in allowed:
            raise TypeError(violation(f"{where} got an unexpected keyword argument {name!r}"))
    for name, default in known.items():
        if not default and name not in kwargs:
            raise TypeError(violation(f"{where} misses its argument {name!r}"))
    return {**{name: _value(default) for name, default in known.items()}, **kwargs}


def _value(default: str) -> Any:
    try:
        return ast.literal_eval(default)
    except (ValueError, SyntaxError):  # an enum's member or a call
        return None


def make_class(name: str, spec: Mapping[str, Any], bases: tuple[type, ...]) -> Any:
    """Make the class that ``spec`` describes; ``bases`` hold behaviour and end with ``Strict``."""
    if spec["kind"] == "enum":
        return enum.Enum(name, {value: value for value in spec["values"]})
    body: dict[str, Any] = {"_spec": spec, "__doc__": spec["source"]}
    for attribute in spec["attributes"]:
        body.setdefault(attribute, _attribute(attribute, bases))
    for method, parameters in spec["methods"].items():
        body[method] = _method(f"{name}.{method}", method, parameters)
    for method, parameters in spec.get("static", {}).items():
        body[method] = classmethod(_method(f"{name}.{method}", method, parameters))
    if spec["kind"] == "python":
        body |= _fields(name, spec)
    return StrictMeta(name, bases, body)


def _fields(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the fields of a pydantic model or of a dataclass."""
    pydantic = name in ("TrtLlmArgs", "TorchLlmArgs", "KvCacheConfig", "SchedulerConfig")
    if not pydantic and name not in ("LlmArgs", "SamplingParams", "SamplingConfig", "CompletionOutput"):
        return {}
    return {"model_fields" if pydantic else "__dataclass_fields__": dict.fromkeys(spec["attributes"])}


def _attribute(name: str, bases: tuple[type, ...]) -> property:
    computed = next((vars(base)[f"_get_{name}"] for base in bases if f"_get_{name}" in vars(base)), None)
    return property(computed or (lambda self: self.__dict__["=" + name]))


def _method(where: str, name: str, parameters: Sequence[str]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, f"_do_{name.strip('_')}")(**bind(where, parameters, args, kwargs))

    call.__name__ = name
    call.__signature__ = _signature(tuple(parameters))  # type: ignore[attr-defined]
    return call


@cache
def _signature(parameters: tuple[str, ...]) -> inspect.Signature:
    listed = ["self", *parameters]
    plain = ", ".join(text.partition("=")[0] + ("=None" if "=" in text else "") for text in listed)
    scope: dict[str, Any] = {}
    exec(f"def shape({plain}): ...", scope)
    return inspect.signature(scope["shape"])
