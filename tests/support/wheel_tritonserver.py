"""A ``tritonserver`` that looks like an image's and is the wheel's: whatever asks for TensorRT-LLM gets the stand-ins.

It puts the core on the python backend, which is all that the wheel has, and becomes the real server.
"""

import os
import sys
from pathlib import Path

from enginebench.server.embedded import find_embedded
from tests.support.fake_tritonserver import ROOT, option
from tests.support.templates import for_the_wheel

SCRATCH = "WHEEL_TRITON_SCRATCH"


def write(directory: Path) -> Path:
    """Install it under ``directory``; return the program."""
    program = directory / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    head = f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    program.write_text(f"{head}from tests.support.wheel_tritonserver import main\nmain()\n")
    program.chmod(0o755)
    for backend in ("tensorrtllm", "python"):
        (directory / "backends" / backend).mkdir(parents=True)
    return program


def main() -> None:
    """Become the wheel's server."""
    wheel = find_embedded()
    scratch = Path(os.environ[SCRATCH]) / option(sys.argv, "id")
    environment = wheel.prepare(scratch)
    for_the_wheel(Path(option(sys.argv, "model-repository")))
    backends = f"--backend-directory={scratch / 'backends'}"
    os.execve(wheel.binary, [*sys.argv, backends, "--allow-gpu-metrics=false"], dict(environment))
