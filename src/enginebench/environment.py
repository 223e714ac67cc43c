"""The machine and the software that a run was measured on, as JSON. "Unknown" is None; nothing is measured here."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from enginebench.measure.nvml import host_gpus

PACKAGES = ("enginebench", "numpy", "nvidia-pytriton", "tensorrt_llm", "torch", "tritonclient", "pyarrow", "pytest",
            "pytest-benchmark", "httptools", "nvidia-ml-py")  # fmt: skip
"""Packages whose version may change a result or the record of it."""


def environment(directory: Path | None = None) -> dict[str, Any]:
    """Host, Python, packages, GPUs, and the git commit of ``directory`` (default: the working directory)."""
    gpus, gpu_reason = host_gpus()
    return {
        "os": _os_name(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": {"model": _cpu_model(), "logical_cores": os.cpu_count(), "usable_cores": len(os.sched_getaffinity(0))},
        "memory_bytes": _memory_bytes(),
        "python": platform.python_version(),
        "python_executable": sys.executable,
        "packages": {name: _version(name) for name in PACKAGES},
        "gpus": gpus,
        "gpu_reason": gpu_reason,
        "git": _git(directory or Path.cwd()),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    # x86 says "model name", most ARM kernels say nothing of the sort
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _memory_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(directory: Path) -> dict[str, Any] | None:
    commit = _git_output(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": _git_output(directory, "status", "--porcelain", "--untracked-files=no") != ""}


def _git_output(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
