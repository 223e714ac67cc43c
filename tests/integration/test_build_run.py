"""``enginebench build run`` with a stand-in for TensorRT-LLM's commands: real processes, directories and records."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import read_build
from enginebench.builds.builder import LOG, RECORD, build_all, is_built
from enginebench.builds.spec import Spec, read_spec
from enginebench.cli import main
from enginebench.errors import BuildError

FAKE = Path(__file__).parents[1] / "support" / "fake_trtllm.py"


class Project:
    """A spec of two engines that share no checkpoint, and what the stand-in was asked."""

    def __init__(self, directory: Path):
        self.out = directory / "engines"
        self.log = directory / "commands.log"
        self.file = directory / "spec.yaml"
        self.write()

    def write(self, **changes: Any) -> None:
        """Write the spec, as JSON, which is YAML."""
        spec: dict[str, Any] = {
            "model": "/models/chatglm3-6b",
            "out": str(self.out),
            "script": str(FAKE),
            "python": sys.executable,
            "trtllm_build": f"{sys.executable} {FAKE} trtllm-build",
            "container": "env INSIDE=1",
            "convert": {"dtype": "float16"},
            "build": {"gemm_plugin": "float16", "max_batch_size": 8},
            "engines": {"fp16": {}, "int8": {"convert": {"use_weight_only": True}}},
        }
        self.file.write_text(json.dumps(spec | changes), encoding="utf-8")

    def spec(self) -> Spec:
        return read_spec(self.file)

    def asked(self) -> list[str]:
        """The commands so far, by their first word."""
        return [line.split()[0] for line in self.log.read_text().splitlines()] if self.log.is_file() else []

    def build(self, peak: Callable[[int], int | None] = lambda _: None) -> list[str]:
        said: list[str] = []
        build_all(self.spec(), peak, said.append)
        return said

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / name / RECORD).read_text())
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = Project(tmp_path)
    monkeypatch.setenv("FAKE_TRTLLM_LOG", str(made.log))
    script = tmp_path / "convert_checkpoint.py"  # the stand-in needs a word that says what it is
    script.write_text(
        f"import runpy, sys\nsys.argv[1:1] = ['convert']\nrunpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
    )
    made.write(script=str(script))
    return made


def test_engines_and_their_records(project: Project) -> None:
    project.build(lambda _: 12345)
    assert project.asked() == ["convert", "trtllm-build"] * 2
    record = project.record("int8")
    build = read_build("int8", project.out / "int8")
    assert (build.quantisation, build.limits.max_batch_size) == ("W8A16", 8)
    assert record["fingerprint"] == build.fingerprint
    assert (record["tensorrt_llm"], record["engine_bytes"], record["rank_bytes"]) == ("0.16.0", 7, [7])
    assert record["versions"]["python"].startswith("3.")
    convert, trtllm_build = record["commands"]
    assert convert["argv"][:3] == ["env", "INSIDE=1", sys.executable]
    assert trtllm_build["argv"][-2:] == ["--max_batch_size", "8"]
    assert trtllm_build["gpu_peak_bytes"] == 12345
    assert trtllm_build["wall_s"] > 0
    assert "the stand-in builds nothing" in (project.out / "int8" / LOG).read_text()
    assert not list(project.out.glob(".*.partial"))


def test_what_is_there_is_kept_and_what_is_missing_is_built(project: Project) -> None:
    project.build()
    before = (project.out / "fp16" / RECORD).read_bytes()
    (project.out / "int8").rename(project.out.parent / "elsewhere")
    said = project.build()
    assert project.asked() == ["convert", "trtllm-build"] * 2 + ["trtllm-build"]
    assert said[0].startswith("fp16: there already")
    assert (project.out / "fp16" / RECORD).read_bytes() == before
    assert project.build()[1].startswith("int8: there already")


def test_another_engine_of_that_name_is_never_overwritten(project: Project) -> None:
    project.build()
    project.write(script=project.spec().script, build={"max_batch_size": 64})
    with pytest.raises(BuildError, match=r"holds something other than the engine fp16 .* never overwritten"):
        project.build()
    assert read_build("fp16", project.out / "fp16").limits.max_batch_size == 8


def test_a_directory_of_somebody_else_is_never_overwritten(project: Project) -> None:
    (project.out / "fp16").mkdir(parents=True)
    assert not is_built(project.spec(), project.spec().engines[0])
    (project.out / "fp16" / "thesis.tex").write_text("years of work")
    with pytest.raises(BuildError, match="never overwritten"):
        project.build()
    assert project.asked() == []


def test_an_engine_that_fails_says_why_and_the_others_are_built(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRTLLM_FAIL", ".fp16.partial")
    with pytest.raises(BuildError, match=r"^fp16: env ended with exit code 3 \(.*CUDA out of memory\): read .*log"):
        project.build()
    assert not (project.out / "fp16").exists()
    assert (project.out / "int8" / "rank0.engine").is_file()
    monkeypatch.delenv("FAKE_TRTLLM_FAIL")
    project.build()
    assert (project.out / "fp16" / "rank0.engine").is_file()
    assert project.asked().count("convert") == 2


def test_a_conversion_that_fails_is_not_tried_again_for_the_next(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(script=project.spec().script, matrix={"max_batch_size": [8, 64]}, engines={"fp16": {}})
    monkeypatch.setenv("FAKE_TRTLLM_FAIL", "convert")
    with pytest.raises(BuildError, match="the conversion that it shares with another engine failed"):
        project.build()
    assert project.asked() == ["convert"]


def test_the_old_layout(project: Project) -> None:
    script = project.file.parent / "build.py"
    script.write_text(
        f"import runpy, sys\nsys.argv[1:1] = ['build.py']\nrunpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
    )
    engines = {"fp16": {"build": {"model_name": "chatglm3_6b", "paged_kv_cache": True}}}
    project.write(layout="build.py", script=str(script), convert={}, build={}, engines=engines)
    project.build()
    build = read_build("fp16", project.out / "fp16")
    assert (build.layout, build.inflight_off) == ("builder_config", None)
    assert len(project.record("fp16")["commands"]) == 1


def test_two_runs_at_once(project: Project) -> None:
    project.out.mkdir()
    with (project.out / ".enginebench-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BuildError, match="is at work in"):
            project.build()


def test_an_interpreter_that_does_not_start(project: Project) -> None:
    project.write(python="/nowhere/python")
    with pytest.raises(BuildError, match=r"/nowhere/python cannot be asked what it has installed"):
        project.build()


def test_dry_run_prints_a_script_and_runs_nothing(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "run", "--dry-run", str(project.file)]) == 0
    printed = capsys.readouterr().out
    assert project.asked() == []
    assert not project.out.exists()
    assert printed.count("\nmv ") == 4
    assert printed.startswith("# fp16\nenv INSIDE=1 ")
    (project.out / "checkpoints").mkdir(parents=True)
    for directory in (project.out / "checkpoints", project.out):  # as convert_checkpoint.py and trtllm-build do
        for word in printed.split():
            if word.endswith(".partial") and Path(word).parent == directory:
                Path(word).mkdir(exist_ok=True)
    subprocess.run(["sh", "-e"], input=printed, text=True, check=True, stdout=subprocess.DEVNULL)
    assert read_build("int8", project.out / "int8").quantisation == "W8A16"


def test_the_command(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "run", str(project.file)]) == 0
    assert f"fp16: {project.out / 'fp16'}, 0.00 GiB" in capsys.readouterr().out
    assert main(["build", "run", str(project.file)]) == 0
    assert capsys.readouterr().out.count("there already") == 2


def test_ctrl_c_ends_the_command_and_leaves_no_engine(project: Project) -> None:
    slow = project.file.parent / "slow.sh"
    slow.write_text(f"echo $$ > {project.log}; exec sleep 600\n")
    project.write(trtllm_build=f"sh {slow}", script=project.spec().script)
    project.log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "enginebench.cli", "build", "run", str(project.file)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (project.log.is_file() and project.log.read_text().strip().isdigit()):
        assert run.poll() is None
        time.sleep(0.05)
    slow_pid = int(project.log.read_text())
    run.send_signal(signal.SIGINT)
    assert run.wait(120) == 130
    with pytest.raises(ProcessLookupError):
        os.kill(slow_pid, 0)
    assert not (project.out / "fp16").exists()
