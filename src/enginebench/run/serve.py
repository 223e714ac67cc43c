"""Serve a build with Triton until the user has had enough: for ``--triton-url`` and for other clients."""

import tempfile
import time
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.server.launch import TritonServer
from enginebench.server.repository import write_reference_repository

CHECK_EVERY_S = 0.5


def serve(build: Build, http_port: int | None, bls_instances: int) -> None:
    """Serve ``build`` on 127.0.0.1 until Ctrl-C.

    Raises:
        ServerError: the server cannot be started, or dies.
    """
    with tempfile.TemporaryDirectory(prefix="enginebench-serve-") as scratch:
        repository = Path(scratch) / "model_repository"
        write_reference_repository(build, repository, bls_instances=bls_instances)
        with TritonServer.start(repository, Path(scratch), http_port) as server:
            print(f"{server.url} serves build {build.name} (log: {server.log_path}); Ctrl-C ends it.", flush=True)
            while True:
                time.sleep(CHECK_EVERY_S)
                server.check_alive()
