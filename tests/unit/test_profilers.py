"""The worker's profilers, with stand-ins for the libraries that they use."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enginebench.measure import profilers
from enginebench.measure.annotated import LIBRARIES, AnnotatedSession, LibraryRanges, find_ranges
from enginebench.measure.profilers import (
    NO_RANGES,
    ROUND,
    CaptureRange,
    NoProfiler,
    TorchProfiler,
    hottest,
    open_profiler,
)
from enginebench.plan.requests import Request, Sampling
from enginebench.runtimes.base import Arrival, Session
from enginebench.runtimes.scripted import open_session


@pytest.fixture
def session() -> Session:
    return open_session({"first_s": 0.0, "gap_s": 0.0})


class StandInTorch:
    """``torch`` as far as it is used; keeps what was done, and on which thread."""

    def __init__(self, *, cuda: bool) -> None:
        self.done: list[tuple[str, str]] = []
        self.activities: list[str] = []
        self.cuda = SimpleNamespace(is_available=lambda: cuda, synchronize=lambda: self._note("synchronize"))
        kinds = SimpleNamespace(CPU="cpu", CUDA="cuda")
        self.profiler = SimpleNamespace(ProfilerActivity=kinds, profile=self._profile, record_function=self._range)

    def _note(self, what: str) -> None:
        self.done.append((what, threading.current_thread().name))

    def _profile(self, activities: list[str]) -> Any:
        self.activities = activities
        return SimpleNamespace(
            start=lambda: self._note("start"),
            stop=lambda: self._note("stop"),
            export_chrome_trace=lambda path: Path(path).write_bytes(b"trace"),
        )

    def _range(self, name: str) -> Any:
        test = self

        class Range:
            def __enter__(self) -> None:
                test._note(f"enter {name}")

            def __exit__(self, *_: object) -> None:
                test._note("exit")

        return Range()


def on_a_thread(action: Callable[[], None]) -> None:
    thread = threading.Thread(target=action, name="the engine's")
    thread.start()
    thread.join()


def test_torch_is_profiled_on_the_thread_that_computes(tmp_path: Path, session: Session) -> None:
    torch = StandInTorch(cuda=True)
    profiler = TorchProfiler(torch, tmp_path, on_a_thread)
    assert profiler.start(session) is session
    profiler.stop()
    told = profiler.finish()
    assert torch.activities == ["cpu", "cuda"]
    assert [what for what, _ in torch.done] == ["start", f"enter {ROUND}", "synchronize", "exit", "stop"]
    assert {thread for _, thread in torch.done} == {"the engine's"}
    assert told["files"] == ["torch-trace.json.gz"]
    assert (tmp_path / "torch-trace.json.gz").read_bytes() == b"trace"
    assert told["round_started_ns"] > 0


def test_without_a_gpu_torch_profiles_the_cpu(tmp_path: Path, session: Session) -> None:
    torch = StandInTorch(cuda=False)
    profiler = TorchProfiler(torch, tmp_path, lambda action: action())
    profiler.start(session)
    profiler.stop()
    assert torch.activities == ["cpu"]
    assert "synchronize" not in [what for what, _ in torch.done]


def test_a_library_that_is_missing_lets_the_round_run(tmp_path: Path, session: Session) -> None:
    if "torch" in sys.modules:
        pytest.skip("torch is here")
    profiler = open_profiler("torch", str(tmp_path), session)
    assert isinstance(profiler, NoProfiler)
    assert profiler.start(session) is session
    profiler.stop()
    assert "install it" in profiler.finish()["reason"]


class Nvtx:
    """The ``nvtx`` package as far as it is used."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def push_range(self, text: str) -> None:
        self.done.append(f"push {text}")

    def pop_range(self) -> None:
        self.done.append("pop")

    def start_range(self, text: str) -> str:
        self.done.append(f"start {text}")
        return text

    def end_range(self, handle: str) -> None:
        self.done.append(f"end {handle}")


def test_the_capture_range_encloses_the_round(session: Session) -> None:
    nvtx = Nvtx()
    switches = (lambda: nvtx.done.append("cuProfilerStart"), lambda: nvtx.done.append("cuProfilerStop"))
    profiler = CaptureRange(LibraryRanges(nvtx, LIBRARIES["nvtx"]), switches)
    driven = profiler.start(session)
    assert isinstance(driven, AnnotatedSession)
    profiler.stop()
    assert nvtx.done == ["cuProfilerStart", f"push {ROUND}", "pop", "cuProfilerStop"]
    assert profiler.finish()["notes"] == []
    without = CaptureRange(None, switches)
    assert without.start(session) is session
    without.stop()
    assert nvtx.done[4:] == ["cuProfilerStart", "cuProfilerStop"]
    assert without.finish() == {"files": [], "notes": [NO_RANGES]}


def test_ranges_are_made_by_the_first_library_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError("NVTX functions not installed. Are you sure you have a CUDA build?")

    nvtx = Nvtx()
    of_the_host = SimpleNamespace(range_push=refuse, range_pop=None, range_start=refuse, range_end=None)
    monkeypatch.setitem(sys.modules, "torch.cuda.nvtx", of_the_host)
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    found = find_ranges()
    assert found is not None
    found.push("ours")
    assert nvtx.done[-1] == "push ours"
    monkeypatch.delitem(sys.modules, "nvtx")
    monkeypatch.setitem(sys.modules, "nvtx", None)
    assert find_ranges() is None


def test_without_a_driver_nothing_can_be_captured(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profilers, "cuda_switches", lambda: None)
    assert open_profiler("nsys", str(tmp_path), session).reason == profilers.NO_DRIVER


class Answers:
    """A session that arrives with what the test says."""

    stamp_kind = "engine"

    def __init__(self, *polls: list[Arrival]) -> None:
        self._polls = list(polls)
        self.cancelled: list[int] = []

    def submit(self, requests: list[Request]) -> list[int]:
        return [1 for _ in requests]

    def poll(self, _: float) -> list[Arrival]:
        return self._polls.pop(0)

    def cancel(self, request_index: int) -> None:
        self.cancelled.append(request_index)


def test_requests_are_marked_from_release_to_end() -> None:
    nvtx = Nvtx()
    first = Arrival(0, 5, (1,))
    answers: Any = Answers([first], [first], [first._replace(ended=True), Arrival(1, 6, (), ended=True)])
    session = AnnotatedSession(answers, LibraryRanges(nvtx, LIBRARIES["nvtx"]))
    session.submit([Request(index, "x", (1,), 3, True, Sampling()) for index in range(3)])
    for _ in range(3):
        session.poll(0.0)
    session.cancel(2)
    to_first = [f"request {index}: to the first token" for index in range(3)]
    assert nvtx.done == [
        *(f"start {text}" for text in to_first),
        f"end {to_first[0]}",
        "start request 0: decode",
        "end request 0: decode",
        f"end {to_first[1]}",
        f"end {to_first[2]}",
    ]
    assert answers.cancelled == [2]


def test_own_time_of_functions() -> None:
    own = {"function": "[self]", "file_path_short": "a.py", "line_no": 0, "time": 0.4, "children": []}
    inner = {"function": "inner", "file_path_short": "b.py", "line_no": 7, "time": 0.3, "children": []}
    tree = {"function": "outer", "file_path_short": "a.py", "line_no": 3, "time": 1.0, "children": [own, inner]}
    assert [(row["function"], row["place"], row["s"]) for row in hottest(tree, "engine")] == [
        ("outer", "a.py:3", pytest.approx(0.7)),
        ("inner", "b.py:7", 0.3),
    ]
