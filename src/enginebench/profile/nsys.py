"""Nsight Systems: the commands that run a worker or a server under it, and that open its reports.

A worker opens the capture range itself, around one round (``cudaProfilerApi``); a server cannot be told to, so that
``nsys launch`` starts it and ``nsys start`` and ``nsys stop`` enclose the round. Needs ``nsys`` on PATH.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from enginebench.errors import RunError, ServerError
from enginebench.measure.world import RANKS, Wrapper
from enginebench.profile.nsys_tables import Recorded, Span, read_export, read_ranges

MISSING = (
    "There is no nsys on PATH: install NVIDIA Nsight Systems (package nsight-systems-cli of NVIDIA's repository, or "
    "developer.nvidia.com/nsight-systems), in the container that runs enginebench."
)
ENDING_S = 300.0  # a report of a long round takes minutes to be made
EXPORT_TIMEOUT_S = 600.0
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
            raise ServerError(f"nsys {arguments[0]} failed ({_complaint(done)}): profile the direct path instead.")


def find_reports(directory: Path) -> list[Path]:
    """The reports in ``directory``, one a rank."""
    return sorted(directory.glob("report*.nsys-rep"))


def why_no_report(directory: Path) -> str:
    """Why there is none in ``directory``, as far as what is there tells."""
    if raw := sorted(directory.glob("report*.qdstrm")):
        return (
            f"nsys recorded {raw[0].name} and could not make a report of it: its importer is missing. Install all of "
            "Nsight Systems (package nsight-systems-cli), not the part that another tool brings along."
        )
    return (
        "Nsight Systems left no report: its capture range was not opened (several ranks open it at the iterations of "
        "TLLM_PROFILE_START_STOP), or it broke; see profiles/nsys/logs."
    )


def read_report(nsys: str, report: Path) -> Recorded:
    """What ``report`` holds, with tables of it beside it. Raises RunError."""
    export = report.with_suffix(".sqlite")  # larger than the report, so that it does not stay
    try:
        done = _run([nsys, "export", "--type=sqlite", f"--output={export}", str(report)], EXPORT_TIMEOUT_S)
        if done.returncode or not export.is_file():
            raise _unreadable(report, _complaint(done))
        recorded = read_export(export)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unreadable(report, error) from error
    finally:
        export.unlink(missing_ok=True)
    recorded.write(report.with_suffix(""))
    return recorded


def _unreadable(report: Path, why: object) -> RunError:
    return RunError(f"nsys export could not read {report.name} ({why}): open it in Nsight Systems instead.")


def missing(recorded: Recorded, round_name: str | None) -> list[str]:
    """What a report should hold and does not: kernels, and the range of a round that was marked in the worker."""
    notes = []
    if not recorded.kernels:
        notes.append("The report holds no kernel: nothing that it watched computed on a GPU meanwhile.")
    if round_name and all(name != round_name for name, _, _ in recorded.ranges):
        notes.append(
            "The report does not hold the range of the round, which was marked: this Nsight Systems does not see what "
            "the engine's nvtx package marks. Take torch for CUDA, or pip install 'nvtx<0.2.12' there."
        )
    return notes


def ranges(report: Path, round_name: str, round_started_ns: int) -> Iterator[Span]:
    """The report's NVTX ranges on the monotonic clock, of which the round's range is the anchor."""
    spans = list(read_ranges(report))
    anchor = next((start for name, start, _ in spans if name == round_name), None)
    if anchor is not None:
        offset = round_started_ns - anchor
        yield from ((name, start + offset, end + offset) for name, start, end in spans)


def _run(command: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def _complaint(done: "subprocess.CompletedProcess[str]") -> str:
    """The first line on standard error: what follows it is how nsys is used."""
    first = next((line.strip() for line in done.stderr.splitlines() if line.strip()), f"exit code {done.returncode}")
    return first.rstrip(".")
