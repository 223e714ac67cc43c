"""Files of prompts: JSON lines, each a text or an object with the key ``prompt``."""

import json
from pathlib import Path

from enginebench.errors import ScenarioError
from enginebench.plan.yaml_file import read_utf8


def read_prompts(path: Path) -> tuple[str, ...]:
    """The prompts of a JSONL file, in order; blank lines are skipped. Raises ScenarioError with file and line."""
    lines = enumerate(read_utf8(path).split("\n"), start=1)
    prompts = tuple(_prompt(path, number, line) for number, line in lines if line.strip())
    if not prompts:
        raise ScenarioError(f"{path} holds no prompts; write one JSON text a line")
    return prompts


def _prompt(path: Path, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ScenarioError(f'{path}:{number} is not JSON; write "a text" or {{"prompt": "a text"}}') from None
    text = value.get("prompt") if isinstance(value, dict) else value
    if not isinstance(text, str) or not text or not _is_unicode(text):
        raise ScenarioError(f'{path}:{number} holds no prompt; write "a text" or {{"prompt": "a text"}}')
    return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
