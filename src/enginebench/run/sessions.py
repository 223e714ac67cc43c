"""The worker, and for server paths the Triton server, that stand behind the cell at hand.

At most one engine is loaded at a time: cells arrive sorted by path, cells of one path share a worker, and the server paths
share a server. What each session cost, in time and memory, is kept for the run's record.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import tokenizer_spec
from enginebench.errors import EnginebenchError, ServerError
from enginebench.measure.lease import GpuLease
from enginebench.measure.telemetry import Telemetry
from enginebench.measure.worker_process import Worker
from enginebench.server.control import attach
from enginebench.server.launch import TritonServer
from enginebench.server.repository import write_reference_repository

MODELS = {"core": "tensorrt_llm", "ensemble": "ensemble", "bls": "tensorrt_llm_bls"}
READY_TIMEOUT_S = 120.0


class Sessions:
    """Opens, shares and closes the ways to one build."""

    def __init__(self, build: Build, directory: Path, telemetry: Telemetry, connections: int, url: str | None = None):
        self._build = build
        self._directory = directory  # the run's: logs/ and the model repository land there
        self._telemetry = telemetry
        self._connections = connections
        self._url = url
        self._lease: GpuLease | None = None
        self._server: TritonServer | None = None
        self._worker: Worker | None = None
        self._path: str | None = None
        self.records: list[dict[str, Any]] = []  # the entries of "sessions" in run.json
