"""What is said about the machine: JSON, and None for what is not known."""

import json
import subprocess
from pathlib import Path

from enginebench.environment import environment


def test_it_is_json_and_says_what_matters(tmp_path: Path) -> None:
    facts = environment(tmp_path)
    json.dumps(facts, allow_nan=False)
    assert facts["cpu"]["usable_cores"] >= 1
    assert facts["memory_bytes"] > 2**20
    assert facts["packages"]["numpy"]
    assert facts["packages"]["enginebench"]
    assert (facts["gpus"] is None) == bool(facts["gpu_reason"])
    assert facts["git"] is None


def test_the_commit_is_that_of_the_directory(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    assert environment(tmp_path)["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "file").write_text("two")
    assert environment(tmp_path)["git"]["dirty"] is True
