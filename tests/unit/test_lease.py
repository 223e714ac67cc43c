"""The GPU lease, with GPUs that are made up."""

from pathlib import Path

import pytest

from enginebench.errors import SessionError
from enginebench.measure.lease import GpuLease

GIB = 2**30


class Gpus:
    """Two GPUs whose used memory follows a list; the last entry stays."""

    gpus: tuple[str, ...] | None = ("GPU-a", "GPU-b")

    def __init__(self, *used: tuple[int, ...]):
        self._used = list(used)

    def gpu_used(self) -> tuple[int, ...] | None:
        return self._used.pop(0) if len(self._used) > 1 else self._used[0]


class NoGpu:
    gpus: tuple[str, ...] | None = None

    def gpu_used(self) -> tuple[int, ...] | None:
        return None


def test_without_a_gpu_it_does_nothing(tmp_path: Path) -> None:
    with GpuLease(NoGpu(), directory=tmp_path), GpuLease(NoGpu(), directory=tmp_path), GpuLease(directory=tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_second_holder_waits_and_is_told_who_is_in_the_way(tmp_path: Path) -> None:
    slept: list[float] = []
    with GpuLease(Gpus((0, 0)), directory=tmp_path):
        second = GpuLease(Gpus((0, 0)), directory=tmp_path, wait_s=2, sleep=slept.append)
        with pytest.raises(SessionError, match=r"Another benchmark holds the GPU .*GPU-a\.lock"):
            second.acquire()
    assert sum(slept) == 2
    with second:
        pass


def test_what_fails_half_way_gives_back_what_it_had(tmp_path: Path) -> None:
    class OnlyB(Gpus):
        gpus: tuple[str, ...] | None = ("GPU-b",)

    with GpuLease(OnlyB((0,)), directory=tmp_path):
        both = GpuLease(Gpus((0, 0)), directory=tmp_path, wait_s=0)
        with pytest.raises(SessionError, match="GPU-b"):
            both.acquire()

        class OnlyA(Gpus):
            gpus: tuple[str, ...] | None = ("GPU-a",)

        with GpuLease(OnlyA((0,)), directory=tmp_path, wait_s=0):
            pass


def test_release_waits_until_memory_is_back(tmp_path: Path) -> None:
    slept: list[float] = []
    gpus = Gpus((GIB, 0), (9 * GIB, 0), (3 * GIB, 0), (GIB, 0))
    with GpuLease(gpus, directory=tmp_path, sleep=slept.append):
        pass
    assert len(slept) == 2


def test_memory_that_stays_is_an_error_and_the_lease_is_given_back(tmp_path: Path) -> None:
    lease = GpuLease(Gpus((0, GIB), (0, 3 * GIB)), directory=tmp_path, settle_s=1, sleep=lambda _: None)
    lease.acquire()
    with pytest.raises(SessionError, match=r"GPU 1 still has 2\.00 GiB more in use"):
        lease.release()
    lease.release()
    with GpuLease(Gpus((0, 0)), directory=tmp_path, wait_s=0):
        pass
