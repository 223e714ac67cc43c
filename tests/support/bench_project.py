"""A project of its own for tests that run ``pytest bench/`` as a user does, in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.store import Run, load_run

ROOT = Path(__file__).parents[2]


def environment() -> Mapping[str, str]:
    """That of this process without what pytest put there: the bench would take itself for a part of these tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


@dataclass(frozen=True, slots=True)
class BenchProject:
    """A directory with the bench, its conftest and the scenarios of this repository."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "BenchProject":
        for folder in ("bench", "scenarios"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / file, root / file)
        return cls(root)

    def command(self, *arguments: str) -> list[str]:
        """Without the plugin of browser tests, which users do not have and which is slow to import."""
        plugins = ("-p", "no:cacheprovider", "-p", "no:playwright")
        return [sys.executable, "-m", "pytest", "bench/", "--benchmark-only", *plugins, *arguments]

    def bench(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def write_scenario(self, name: str, text: str) -> None:
        (self.root / "scenarios" / f"{name}.yaml").write_text(text, encoding="utf-8")

    def runs(self) -> list[Path]:
        return sorted((self.root / "reports" / "runs").glob("*"))

    def run(self) -> Run:
        """The newest run."""
        return load_run(self.runs()[-1])


def output(done: "subprocess.CompletedProcess[str]") -> str:
    """Everything that a bench said."""
    return done.stdout + done.stderr


def answers(run: Run, cell_id: str) -> dict[tuple[int, int], tuple[int, ...]]:
    """The token ids that each request of a cell got, by (round, request); warm-up rounds have negative numbers."""
    ids: dict[tuple[int, int], tuple[int, ...]] = {}
    for record in run.rounds(cell_id):
        for request, chunk in zip(record.chunks.request.tolist(), record.chunks.ids(), strict=True):
            key = (record.round_index, request)
            ids[key] = ids.get(key, ()) + tuple(chunk.tolist())
    return ids
