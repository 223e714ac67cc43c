"""The tritonserver of an NVIDIA image (or of any host that has one), for TensorRT-LLM: one rank or many.

Finds programs and writes argument lists; starts nothing. What upstream's ``launch_triton_server.py`` does for the ranks
of an engine is done here, with an id, a log and shared memory of its own.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from enginebench.errors import ServerError
from enginebench.server.installation import Place, listening

SERVER = "ENGINEBENCH_TRITONSERVER"
MPIRUN = "ENGINEBENCH_MPIRUN"
"""Environment: a tritonserver, and a command in place of ``mpirun``."""

IN_IMAGES = Path("/opt/tritonserver/bin/tritonserver")
CORE = "tensorrt_llm"

_INTO_LOG = 'log=$1; shift; exec "$@" >>"$log" 2>&1'


@dataclass(frozen=True, slots=True)
class ImageTriton:
    """A tritonserver that serves an engine of ``ranks`` ranks."""

    binary: Path
    mpirun: str | None = None  # None: the server is started without it
    ranks: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)  # beyond ours
    ready_timeout_s: ClassVar[float] = 1800.0  # a large engine on a slow disk
    stop_grace_s: ClassVar[float] = 10.0

    def prepare(self, scratch: Path) -> Mapping[str, str]:  # noqa: ARG002 - the image has everything
        """Our environment; Open MPI is told by variables what other MPIs would not take as options."""
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**os.environ, **root, **self.environment}

    def command(self, place: Place) -> Sequence[str]:
        """``mpirun -n 1 SERVER … : -n 1 SERVER …``; all ranks but the first load the core alone, and never listen."""
        if self.mpirun is None:
            return self._rank(place, 0)
        if self.ranks == 1:
            return [self.mpirun, "-n", "1", *self._rank(place, 0)]
        words = [self.mpirun]
        for rank in range(self.ranks):
            log = ["/bin/sh", "-c", _INTO_LOG, "sh", str(place.rank_log(rank))]
            words += [*([":"] if rank else []), "-n", "1", *log, *self._rank(place, rank)]
        return words

    def logs(self, place: Place) -> Sequence[Path]:
        """The log of the program that is started, then those of the ranks."""
        return [place.log, *(place.rank_log(rank) for rank in range(self.ranks) if self.ranks > 1)]

    def _rank(self, place: Place, rank: int) -> list[str]:
        only_core = ["--model-control-mode=explicit", f"--load-model={CORE}"] if rank else []
        memory = f"--backend-config=python,shm-region-prefix-name={place.name}r{rank}_"
        return [str(self.binary), *listening(place), *only_core, memory]


def find_image(ranks: int, *, backend: str, with_mpi: bool = True, python: str = sys.executable) -> ImageTriton:
    """The tritonserver of this machine that has ``backend`` (``tensorrtllm``, ``python``).

    ``with_mpi``: the engine's ranks are started here; TensorRT-LLM's LLM API starts its own. ``python``: the
    interpreter that has what the models import.

    Raises:
        ServerError: there is none, it lacks the backend, or mpirun is missing for several ranks.
    """
    binary = _server()
    directory = binary.resolve().parent.parent / "backends" / backend
    if not directory.is_dir():
        raise ServerError(
            f"The tritonserver at {binary} has no backend {backend} ({directory} is missing): run enginebench in an "
            "image tritonserver:*-trtllm-python-py3, or attach to a running server with --triton-url."
        )
    if not with_mpi:
        return ImageTriton(binary, environment=_finding(python))
    mpirun = shutil.which(os.environ.get(MPIRUN, "mpirun"))
    if mpirun is None and ranks > 1:
        raise ServerError(
            f"The engine needs {ranks} ranks, and there is no {os.environ.get(MPIRUN, 'mpirun')}: install Open MPI, or "
            f"set {MPIRUN}."
        )
    return ImageTriton(binary, mpirun, ranks, _finding(python))


def _finding(python: str) -> Mapping[str, str]:
    """Triton's stubs take their packages from the first ``python3`` on PATH: not from ours, where that is another."""
    directory = Path(shutil.which(python) or python).absolute().parent
    if directory == Path(sys.executable).absolute().parent:
        return {}
    return {"PATH": os.pathsep.join([str(directory), os.environ.get("PATH", os.defpath)])}


def _server() -> Path:
    named = os.environ.get(SERVER)
    found = shutil.which(named or str(IN_IMAGES)) or (None if named else shutil.which("tritonserver"))
    if found is None:
        where = f"{SERVER}={named} is no program" if named else f"neither {IN_IMAGES} nor one on PATH"
        raise ServerError(
            f"There is no tritonserver here ({where}): run enginebench in an image tritonserver:*-trtllm-python-py3, "
            "attach to a running server with --triton-url, or measure --path direct alone."
        )
    return Path(found)
