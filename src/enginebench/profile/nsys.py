"""Nsight Systems: the command that runs a worker or a server under it, and its reports as tables.

A worker opens the capture range itself, around one round (``cudaProfilerApi``); a server cannot be told to, so that
``nsys launch`` starts it and ``nsys start`` and ``nsys stop`` enclose the round. Needs ``nsys`` on PATH.
"""

import csv
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.errors import ServerError
from enginebench.measure.world import RANKS, Wrapper
from enginebench.profile.kernels import KernelTime, families, longest, occupation

MISSING = (
    "There is no nsys on PATH: install NVIDIA Nsight Systems (package nsight-systems-cli of NVIDIA's repository, or "
    "developer.nvidia.com/nsight-systems), in the container that runs enginebench."
)
REPORTS = (
    "cuda_gpu_kern_sum", "cuda_gpu_mem_time_sum", "cuda_gpu_trace", "nvtx_sum", "nvtx_pushpop_trace",
    "nvtx_startend_trace",
)  # fmt: skip
ENDING_S = 300.0  # a report of a long round takes minutes to be made
STATS_TIMEOUT_S = 600.0
ITERATIONS = "100-150"
"""What TensorRT-LLM captures by itself on ranks that nobody else can tell; TLLM_PROFILE_START_STOP overrides it."""

_TRACED = ("--trace=cuda,nvtx,osrt", "--cuda-graph-trace=node", "--trace-fork-before-exec=true")
_QUIET = ("--sample=none", "--cpuctxsw=none")
_RANGE = ("--capture-range=cudaProfilerApi", "--capture-range-end=stop")
_NVTX: Mapping[str, str] = {"TLLM_LLMAPI_ENABLE_NVTX": "1"}
# One report a rank: whichever launcher started it, its rank is in one of these variables.
_OF_RANK = 'nsys=$1; report=$2; shift 2; exec "$nsys" profile --output="$report-rank{rank}" "$@"'


def find_nsys() -> str | None:
    """The program; None: it is not there."""
    return shutil.which("nsys")


def worker_wrapper(nsys: str, directory: Path, ranks: int = 1) -> Wrapper:
    """What runs a worker of ``ranks`` ranks; reports go to ``directory``."""
    flags = ("--force-overwrite=true", *_TRACED, *_QUIET, *_RANGE)
    if ranks == 1:
        return Wrapper((nsys, "profile", f"--output={directory / 'report'}", *flags), _NVTX, ENDING_S)
    rank = "0"
    for name in reversed(RANKS):
        rank = f"${{{name}:-{rank}}}"
    window = os.environ.get("TLLM_PROFILE_START_STOP", ITERATIONS)
    env = {**_NVTX, "TLLM_PROFILE_START_STOP": window, "TLLM_GPTM_PROFILE_START_STOP": window}
    command = ("sh", "-c", _OF_RANK.format(rank=rank), "sh", nsys, str(directory / "report"), *flags)
    return Wrapper(command, env, ENDING_S)


class ServerCapture:
    """A server under ``nsys launch``, captured while the context lasts."""

    def __init__(self, nsys: str, directory: Path) -> None:
        self._nsys = nsys
        self._session = f"enginebench{secrets.token_hex(4)}"
        self._report = directory / "report"

    @property
    def wrapper(self) -> Wrapper:
        """What starts the server."""
        command = (self._nsys, "launch", f"--session-new={self._session}", *_TRACED)
        return Wrapper(command, _NVTX, ENDING_S)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Capture. Raises ServerError when nsys refuses."""
        output = f"--output={self._report}"
        self._tell("start", f"--session={self._session}", output, "--force-overwrite=true", *_QUIET)
        try:
            yield
        finally:
            self._tell("stop", f"--session={self._session}")

    def _tell(self, *arguments: str) -> None:
        done = _run([self._nsys, *arguments], ENDING_S)
        if done.returncode:
            raise ServerError(f"nsys {arguments[0]} failed ({_last_line(done)}): profile the direct path instead.")


def find_reports(directory: Path) -> list[Path]:
    """The reports in ``directory``, one a rank."""
    return sorted(directory.glob("report*.nsys-rep"))


def write_tables(nsys: str, report: Path) -> str | None:
    """Have ``nsys stats`` write its tables as CSV beside ``report``; why it could not, or None."""
    wanted = [f"--report={name}" for name in REPORTS]
    prefix = report.with_suffix("")
    options = ["--format=csv", "--force-export=true", "--force-overwrite=true", f"--output={prefix}"]
    try:
        done = _run([nsys, "stats", *wanted, *options, str(report)], STATS_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nsys stats could not read {report.name} ({error})."
    if not list(report.parent.glob(f"{prefix.name}_*.csv")):
        return f"nsys stats made no table of {report.name} ({_last_line(done)})."
    return None


def summary(report: Path) -> dict[str, Any]:
    """What the tables beside ``report`` say: kernels, families, memory operations, ranges, the GPU's time."""
    kernels = [KernelTime(row["Name"], _count(row, "Instances"), _s(row)) for row in _rows(report, REPORTS[0])]
    memory = [KernelTime(row["Operation"], _count(row, "Count"), _s(row)) for row in _rows(report, REPORTS[1])]
    nvtx = [
        {"range": row["Range"].lstrip(":"), "calls": _count(row, "Instances"), "s": _s(row)}
        for row in _rows(report, "nvtx_sum")
    ]
    copies = [KernelTime(f"memcpy {each.name}", each.calls, each.s) for each in memory]
    return {
        "kernels": longest(kernels),
        "families": families([*kernels, *copies]),
        "memory": [{"name": each.name, "calls": each.calls, "s": each.s} for each in memory],
        "nvtx": nvtx,
        "gpu": _occupation(report),
    }


def ranges(report: Path, round_name: str, round_started_ns: int) -> Iterator[tuple[str, int, int]]:
    """NVTX ranges as (name, start, end) on the monotonic clock, of which the round's range is the anchor."""
    rows = [row for name in REPORTS[4:] for row in _rows(report, name)]
    spans = [(row["Name"].lstrip(":"), int(float(row["Start (ns)"])), int(float(row["End (ns)"]))) for row in rows]
    anchor = next((start for name, start, _ in spans if name == round_name), None)
    if anchor is not None:
        yield from ((name, start - anchor + round_started_ns, end - anchor + round_started_ns)
                    for name, start, end in spans)  # fmt: skip


def _occupation(report: Path) -> dict[str, Any] | None:
    """Of what was captured, from the first operation of the GPU to the last."""
    rows = list(_rows(report, "cuda_gpu_trace"))
    if not rows:
        return None
    starts = np.array([int(float(row["Start (ns)"])) for row in rows], dtype=np.int64)
    ends = starts + np.array([int(float(row["Duration (ns)"])) for row in rows], dtype=np.int64)
    return dict(occupation(starts, ends, (int(starts.min()), int(ends.max()))))


def _rows(report: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of a table; none where there was nothing to tell."""
    path = report.with_name(f"{report.stem}_{name}.csv")
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(line for line in file if line.strip())


def _s(row: Mapping[str, str]) -> float:
    return float(row["Total Time (ns)"]) / 1e9


def _count(row: Mapping[str, str], name: str) -> int:
    return int(float(row[name]))


def _run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit code {done.returncode}"
