"""Imports go one way, and heavy or foreign libraries stay in their rooms."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "enginebench"

# From the ground up: a room imports only rooms of lower storeys, and never one of its own storey but itself.
STOREYS = [
    {"errors", "clock"},
    {"plan"},
    {"builds", "reference"},
    {"runtimes"},
    {"server"},
    {"measure"},
    {"environment", "files", "run_lookup"},
    {"store_tables", "record"},
    {"store", "store_profiles", "worker"},
    {"decide"},
    {"report"},
    {"run"},
    {"profile"},
    {"doctor"},
    {"bench_options", "bench_plan"},
    {"cli", "pytest_plugin"},
]
# Doors between two rooms of one storey.
DOORS = {
    ("reference", "builds"),
    ("builds.tokenizer", "reference.tokenizer"),
}
# Only these modules know these libraries.
KEEPERS = {
    "pytest": {"pytest_plugin"},
    "pytest_benchmark": set(),
    "plotly": {"report.charts"},
    "pynvml": {"measure.nvml"},
    "tritonclient": {"server.control"},
    "transformers": {"builds.hf_tokenizer"},
    "tensorrt_llm": set(),
    "pyarrow": {"store_tables"},
    "pydantic": {
        "plan.scenario",
        "plan.keys",
        "plan.load_keys",
        "plan.prompt_keys",
        "record.kinds",
        "record.cells",
        "record.run",
    },
    "httptools": {"runtimes.http_connection"},
    "torch": {"reference.torch_ops", "reference.cuda"},
    "mpi4py": {"measure.ranks", "runtimes.tensorrt_llm.all_ranks"},
}


MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


@cache
def imports(name: str) -> tuple[str, ...]:
    """What the module ``name`` imports, wherever in it."""
    return tuple(_imports(ast.parse(MODULES[name].read_text())))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def storey(room: str) -> int:
    return next(level for level, rooms in enumerate(STOREYS) if room in rooms)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    if name == "__init__":
        return
    room = name.split(".", maxsplit=1)[0]
    for imported in imports(name):
        if not imported.startswith("enginebench."):
            continue
        target = imported.removeprefix("enginebench.")
        other = target.split(".")[0]
        allowed = other == room or storey(other) < storey(room) or (room, other) in DOORS or (name, target) in DOORS
        assert allowed, f"{name} imports {imported}, which lies on a storey above or beside it"


@pytest.mark.parametrize("name", MODULES)
def test_libraries_stay_in_their_rooms(name: str) -> None:
    for imported in imports(name):
        library = imported.split(".")[0]
        assert name in KEEPERS.get(library, {name}), f"{name} imports {library}; only {KEEPERS[library]} may"


def test_collecting_the_bench_imports_nothing_heavy() -> None:
    root = SOURCE.parents[1]
    command = [sys.executable, "-X", "importtime", "-m", "pytest", "bench/", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 0, done.stdout
    assert imported.isdisjoint({"plotly", "tritonclient", "pyarrow", "torch", "tensorrt_llm", "scipy", "pynvml"})
