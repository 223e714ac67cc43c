"""Putting the stand-in of a version where ``import tensorrt_llm`` finds it: in this process, or in another's path."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from . import torch
from .behaviours import BEHAVIOURS
from .strict import VIOLATIONS, Missing, Strict, make_class

HERE = Path(__file__).parent
SIGNATURES = Path("src/enginebench/runtimes/tensorrt_llm/signatures.json")


class StrictModule(Missing, ModuleType):
    """A module that refuses what its version lacks."""


def modules(version: str, signatures: Path) -> dict[str, ModuleType]:
    """The modules of ``version`` by their full names."""
    described = _versions(signatures)[version]
    world: dict[str, Any] = {}
    for key, spec in described["classes"].items():
        name = key.rpartition(".")[2].partition("(")[0]
        bases = BEHAVIOURS.get(key, ())
        world[key] = make_class(name, spec, (*bases, Strict) if Strict not in bases else bases)
        if spec["kind"] != "enum":
            type.__setattr__(world[key], "_world", world)
    made: dict[str, ModuleType] = {}
    _module(made, "tensorrt_llm").__dict__["__version__"] = version
    for path, key in described["names"].items():
        place, _, name = path.rpartition(".")
        _module(made, place).__dict__[name] = world[key]
    made["torch"] = torch.module()
    return made


@cache
def _versions(signatures: Path) -> dict[str, Any]:
    return dict(json.loads(signatures.read_text(encoding="utf-8"))["versions"])


def _module(made: dict[str, ModuleType], name: str) -> ModuleType:
    if name not in made:
        made[name] = StrictModule(name)
        made[name].__path__ = []  # a package: submodules may follow
        parent, _, last = name.rpartition(".")
        if parent:
            _module(made, parent).__dict__[last] = made[name]
    return made[name]


@contextmanager
def installed(version: str, root: Path) -> Iterator[None]:
    """Let this process import the stand-in of ``version``; afterwards, fail on any violation."""
    VIOLATIONS.clear()
    ours = modules(version, root / SIGNATURES)
    before = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(ours)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)
    assert not VIOLATIONS, "\n".join(VIOLATIONS)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("tensorrt_llm", "torch")


def write(version: str, directory: Path, root: Path) -> None:
    """Write the stand-in into ``directory``, for an interpreter that has it on its path."""
    shutil.copytree(HERE, directory / "trtllm_standin", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / SIGNATURES, directory / "trtllm_standin" / "signatures.json")
    package = directory / "tensorrt_llm"
    package.mkdir()
    loader = (
        "import pathlib, sys\n"
        "from trtllm_standin.install import modules\n"
        f"made = modules({version!r}, pathlib.Path(sys.modules['trtllm_standin'].__path__[0]) / 'signatures.json')\n"
        "sys.modules.update(made)\n"
    )
    (package / "__init__.py").write_text(loader, encoding="utf-8")
