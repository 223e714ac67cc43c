"""Looking at an interpreter from inside: what ``enginebench doctor`` runs under each build's own.

Prints one JSON object. Loads no engine, but imports tensorrt_llm. Standard library only.
"""

import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

from enginebench.errors import SessionError
from enginebench.runtimes.tensorrt_llm.adapter import choose
from enginebench.runtimes.tensorrt_llm.library import load, version
from enginebench.runtimes.tensorrt_llm.settings import settings_from
from enginebench.runtimes.tensorrt_llm.signatures import differences, nearest, versions

PACKAGES = ("numpy", "tensorrt_llm", "tensorrt", "torch", "transformers", "mpi4py")


def main() -> None:
    """Write what there is to standard output; ``argv[2]``: the options of a session as JSON, or "null"."""
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries print while they are imported
    found = inspected(json.loads(sys.argv[2]))
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(found, out)


def inspected(options: dict[str, Any] | None) -> dict[str, Any]:
    """What this interpreter has, and, with ``options``, which adapter would drive the build."""
    found: dict[str, Any] = {
        "executable": sys.executable,
        "python": platform.python_version(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "error": None,
        "signatures": None,
        "choice": None,
    }
    try:
        load()
    except SessionError as error:
        return {**found, "error": str(error)}
    return {**found, "signatures": _signatures(), "choice": _choice(options) if options else None}


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _signatures() -> dict[str, Any]:
    installed, known = version() or "0", versions()
    expected = nearest(installed, known)
    return {"installed": installed, "held_against": expected, "differences": differences(known[expected])}


def _choice(options: dict[str, Any]) -> dict[str, Any]:
    try:
        choice = choose(settings_from(options))
    except SessionError as error:
        return {"adapter": None, "why": str(error)}
    return {"adapter": choice.adapter, "why": choice.why}
