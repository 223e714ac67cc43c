"""``python -m enginebench.server.supervisor``: keeps one Triton server, and leaves nothing of it behind.

It stands between the harness and the server so that a harness that is killed outright cannot leave a server: the
harness holds the other end of its standard input, and when that closes the server, its stubs, their shared memory and
its scratch directory go. First line of input: the order, as JSON. A line ``stop`` asks the server to end in its own
time; the end of input ends it at once. The only line of output is the server's pid; the exit code is the server's.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - Triton's python backend keeps its regions there
ENVIRONMENT = "environment"  # in the scratch directory, a link to an empty one elsewhere that goes with it
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Run the server that standard input orders until it ends; return its exit code (128 + n for signal n)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphaned stubs become ours, so that they can be waited for
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    orders = open(0, "rb", buffering=0)  # noqa: SIM115 - a buffered reader would hold its lock at exit
    order = json.loads(orders.readline())
    try:
        server = _start(order)
        print(server.pid, flush=True)
        threading.Thread(target=_obey, args=(server, orders), daemon=True).start()
        try:
            code = server.wait()
        finally:
            server.kill()
            _kill_descendants()
    finally:
        remove_leftovers(order["name"], Path(order["scratch"]))
        _reap()
    return code if code >= 0 else 128 - code


def remove_leftovers(name: str, scratch: Path) -> None:
    """Kill the processes of the server ``name``, which may outlive it, and remove its shared memory. Safe to repeat."""
    orphans = [process for process in psutil.process_iter() if _belongs(process, name)]
    for orphan in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            orphan.kill()
    psutil.wait_procs(orphans, timeout=5)
    for region in SHARED_MEMORY.glob(f"{name}*"):
        region.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (scratch / ENVIRONMENT).readlink().rmdir()
    shutil.rmtree(scratch, ignore_errors=True)


def _belongs(process: psutil.Process, name: str) -> bool:
    """Whether it is a stub (or a server) that was started under ``name``, which its arguments hold."""
    with contextlib.suppress(psutil.Error):
        return process.name().startswith("triton") and any(name in argument for argument in process.cmdline())
    return False


def _kill_descendants() -> None:
    """Kill what the server started, and what those started: as their reaper we have them all, orphans too."""
    rest = psutil.Process().children(recursive=True)
    for process in rest:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(rest, timeout=5)


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    with Path(order["log"]).open("ab") as log:
        return subprocess.Popen(
            order["command"],
            env=order["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_supervisor,  # noqa: PLW1509 - no thread runs yet
        )


def _obey(server: subprocess.Popen[bytes], orders: IO[bytes]) -> None:
    for line in iter(orders.readline, b""):
        if line.strip() == b"stop":
            server.terminate()
    server.kill()


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _die_with_supervisor() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


if __name__ == "__main__":
    sys.exit(main())
