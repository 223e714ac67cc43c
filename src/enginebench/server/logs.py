"""What a Triton log says about a failure. Reads the log file; knows the lines that mean nothing."""

import re
from pathlib import Path

HARMLESS = re.compile(r"CUDA|DCGM|unable to create stream|pinned|cudaError|gpu_metrics", re.IGNORECASE)
PROBLEM = re.compile(r"^[EF]\d{4} |^error:|^\s*\w*(Error|Exception)\b|Traceback", re.IGNORECASE)
PORT_TAKEN = re.compile(r"already in use|Address in use|failed to start HTTP service", re.IGNORECASE)


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The last ``count`` lines that name a problem; none where the log names none."""
    lines = [line for line in _read(log).splitlines() if line.strip() and not HARMLESS.search(line)]
    problems = [line for line in lines if PROBLEM.search(line)]
    return [_shortened(line) for line in problems[-count:]]


def says_port_taken(log: Path) -> bool:
    """Whether the server ended because its port was in use."""
    return bool(PORT_TAKEN.search(_read(log)))


def _shortened(line: str) -> str:
    """One line of at most 300 characters: Triton writes whole tracebacks on one, with ``\\n`` spelt out."""
    head = line.split("\\n", 1)[0]
    return head if len(head) <= 300 else f"{head[:299]}…"


def _read(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
