"""Serve a build with Triton until the user has had enough: for ``--triton-url`` and for other clients."""

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from enginebench.builds.build import Build
from enginebench.measure.nvml import host_gpus
from enginebench.report.repository import repository_text
from enginebench.run.attached import OwnServer
from enginebench.run.direct import visible_gpus
from enginebench.run.managed import prepare

CHECK_EVERY_S = 0.5


def serve(
    build: Build,
    http_port: int | None,
    bls_instances: int,
    own: OwnServer | None = None,
    engine: Mapping[str, Any] | None = None,
) -> None:
    """Serve ``build`` on 127.0.0.1 until Ctrl-C; the first line on standard output names its URL.

    What the repository of a TensorRT-LLM build was filled with goes to standard error, before anything is started.

    Raises:
        BuildError: the build needs more GPUs than there are.
        ServerError: the server cannot be started, or dies.
    """
    gpus = visible_gpus(build, host_gpus()[0])
    prepared = prepare(build, bls_instances, own or OwnServer(), engine, gpus=gpus)
    if filled := prepared.as_json():
        print(f"{repository_text(filled)}\nStarting Triton; loading the engine …", file=sys.stderr, flush=True)
    scratch = Path(tempfile.mkdtemp(prefix="enginebench-serve-"))  # stays when the server fails: its log is there
    try:
        with prepared.start(scratch / "model_repository", scratch, http_port) as server:
            print(f"{server.url} serves build {build.name} (log: {server.log_path}); Ctrl-C ends it.", flush=True)
            while True:
                time.sleep(CHECK_EVERY_S)
                server.check_alive()
    except BaseException as end:
        if isinstance(end, KeyboardInterrupt) or not any(scratch.glob("*.log")):
            shutil.rmtree(scratch, ignore_errors=True)
        raise
