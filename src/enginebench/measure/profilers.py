"""Profilers in the worker: each is started before one round and stopped after it, and keeps files in a directory.

A profiler that cannot work says why and lets the round run. Imports the libraries that it needs when it starts, under
the build's own interpreter. What a profile means is not judged here.
"""

import ctypes
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from enginebench.measure.annotated import AnnotatedSession, Ranges, find_ranges
from enginebench.runtimes.base import Session

ROUND = "enginebench round"
"""The range that spans the round, in whatever a profiler records; its start is known on the monotonic clock, too."""

HOTTEST = 25  # functions that are listed

NO_DRIVER = (
    "There is no CUDA driver (libcuda.so.1) where the engine runs, and Nsight Systems is opened and closed through it."
)
NO_RANGES = "Round and requests are not marked: install torch for CUDA, or nvtx, where the engine runs."

RunOn: TypeAlias = Callable[[Callable[[], None]], None]
"""Does an action on some thread and waits for it."""


class Profiler(Protocol):
    """Around one round: ``start``, the round with the session that it returns, ``stop``, then ``finish``."""

    @property
    def reason(self) -> str | None:
        """Why it cannot work; None: it can."""

    def start(self, session: Session) -> Session:
        """Begin; return the session to drive."""

    def stop(self) -> None:
        """End, as soon as the round is over."""

    def finish(self) -> Mapping[str, Any]:
        """Write what is left to be written; return ``files`` (names), ``notes`` and facts."""


def open_profiler(kind: str, directory: str, session: Session) -> Profiler:
    """The profiler of ``kind`` for a round of ``session``; files go to ``directory``, which is there."""
    on_engine: RunOn = getattr(session, "on_engine_thread", _here)
    place = Path(directory)
    match kind:
        case "torch":
            return _with_library("torch", lambda torch: TorchProfiler(torch, place, on_engine))
        case "python":
            threads = {"worker": _here} | ({"engine": on_engine} if on_engine is not _here else {})
            return _with_library("pyinstrument", lambda library: PythonProfiler(library, place, threads))
        case "nsys":
            switches = cuda_switches()
            return CaptureRange(find_ranges(), switches) if switches else NoProfiler(NO_DRIVER)
    return IterationProfiler()


def _here(action: Callable[[], None]) -> None:
    action()


def _with_library(name: str, make: Callable[[Any], Profiler]) -> Profiler:
    try:
        library = import_module(name)
        if name == "torch":
            import_module("torch.profiler")
    except ImportError as error:
        return NoProfiler(f"{name} cannot be imported in the interpreter that runs the engine ({error}): install it.")
    return make(library)


class NoProfiler:
    """Stands for one that cannot work."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def start(self, session: Session) -> Session:
        """Nothing."""
        return session

    def stop(self) -> None:
        """Nothing."""

    def finish(self) -> Mapping[str, Any]:
        """Say why there is nothing."""
        return {"files": [], "notes": [], "reason": self.reason}


class IterationProfiler:
    """Asks the session to record the engine's iterations; they come with the round's observations."""

    reason = None

    def __init__(self) -> None:
        self._record: Callable[[bool], None] = lambda _: None

    def start(self, session: Session) -> Session:
        """Switch it on, where it is not always on."""
        self._record = getattr(session, "record_iterations", self._record)
        self._record(True)
        return session

    def stop(self) -> None:
        """Switch it off; what was recorded stays."""
        self._record(False)

    def finish(self) -> Mapping[str, Any]:
        """Nothing is written here."""
        return {"files": [], "notes": []}


class TorchProfiler:
    """``torch.profiler`` on the thread that computes: it sees the operators of that thread, and all kernels."""

    reason = None

    def __init__(self, torch: Any, directory: Path, run_on: RunOn) -> None:
        self._torch = torch
        self._path = directory / "torch-trace.json.gz"
        self._run_on = run_on
        self._profile: Any = None
        self._mark: Any = None
        self._started_ns = 0

    def start(self, session: Session) -> Session:
        """Begin on the engine's thread."""
        self._run_on(self._begin)
        return session

    def stop(self) -> None:
        """End on the same thread, once the GPU has done everything."""
        self._run_on(self._end)

    def finish(self) -> Mapping[str, Any]:
        """Write the Chrome trace."""
        self._profile.export_chrome_trace(str(self._path))
        return {"files": [self._path.name], "notes": [], "round": ROUND, "round_started_ns": self._started_ns}

    def _begin(self) -> None:
        profiler = self._torch.profiler
        activities = [profiler.ProfilerActivity.CPU]
        if self._torch.cuda.is_available():
            activities.append(profiler.ProfilerActivity.CUDA)
        self._profile = profiler.profile(activities=activities)
        self._profile.start()
        self._mark = profiler.record_function(ROUND)
        self._started_ns = time.monotonic_ns()
        self._mark.__enter__()

    def _end(self) -> None:
        if self._torch.cuda.is_available():
            self._torch.cuda.synchronize()
        self._mark.__exit__(None, None, None)
        self._profile.stop()


