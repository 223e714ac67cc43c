"""Files of arrival times: JSON lines, each a number of seconds or an object with ``at_s`` or ``timestamp``."""

import json
import math
from pathlib import Path

from enginebench.errors import ScenarioError
from enginebench.plan.yaml_file import read_utf8

FORM = 'write a number of seconds, {"at_s": seconds} or {"timestamp": milliseconds}'


def read_trace(path: Path) -> tuple[float, ...]:
    """The arrival times of a JSONL file in seconds, sorted, from the first one on; blank lines are skipped.

    ``timestamp`` is in milliseconds, as in the traces of Mooncake. Raises ScenarioError with file and line, and for a
    file without two different times: it has no rate.
    """
    lines = enumerate(read_utf8(path).split("\n"), start=1)
    times_s = sorted(_time_s(path, number, line) for number, line in lines if line.strip())
    if not times_s or times_s[0] == times_s[-1]:
        raise ScenarioError(f"{path} holds fewer than two different times, and so no rate; {FORM} a line")
    return tuple(time_s - times_s[0] for time_s in times_s)


def _time_s(path: Path, number: int, line: str) -> float:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ScenarioError(f"{path}:{number} is not JSON; {FORM}") from None
    scale = 1.0
    if isinstance(value, dict):
        scale = 1.0 if "at_s" in value else 1e-3
        value = value.get("at_s", value.get("timestamp"))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ScenarioError(f"{path}:{number} holds no time; {FORM}")
    return value * scale
