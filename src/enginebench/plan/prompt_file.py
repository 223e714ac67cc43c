"""Files of prompts: JSON lines, also as trtllm-bench, AIPerf and Mooncake have them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.errors import ScenarioError
from enginebench.plan.keys import MOST
from enginebench.plan.messages import shown
from enginebench.plan.yaml_file import read_utf8

TEXTS = ("prompt", "text", "text_input")
IDS = ("input_ids", "logits")  # the latter in trtllm-bench's first datasets
INPUT_LENGTH = "input_length"
OUTPUT_LENGTHS = ("output_tokens", "output_length")
"""The keys of a line, each with the names that it has elsewhere. The first that is there counts."""

FORM = 'write "a text", {"prompt": "a text"}, {"input_ids": [5, 7]} or {"input_length": 512}'


Given: TypeAlias = "str | tuple[int, ...] | int"
"""A prompt as it was given: a text, token ids, or how many random tokens."""


@dataclass(frozen=True, slots=True)
class Line:
    """One prompt, and what is said beside it."""

    prompt: Given
    output_tokens: int | None = None  # None: it does not say how long its answer is
    source: str = ""  # where it is written, e.g. ``questions.jsonl:3``; empty where that needs no words


def read_prompts(path: Path) -> tuple[Line, ...]:
    """The prompts of a JSONL file, in order; blank lines are skipped. Raises ScenarioError with file and line."""
    rows = enumerate(read_utf8(path).split("\n"), start=1)
    lines = tuple(_line(path, number, row) for number, row in rows if row.strip())
    if not lines:
        raise ScenarioError(f"{path} holds no prompts; write one JSON text a line")
    return lines


def _line(path: Path, number: int, row: str) -> Line:
    try:
        value = json.loads(row)
    except (ValueError, RecursionError):
        raise ScenarioError(f"{path}:{number} is not JSON; {FORM}") from None
    keys = value if isinstance(value, dict) else {"prompt": value}
    try:
        return Line(_prompt(keys), _length(keys, OUTPUT_LENGTHS), f"{path.name}:{number}")
    except ValueError as error:
        raise ScenarioError(f"{path}:{number} {error}") from None


def _prompt(keys: Mapping[str, Any]) -> Given:
    text = _first(keys, TEXTS)
    if isinstance(text, str) and text and _is_unicode(text):
        return text
    ids = _first(keys, IDS)
    if text is None and isinstance(ids, list) and ids and all(type(each) is int and each >= 0 for each in ids):
        return tuple(ids)
    length = _length(keys, (INPUT_LENGTH,))
    if text is None and ids is None and length is not None:
        return length
    raise ValueError(f"holds no prompt; {FORM}")


def _length(keys: Mapping[str, Any], names: Sequence[str]) -> int | None:
    length = _first(keys, names)
    if length is None or (type(length) is int and 0 < length <= MOST):
        return length
    raise ValueError(
        f"has {shown(length)} for a length; write {' or '.join(names)} as a whole number from 1 to {MOST:,}"
    )


def _first(keys: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((keys[name] for name in names if keys.get(name) is not None), None)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
