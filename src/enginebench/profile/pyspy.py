"""py-spy on processes that are not ours to change: Triton's Python models, or a worker without pyinstrument.

Reads another process's memory, which the system must permit.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enginebench.measure.profilers import HOTTEST

MISSING = "There is no py-spy on PATH: pip install py-spy."
PERMISSION = (
    "py-spy needs the permission to trace other processes: run as root, with --cap-add SYS_PTRACE in a container, or "
    "with kernel.yama.ptrace_scope at 0"
)
WRITE_TIMEOUT_S = 60.0


def find_py_spy() -> str | None:
    """The program, on PATH or beside this interpreter; None: it is not there."""
    beside = str(Path(sys.executable).parent)  # where pip puts it, also in an environment that is not activated
    return shutil.which("py-spy") or shutil.which("py-spy", path=beside)


@contextmanager
def record(processes: Sequence[tuple[str, int]], directory: Path, kept: dict[str, Any]) -> Iterator[None]:
    """Sample ``processes`` (name, pid) in the context; ``files``, ``notes`` and ``functions`` of ``kept`` grow."""
    program = find_py_spy()
    if program is None:
        kept["notes"].append(MISSING)
        yield
        return
    running = [(f"{name} ({pid})", path := directory / f"python-{_slug(name)}-{pid}.speedscope.json",
                _start(program, pid, path)) for name, pid in processes]  # fmt: skip
    try:
        yield
    finally:
        for name, path, process in running:
            said = _stop(process)
            if path.is_file():
                kept["files"].append(path.name)
                kept["functions"] += hottest(json.loads(path.read_text(encoding="utf-8")), name)
            else:
                kept["notes"].append(f"{name} could not be sampled ({said}): {PERMISSION}.")


def hottest(profile: Mapping[str, Any], thread: str) -> list[dict[str, Any]]:
    """The functions of a speedscope file by the time in which they were on top of the stack."""
    frames = profile["shared"]["frames"]
    own: dict[int, float] = {}
    for each in profile["profiles"]:
        for stack, weight in zip(each["samples"], each["weights"], strict=True):
            if stack:
                own[stack[-1]] = own.get(stack[-1], 0.0) + weight
    ranked = sorted(own.items(), key=lambda item: -item[1])[:HOTTEST]
    return [
        {
            "thread": thread,
            "function": frames[at]["name"],
            "place": f"{frames[at].get('file')}:{frames[at].get('line')}",
            "s": s,
        }
        for at, s in ranked
    ]


def _start(program: str, pid: int, path: Path) -> "subprocess.Popen[str]":
    command = [program, "record", "--pid", str(pid), "--format", "speedscope", "--output", str(path)]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, start_new_session=True, **pipes)


def _stop(process: "subprocess.Popen[str]") -> str:
    """Have it write what it has; what it said last."""
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=WRITE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "it said nothing"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
