"""What can be known of the images without an engine for them: two linters, and that files and options exist."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
ENVIRONMENT = {**os.environ, "BUILD": "fp16=/engines/fp16", "TOKENIZER": "/models/chatglm3-6b"}


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_the_dockerfile_passes_its_linter() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = run(str(hadolint), "--config", "docker/.hadolint.yaml", "docker/Dockerfile")
    assert done.returncode == 0, done.stdout


def test_compose_reads_its_file() -> None:
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("docker-compose is not installed (.ci/run installs it)")
    done = run(compose, "--file", str(COMPOSE), "config")
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert "fp16=/engines/fp16,python=/usr/bin/python3" in services["server"]["command"]
    assert services["bench"]["depends_on"] == {"server": {"condition": "service_healthy"}}


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    assert set(copied) == kept
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize(
    ("service", "key", "asked"),
    [("server", "command", ["enginebench.cli", "serve"]), ("bench", "entrypoint", ["pytest", "bench/"])],
)
def test_commands_use_options_that_exist(service: str, key: str, asked: list[str]) -> None:
    command = yaml.safe_load(COMPOSE.read_text())["services"][service][key]
    words = command.split() if isinstance(command, str) else command
    known = run(sys.executable, "-m", *asked, "--help").stdout
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert options
    assert {option for option in options if option not in known} == set()
