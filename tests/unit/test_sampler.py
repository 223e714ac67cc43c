"""How often the sampler samples: by what its samples usually cost, not by what one of them did."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from enginebench.measure import sampler
from enginebench.measure.gpu_trace import GpuFacts

PERIOD_S = 0.05


class Costly:
    """GPUs whose readings take so long, one after the other, on a clock of their own."""

    gpus: tuple[GpuFacts, ...] | None = None
    reason: str | None = None

    def __init__(self, costs_s: Sequence[float]) -> None:
        self.now_s = 0.0
        self._costs_s = iter(costs_s)

    def read(self, stamp_ns: int) -> None:  # noqa: ARG002 - a trace wants to know
        self.now_s += next(self._costs_s)

    def state(self) -> tuple[list[Any], list[Any]]:
        return [], []

    def edge(self, mark: str, stamp_ns: int) -> dict[str, Any]:  # noqa: ARG002
        return {}


def pauses_s(monkeypatch: pytest.MonkeyPatch, costs_s: Sequence[float]) -> list[float]:
    gpus = Costly(costs_s)
    monkeypatch.setattr(sampler, "time", SimpleNamespace(monotonic=lambda: gpus.now_s, thread_time=lambda: gpus.now_s))
    asked = sampler.Sampler(gpus, PERIOD_S, sampler.Voice(None))
    found = []
    for _ in costs_s:
        asked._sample()
        found.append(asked._next_s - gpus.now_s)
        gpus.now_s = asked._next_s
    return found


def test_a_dear_sample_leaves_no_gaps_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap, dear = 0.0002, 0.03
    assert pauses_s(monkeypatch, [*[cheap] * 5, dear, *[cheap] * 30]) == pytest.approx([PERIOD_S] * 36)


def test_where_every_sample_is_dear_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pauses_s(monkeypatch, [0.003] * 5) == pytest.approx([0.003 / sampler.SAMPLE_SHARE] * 5)
