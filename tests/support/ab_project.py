"""A project with two small reference builds, and the command line of enginebench in processes of its own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.store import Run, load_run

ROOT = Path(__file__).parents[2]
SMALL = {"layers": 1, "hidden": 32, "heads": 2, "kv_heads": 1, "ffn": 32, "vocab_size": 600}
SCENARIO = """
prompts: [你是谁？, Hello!]
output_tokens: 8
batch_sizes: [2]
rounds: 1
warmup_rounds: 0
paths: [direct]
"""
GATED = f"""{SCENARIO}
requests: 4
gate: {{cell: direct-stream-out0008-bs002, metric: itl_p50, margin: 50%}}
"""
CELL = "tiny-direct-stream-out0008-bs002"
GATED_CELL = "gated-direct-stream-out0008-bs002"


@dataclass(frozen=True, slots=True)
class AbProject:
    """``builds/old`` and ``builds/equal`` take 10 ms a step, ``builds/slow`` 40: a busy machine does not hide that."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "AbProject":
        (root / "scenarios").mkdir(parents=True)
        for name, text in (("tiny", SCENARIO), ("gated", GATED)):
            (root / "scenarios" / f"{name}.yaml").write_text(text, encoding="utf-8")
        for folder in ("bench", "docs/ci"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / file, root / file)
        for name, step_ms in (("old", 10.0), ("equal", 10.0), ("slow", 40.0)):
            write_build(ReferenceOptions(min_step_ms=step_ms, **SMALL), root / "builds" / name)  # type: ignore[arg-type]
        return cls(root)

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self._do([sys.executable, "-m", "enginebench.cli", *arguments])

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "enginebench.cli", *arguments]
        return subprocess.Popen(command, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def recipe(self, name: str, job: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        script = ROOT / "scripts" / "ci-recipe"
        return self._do([sys.executable, str(script), f"docs/ci/{name}", job], variables)

    def runs(self) -> list[Path]:
        return sorted(file.parent for file in (self.root / "reports" / "runs").glob("*/run.json"))

    def sides(self) -> tuple[Run, Run]:
        """The old and the new run of the only A/B measurement."""
        found = {run.data["ab"]["side"]: run for run in map(load_run, self.runs())}
        return found["old"], found["new"]

    def _do(self, command: list[str], variables: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "PYTEST_"))}
        return subprocess.run(
            command, cwd=self.root, env={**environment, **(variables or {})}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
