"""The signatures that the adapters were written against, and how an installed tensorrt_llm differs from them.

Facts per version, read from public sources (``signatures.json``); the versions in between were not read.
"""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.runtimes.tensorrt_llm.library import FIELDS, accepted, find, has

FILE = Path(__file__).with_name("signatures.json")

Described: TypeAlias = Mapping[str, Any]
"""``commit``, ``read``, ``names`` (dotted path → class) and ``classes``."""


def versions() -> Mapping[str, Described]:
    """What is known, by version, oldest first."""
    known: Mapping[str, Described] = json.loads(FILE.read_text(encoding="utf-8"))["versions"]
    return known


def nearest(version: str, known: Mapping[str, Described]) -> str:
    """The newest known version that is not newer than ``version``; the oldest when all are."""
    return max((each for each in known if release(each) <= release(version)), key=release, default=next(iter(known)))


def release(version: str) -> tuple[int, ...]:
    """For ordering: the three numbers, then that of a release candidate (a final release comes after all of these)."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"rc|\.dev|\.post", version)[0])[:3]]
    candidate = re.search(r"rc(\d+)", version)
    early = ".dev" in version
    last = int(candidate.group(1)) if candidate else -1 if early else 1_000_000
    return (*numbers, *[0] * (3 - len(numbers)), last)


def differences(expected: Described) -> list[str]:
    """What the installed library lacks of ``expected`` and what it has beyond it, one sentence each."""
    return [
        sentence for path, key in expected["names"].items() for sentence in _of_name(path, expected["classes"][key])
    ]


def _of_name(path: str, spec: Described) -> Iterator[str]:
    found = find(path)
    if found is None:
        yield f"{path} is missing"
    elif spec["kind"] == "enum":
        yield from (f"{path}.{value} is missing" for value in spec["values"] if not has(found, value))
    else:
        yield from _of_fields(path, spec, found)
        for group in ("methods", "static"):
            for method, parameters in spec.get(group, {}).items():
                yield from _of_method(path, found, method, _names(parameters))


def _of_fields(path: str, spec: Described, found: Any) -> Iterator[str]:
    then = _names(spec["parameters"]) | frozenset(spec["attributes"])
    has_fields = any(has(found, each) for each in FIELDS)
    if has_fields:
        now = accepted(found)
        yield from _compared(path, now | {name for name in then if has(found, name)}, then)
    elif spec["kind"] == "bound":
        yield from (f"{path} lacks {name}" for name in spec["attributes"] if not has(found, name))


def _of_method(path: str, found: Any, name: str, then: frozenset[str]) -> Iterator[str]:
    if not has(found, name):
        yield f"{path}.{name} is missing"
        return
    try:
        now = frozenset(inspect.signature(getattr(found, name)).parameters) - {"self", "cls"}
    except (TypeError, ValueError):  # of the C++ bindings: they do not say
        return
    yield from _compared(f"{path}.{name}", now - {"args", "kwargs"}, then)


def _compared(path: str, now: frozenset[str], then: frozenset[str]) -> Iterator[str]:
    yield from (f"{path} does not take {name}" for name in sorted(then - now))
    yield from (f"{path} takes {name}, which is new" for name in sorted(now - then) if not name.startswith("_"))


def _names(parameters: list[str]) -> frozenset[str]:
    return frozenset(text.partition("=")[0] for text in parameters if not text.startswith("*"))