class PythonProfiler:
    """``pyinstrument`` on each of some threads of this process: the one that drives, and the engine's."""

    reason = None

    def __init__(self, pyinstrument: Any, directory: Path, threads: Mapping[str, RunOn]) -> None:
        self._directory = directory
        self._threads = threads
        self._renderer = pyinstrument.renderers.JSONRenderer
        self._profilers = {name: pyinstrument.Profiler(async_mode="disabled") for name in threads}

    def start(self, session: Session) -> Session:
        """Begin on every thread."""
        for name, run_on in self._threads.items():
            run_on(self._profilers[name].start)
        return session

    def stop(self) -> None:
        """End on every thread."""
        for name, run_on in self._threads.items():
            run_on(lambda name=name: self._profilers[name].stop() and None)  # type: ignore[misc]

    def finish(self) -> Mapping[str, Any]:
        """Write a page for each thread, and list where the time is."""
        files, functions = [], []
        for name, profiler in self._profilers.items():
            path = self._directory / f"python-{name}.html"
            path.write_text(profiler.output_html(), encoding="utf-8")
            files.append(path.name)
            tree = json.loads(profiler.output(self._renderer(show_all=True)))["root_frame"]
            functions += hottest(tree, name) if tree else []
        return {"files": files, "notes": [], "functions": functions}


def hottest(tree: Mapping[str, Any], thread: str) -> list[dict[str, Any]]:
    """The functions in which the samples of a pyinstrument tree were, by their own time (s), the longest first."""
    own: dict[tuple[str, str], float] = {}
    left: list[tuple[Mapping[str, Any], tuple[str, str]]] = [(tree, ("", ""))]
    while left:
        frame, caller = left.pop()
        children = frame.get("children") or []
        name = str(frame.get("function"))
        where = f"{frame.get('file_path_short')}:{frame.get('line_no')}"
        key = caller if name == "[self]" else (name, where)  # so pyinstrument calls what a function did itself
        left += [(child, key) for child in children]
        own[key] = own.get(key, 0.0) + frame["time"] - sum(child["time"] for child in children)
    ranked = sorted(own.items(), key=lambda item: -item[1])[:HOTTEST]
    return [{"thread": thread, "function": name, "place": place, "s": s} for (name, place), s in ranked if s > 0]


class CaptureRange:
    """Opens and closes the capture range of Nsight Systems around the round, and marks round and requests in it."""

    reason = None

    def __init__(self, ranges: Ranges | None, switches: Sequence[Callable[[], object]]) -> None:
        self._ranges = ranges
        self._switches = switches
        self._started_ns = 0

    def start(self, session: Session) -> Session:
        """``cudaProfilerStart``, then the range of the round."""
        self._switches[0]()
        self._started_ns = time.monotonic_ns()
        if self._ranges is None:
            return session
        self._ranges.push(ROUND)
        return AnnotatedSession(session, self._ranges)

    def stop(self) -> None:
        """The end of the range, then ``cudaProfilerStop``."""
        if self._ranges is not None:
            self._ranges.pop()
        self._switches[1]()

    def finish(self) -> Mapping[str, Any]:
        """Nsight Systems writes its report itself; say what could not be done."""
        if self._ranges is None:
            return {"files": [], "notes": [NO_RANGES]}
        return {"files": [], "notes": [], "round": ROUND, "round_started_ns": self._started_ns}


def cuda_switches() -> Sequence[Callable[[], object]] | None:
    """``cuProfilerStart`` and ``cuProfilerStop`` of the driver, whichever library uses it; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return (driver.cuProfilerStart, driver.cuProfilerStop)
