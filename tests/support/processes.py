"""Processes that must end, waited for as long as a busy machine may take."""

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

PATIENCE_S = 60.0


def left_of(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended after a while; who is dead and not yet waited for has."""
    deadline_s = time.monotonic() + PATIENCE_S
    left = list(processes)
    while left := [process for process in left if lives(process)]:
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.05)
    return left


def lives(process: psutil.Process) -> bool:
    """Whether it runs, and is not merely not yet waited for."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
