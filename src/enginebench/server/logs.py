"""What a Triton log says about a failure. Reads log files; knows the lines that mean nothing."""

import re
from collections.abc import Sequence
from pathlib import Path

from enginebench.server.reasons import Reason, reason_of

# What Triton says on a machine without a GPU, where it serves all the same.
HARMLESS = re.compile(
    r"CudaDriverHelper|driver version is insufficient|no CUDA-capable device|unable to create stream for ensemble"
    r"|DCGM|gpu_metrics|pinned system memory"
)
PROBLEM = re.compile(r"^[EF]\d{4} |^error:|^\s*\w*(Error|Exception)\b|Traceback|\[ERROR\]", re.IGNORECASE)
PORT_TAKEN = re.compile(r"already in use|Address in use|failed to start HTTP service", re.IGNORECASE)
# A process of the python backend that is held up for a second as it starts: Triton aborts.
HELD_UP = "boost::interprocess::lock_exception"
TAIL_BYTES = 8 << 20  # of a log: an engine that has run for days writes a lot


def last_lines(*logs: Path, count: int = 5) -> list[str]:
    """The last ``count`` lines that name a problem; none where the logs name none."""
    problems = [line for line in _lines(logs) if PROBLEM.search(line)]
    return [_shortened(line) for line in problems[-count:]]


def reason_in(logs: Sequence[Path]) -> Reason | None:
    """The known fault that the logs show; None: no known one."""
    return reason_of("\n".join(_lines(logs)))


def says_port_taken(*logs: Path) -> bool:
    """Whether the server ended because its port was in use."""
    return any(PORT_TAKEN.search(line) for line in _lines(logs))


def says_held_up(*logs: Path) -> bool:
    """Whether Triton aborted because the machine stood still for a moment."""
    return any(HELD_UP in line for line in _lines(logs))


def explain_ending(logs: Sequence[Path]) -> str:
    """What the logs say about an end, to be appended to a sentence about it: the reason, then the last lines."""
    reason = reason_in(logs)
    sentence = f": {reason.sentence}" if reason else ""
    places = ", ".join(str(log) for log in logs if log.exists())
    lines = last_lines(*logs)
    if not lines:
        return f"{sentence}; see its log {places}."
    return f"{sentence}; its log {places} ends with:\n  " + "\n  ".join(lines)


def _lines(logs: Sequence[Path]) -> list[str]:
    lines = [line for log in logs for line in _read(log).splitlines()]
    return [line for line in lines if line.strip() and not HARMLESS.search(line)]


def _shortened(line: str) -> str:
    """One line of at most 300 characters: Triton writes whole tracebacks on one, with ``\\n`` spelt out."""
    head = line.split("\\n", 1)[0]
    return head if len(head) <= 300 else f"{head[:299]}…"


def _read(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
