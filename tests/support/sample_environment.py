"""The build and the machine of the sample runs."""

from typing import Any

MIB = 2**20
GIB = 2**30


def build() -> dict[str, Any]:
    """The default reference build."""
    return {
        "name": "default",
        "kind": "reference",
        "directory": "reports/builds/default",
        "version": "reference-1",
        "architecture": "ReferenceForCausalLM",
        "dtype": "float64",
        "limits": {"max_batch_size": 8, "max_input_len": 1024, "max_seq_len": 1536},
        "fingerprint": "sha256:5f1c0e7a9b3d48c26e0a7d915b84f3c2d6e19a70b5c3f8e4271d0a9c6b5e4f31",
        "engine_bytes": 23 * MIB,
    }


def environment() -> dict[str, Any]:
    """A laptop without a GPU."""
    return {
        "os": "Debian GNU/Linux 12 (bookworm)",
        "kernel": "6.1.0-18-amd64",
        "machine": "x86_64",
        "cpu": {"model": "AMD EPYC 7B13", "logical_cores": 2, "usable_cores": 2},
        "memory_bytes": 8 * GIB,
        "python": "3.11.9",
        "python_executable": "/opt/enginebench/.venv/bin/python",
        "packages": {"numpy": "1.26.4", "nvidia-pytriton": "0.7.0", "pytest-benchmark": "5.3.1", "torch": None},
        "gpus": None,
        "gpu_reason": "no GPU (NVML Shared Library Not Found)",
        "git": {"commit": "645cf90aa1b2c3d4e5f60718293a4b5c6d7e8f90", "dirty": False},
    }
