"""A worker that is a group of ranks under ``mpirun``: what starts it, and how rank 0 is spoken to.

Rank 0 drives, over a socket, because mpirun's own pipes are made for text. The others are told at the start what to
open, and serve until rank 0 closes its session. One host only: Slurm starts its ranks itself.
"""

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from enginebench.errors import WorkerError

SOCKET = "ENGINEBENCH_SOCKET"
FOLLOW = "ENGINEBENCH_FOLLOW"
MPIRUN = "ENGINEBENCH_MPIRUN"
"""Environment: where rank 0 connects; what the other ranks open; a command in place of ``mpirun``."""

RANKS = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")

Pipes: TypeAlias = tuple[BinaryIO, BinaryIO]
"""What is read from and what is written to."""

_STEP_S = 0.2


@dataclass(frozen=True, slots=True)
class World:
    """How many ranks there are, and what each of them opens."""

    size: int
    runtime: str
    options: Mapping[str, Any]


def rank() -> int:
    """Which rank this process is; 0 without MPI."""
    return int(next((os.environ[name] for name in RANKS if name in os.environ), 0))


def launcher(size: int) -> list[str]:
    """The command that starts ``size`` copies of what follows it. Raises WorkerError without mpirun."""
    name = os.environ.get(MPIRUN, "mpirun")
    found = shutil.which(name)
    if found is None:
        raise WorkerError(f"The build needs {size} ranks, and there is no {name}: install Open MPI, or set {MPIRUN}.")
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    return [found, *root, "-n", str(size)]


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A program that runs the interpreter, such as a profiler; once a rank where there are several."""

    command: tuple[str, ...]
    env: Mapping[str, str]
    ending_s: float  # how long it may take after the interpreter has ended


class Meeting:
    """A socket that rank 0 connects to."""

    def __init__(self) -> None:
        self._directory = tempfile.mkdtemp(prefix="enginebench-")  # a short path: sockets allow 108 characters
        self._path = Path(self._directory) / "rank0"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(self._path))
        self._socket.listen(1)
        self._socket.settimeout(_STEP_S)

    def environment(self, world: World | None) -> dict[str, str]:
        """What the ranks must know."""
        if world is None:
            return {SOCKET: str(self._path)}
        follow = json.dumps({"runtime": world.runtime, "options": dict(world.options)})
        return {SOCKET: str(self._path), FOLLOW: follow}

    def accept(self, alive: Callable[[], bool], timeout_s: float) -> Pipes:
        """Wait for rank 0; return what it writes and what it reads: nothing when it dies before, or is late."""
        deadline_s = time.monotonic() + timeout_s
        try:
            while time.monotonic() < deadline_s and alive():
                with suppress(TimeoutError):
                    return both_ends(self._socket.accept()[0])
            return Path(os.devnull).open("rb"), Path(os.devnull).open("wb")
        finally:
            self.close()

    def close(self) -> None:
        """Remove the socket from the file system. May be called twice."""
        self._socket.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def connect(path: str) -> Pipes:
    """Connect to the harness as rank 0; return what it writes and what it reads."""
    ours = socket.socket(socket.AF_UNIX)
    ours.connect(path)
    return both_ends(ours)


def both_ends(connected: socket.socket) -> Pipes:
    """A connected socket as two files, to read and to write; the socket itself is given up."""
    connected.setblocking(True)
    descriptor = connected.detach()
    return os.fdopen(os.dup(descriptor), "rb"), os.fdopen(descriptor, "wb")


def command(python: Sequence[str], world: World | None, wrapper: Wrapper | None = None) -> list[str]:
    """What starts the interpreter ``python``: alone, or once a rank. Raises WorkerError as ``launcher`` does."""
    inner = list(wrapper.command) if wrapper else []
    if world is None:
        return [*inner, *python]
    if len(python) > 1:
        raise WorkerError("Several ranks cannot be started in a container from outside: run enginebench inside it.")
    return [*launcher(world.size), *inner, *python]
