"""Virtual environments with numpy and the stand-in of one TensorRT-LLM version, and nothing else."""

import venv
from pathlib import Path

import numpy as np

from tests.support.trtllm import install

ROOT = Path(__file__).parents[2]


def make_interpreter(place: Path, version: str) -> str:
    """Make one at ``place``; return its interpreter."""
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    numpy = Path(np.__file__).parent
    for part in (numpy, numpy.with_name("numpy.libs")):
        if part.exists():
            (packages / part.name).symlink_to(part)
    install.write(version, packages, ROOT)
    return str(place / "bin" / "python")
