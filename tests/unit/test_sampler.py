"""How often the sampler samples: by what its samples usually cost, not by what one of them or a state did."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from enginebench.measure import sampler
from enginebench.measure.gpu_trace import GpuFacts


class Costly:
    """GPUs whose readings take so long, one after the other, on a clock of their own."""

    gpus: tuple[GpuFacts, ...] | None = ()
    reason: str | None = None

    def __init__(self, costs_s: Sequence[float], state_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.states = 0
        self._costs_s, self._state_s = iter(costs_s), state_s

    def read(self, stamp_ns: int) -> None:  # noqa: ARG002 - a trace wants to know
        self.now_s += next(self._costs_s)

    def state(self) -> tuple[list[Any], list[Any]]:
        self.now_s += self._state_s
        self.states += 1
        return [], []

    def edge(self, mark: str, stamp_ns: int) -> dict[str, Any]:  # noqa: ARG002
        return {}


def pauses_s(monkeypatch: pytest.MonkeyPatch, costs_s: Sequence[float], gpus: Costly | None = None) -> list[float]:
    gpus = gpus or Costly(costs_s)
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: gpus.now_s, thread_time=lambda: gpus.now_s))
    asked = sampler.Sampler(gpus, sampler.Voice(None))
    found = []
    for _ in costs_s:
        asked._sample()
        found.append(asked._next_s - gpus.now_s)
        gpus.now_s = asked._next_s
    return found


def test_a_dear_sample_leaves_no_gaps_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap, dear = 0.0002, 0.03
    assert pauses_s(monkeypatch, [*[cheap] * 5, dear, *[cheap] * 30]) == pytest.approx([sampler.PERIOD_S] * 36)


def test_where_every_sample_is_dear_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses_s(monkeypatch, [0.003] * 5) == pytest.approx([0.003 / sampler.SAMPLE_SHARE] * 5)


def test_dear_states_come_less_often_and_stretch_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    costs_s = [0.0002] * 220  # eleven seconds
    gpus = Costly(costs_s, state_s=0.005)
    assert pauses_s(monkeypatch, costs_s, gpus) == pytest.approx([sampler.PERIOD_S] * 220)
    assert gpus.states == 3  # of 5 ms, at a thousandth of the time
