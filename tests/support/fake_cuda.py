"""Stands for the CUDA driver, as far as a capture range needs it: ``cuProfilerStart`` leaves ``FAKE_NSYS_RANGE``."""

import shutil
import subprocess
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

SOURCE = """
#include <stdio.h>
#include <stdlib.h>
int cuProfilerStart(void) {
    const char *path = getenv("FAKE_NSYS_RANGE");
    FILE *file = path ? fopen(path, "w") : NULL;
    return file ? fclose(file) : 0;
}
int cuProfilerStop(void) { return 0; }
"""


def driver_in(directory: Path) -> str:
    """Make libcuda.so.1 in ``directory``; the LD_LIBRARY_PATH on which it is found."""
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(library), "-"]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return str(directory)
