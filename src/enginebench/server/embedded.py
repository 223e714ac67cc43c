"""The real Triton server of the ``nvidia-pytriton`` wheel: where its parts lie, and what must hold for it to run.

Reads the installed packages and writes a backend directory; starts nothing, and does not import pytriton.
"""

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from enginebench.errors import ServerError
from enginebench.server.installation import Place, listening

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
NEWEST_PYTHON = (3, 12)
OLDEST_GLIBC = (2, 35)
MODELS_IMPORT = ("enginebench", "numpy", "array_api_compat")
ATTACH = "or attach to a running server with --triton-url"


@dataclass(frozen=True, slots=True)
class EmbeddedTriton:
    """The parts of the wheel that a server needs, for the Python that runs this."""

    binary: Path
    python_backend: Path  # directory with libtriton_python.so and triton_python_backend_utils.py
    stub: Path  # the process that runs a model.py
    libraries: Path  # what the binary was linked with
    libpython: Path  # directory of the shared library that the stub needs
    version: str  # of the wheel
    ready_timeout_s: ClassVar[float] = 120.0
    stop_grace_s: ClassVar[float] = 2.0  # an orderly unload takes over a second for each BLS instance and saves nothing

    def prepare(self, scratch: Path) -> Mapping[str, str]:
        """Write backends and a Python for the models into ``scratch``; return the server's environment."""
        write_backends(self, scratch / "backends")
        write_python_home(scratch / "python")
        return server_environment(self, scratch / "python")

    def command(self, place: Place) -> Sequence[str]:
        """The server with the python backend alone; GPU and CPU gauges are not its business."""
        return [
            str(self.binary),
            *listening(place),
            f"--backend-directory={place.scratch / 'backends'}",
            "--allow-gpu-metrics=false",
            "--allow-cpu-metrics=false",
            f"--backend-config=python,shm-region-prefix-name={place.name}",
        ]

    def logs(self, place: Place) -> Sequence[Path]:
        """One file."""
        return [place.log]


def find_embedded() -> EmbeddedTriton:
    """Locate the embedded server.

    Raises:
        ServerError: this Python, its libraries or the installed packages cannot run it; the sentence says what to do.
    """
    _check_python(sys.version_info[:2])
    _check_glibc(*platform.libc_ver())
    package = _package_directory("pytriton")
    if package is None:
        raise ServerError(
            "The embedded Triton server is not installed: pip install 'enginebench[embedded]' "
            f"(Linux with glibc 2.35 or newer), {ATTACH}."
        )
    _check_numpy(importlib.metadata.version("numpy"))
    return _parts(package)


def write_backends(embedded: EmbeddedTriton, directory: Path) -> None:
    """Make the backend directory that ``tritonserver --backend-directory`` wants: links to the wheel and one stub."""
    python = directory / "python"
    python.mkdir(parents=True)
    for file in ("libtriton_python.so", "triton_python_backend_utils.py"):
        (python / file).symlink_to(embedded.python_backend / file)
    (python / "triton_python_backend_stub").symlink_to(embedded.stub)


def write_python_home(directory: Path) -> None:
    """Make a virtual environment of links that holds what the models import, and nothing else.

    The stub embeds Python with the settings of an isolated interpreter: it ignores PYTHONPATH, finds its packages
    through the first ``python3`` on PATH, and takes file names to be ASCII, which a home directory need not be.
    """
    base = Path(sys.base_prefix) / "bin" / f"python{PYTHON}"
    site_packages = directory / "lib" / f"python{PYTHON}" / "site-packages"
    site_packages.mkdir(parents=True)
    for name in MODELS_IMPORT:
        package = _package_directory(name)
        if package is None:
            raise ServerError(f"Triton's models need the package {name}: pip install 'enginebench[embedded]'.")
        (site_packages / name).symlink_to(package.resolve())
    (directory / "bin").mkdir()
    (directory / "bin" / "python3").symlink_to(base)
    (directory / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")


def server_environment(embedded: EmbeddedTriton, python_home: Path) -> dict[str, str]:
    """The environment of the server and its stubs: ours, with ``python_home`` first on PATH and the stub's library.

    One BLAS thread a process: models and measuring client share the cores.
    """
    libraries = [str(embedded.libpython), str(embedded.libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {
        "PATH": os.pathsep.join([str(python_home / "bin"), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _check_python(version: tuple[int, ...]) -> None:
    if version > NEWEST_PYTHON or platform.python_implementation() != "CPython":
        found = f"{platform.python_implementation()} {'.'.join(map(str, version))}"
        raise ServerError(
            f"The embedded Triton server needs CPython 3.10 to 3.12 and this is {found}: "
            f"make the virtual environment with one of those, {ATTACH}."
        )


def _check_glibc(name: str, version: str) -> None:
    if name != "glibc" or tuple(map(int, version.split("."))) < OLDEST_GLIBC:
        raise ServerError(
            f"The embedded Triton server needs Linux with glibc 2.35 or newer and this system has "
            f"{f'{name} {version}'.strip() or 'another C library'}: use a newer distribution, {ATTACH}."
        )


def _check_numpy(version: str) -> None:
    if int(version.partition(".")[0]) >= 2:
        raise ServerError(
            f"Triton's python backend reads strings wrongly under numpy 2 and this environment has numpy {version}: "
            "pip install 'enginebench[embedded]' brings one below 2."
        )


def _package_directory(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _parts(package: Path) -> EmbeddedTriton:
    root = package / "tritonserver"
    found = EmbeddedTriton(
        binary=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        libraries=package.parent / "nvidia_pytriton.libs",
        libpython=_libpython_directory(),
        version=importlib.metadata.version("nvidia-pytriton"),
    )
    for part in (found.binary, found.python_backend, found.stub, found.libraries):
        if not part.exists():
            raise ServerError(
                f"The embedded Triton server lacks {part}: pip install --force-reinstall 'nvidia-pytriton>=0.7,<0.8'."
            )
    return found


def _libpython_directory() -> Path:
    """Where libpython lies; the loader's own directories count too (Debian's libpython package)."""
    name = f"libpython{PYTHON}.so.1.0"
    libdir = sysconfig.get_config_var("LIBDIR") or ""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    for directory in (Path(libdir), Path(libdir) / multiarch, Path(sys.base_prefix) / "lib"):
        if (directory / name).is_file():
            return directory
    if ctypes.util.find_library(f"python{PYTHON}"):
        return Path(libdir)
    raise ServerError(
        f"Triton's python backend needs {name}, which this Python ({sys.base_prefix}) was built without: "
        f"install the system's libpython{PYTHON} package or a Python built with --enable-shared, {ATTACH}."
    )
