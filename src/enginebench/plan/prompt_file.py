"""Files of prompts: JSON lines, each a text or an object with the key ``prompt`` or ``text``."""

import json
from pathlib import Path

from enginebench.errors import ScenarioError
from enginebench.plan.yaml_file import read_utf8

FORM = 'write "a text", {"prompt": "a text"} or {"text": "a text"}'


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
        raise ScenarioError(f"{path}:{number} is not JSON; {FORM}") from None
    text = value.get("prompt", value.get("text")) if isinstance(value, dict) else value
    if isinstance(value, dict) and text is None and "input_ids" in value:
        raise ScenarioError(
            f"{path}:{number} holds token ids and no text; give ids under token_ids in the scenario, or use synthetic "
            "for random prompts of a length"
        )
    if not isinstance(text, str) or not text or not _is_unicode(text):
        raise ScenarioError(f"{path}:{number} holds no prompt; {FORM}")
    return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)
