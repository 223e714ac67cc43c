"""The GPU lease: whoever loads an engine holds it, so that no two engines are on a GPU unless they are meant to be.

Without a GPU it does nothing. It orders the processes of this host that ask for it, and no others.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from enginebench.errors import SessionError

TOLERANCE_BYTES = 64 * 2**20  # contexts come and go in allocations of some MiB


class GpuMemory(Protocol):
    """What the lease asks of ``telemetry.Telemetry``."""

    gpus: tuple[str, ...] | None

    def gpu_used(self) -> tuple[int, ...] | None:
        """Used bytes of each GPU now; None without one."""


class GpuLease:
    """Held from before an engine is loaded until its processes are gone: ``acquire``, ``release``, or ``with``."""

    def __init__(
        self,
        telemetry: GpuMemory | None = None,
        *,
        wait_s: float = 3600.0,
        settle_s: float = 30.0,
        directory: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._telemetry = telemetry
        self._wait_s = wait_s
        self._settle_s = settle_s
        self._directory = directory or Path(tempfile.gettempdir())
        self._sleep = sleep
        self._locks: list[int] = []
        self._before: tuple[int, ...] | None = None

    def acquire(self) -> None:
        """Wait for other holders to be done.

        Raises:
            SessionError: they are not after ``wait_s``.
        """
        gpus = self._telemetry.gpus if self._telemetry is not None else None
        try:
            for gpu in sorted(gpus or ()):  # sorted: two who want both cannot each hold one
                self._locks.append(self._lock(self._directory / f"enginebench-{gpu}.lock"))
            self._before = self._used()
        except BaseException:
            self._unlock()
            raise

    def release(self) -> None:
        """Wait until no more memory is used than before, then let others have it. May be called twice.

        Raises:
            SessionError: memory is still held after ``settle_s``; the lease is given back all the same.
        """
        try:
            left = self._left_over()
        finally:
            self._before = None
            self._unlock()
        if left:
            raise SessionError(left)

    def __enter__(self) -> "GpuLease":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _used(self) -> tuple[int, ...] | None:
        return self._telemetry.gpu_used() if self._telemetry is not None else None

    def _lock(self, path: Path) -> int:
        descriptor = _open(path)
        left_s = self._wait_s
        while not _locked(descriptor):
            if left_s <= 0:
                os.close(descriptor)
                raise SessionError(f"Another benchmark holds the GPU (lock {path}); wait until it is done, or stop it.")
            self._sleep(0.5)
            left_s -= 0.5
        return descriptor

    def _left_over(self) -> str | None:
        """What is still used on a GPU beyond what was used before, when it does not go away."""
        left_s = self._settle_s
        while self._before and (sentence := _more_than(self._before, self._used())):
            if left_s <= 0:
                return sentence
            self._sleep(0.2)
            left_s -= 0.2
        return None

    def _unlock(self) -> None:
        while self._locks:
            os.close(self._locks.pop())  # closing the file gives its lock back, and so does dying


def _more_than(before: Sequence[int] | None, after: Sequence[int] | None) -> str | None:
    for index, (old, new) in enumerate(zip(before or (), after or (), strict=False)):
        if new > old + TOLERANCE_BYTES:
            return (
                f"GPU {index} still has {(new - old) / 2**30:.2f} GiB more in use than before the engine was loaded; "
                "find what holds it with nvidia-smi before measuring on."
            )
    return None


def _open(path: Path) -> int:
    """A descriptor to lock; another user's file in a sticky directory may be opened for reading, but not created."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
