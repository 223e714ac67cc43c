"""The doctor as a user calls it: it says what is there, what would drive a build, and what does not work."""

import json
import zipfile
from pathlib import Path

import pytest

from enginebench.cli import main
from tests.support.engine_dirs import current_config, write_current
from tests.support.interpreters import make_interpreter


def test_without_a_build_it_looks_at_the_machine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "Machine" in said
    assert "has no module tensorrt_llm" in said
    assert not list(tmp_path.iterdir())


def test_a_build_is_held_to_the_signatures_and_answers_a_canary(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine = write_current(tmp_path / "fp16", current_config("0.16.0"))
    python = make_interpreter(tmp_path / "venv", "0.16.0")
    bundle = tmp_path / "out" / "bundle.zip"
    assert main(["doctor", "--build", f"fp16={engine},python={python}", "--bundle", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "tensorrt_llm 0.16.0, held against what is known of 0.16.0: no differences" in said
    assert "adapter llm_api: its LLM runs engines" in said
    assert "a canary of two tokens came back" in said
    assert "the embedded server" not in said
    with zipfile.ZipFile(bundle) as packed:
        assert {"report.txt", "report.json", "canary.log"} <= set(packed.namelist())
        data = json.loads(packed.read("report.json"))
    assert len(data["canary"]["token_ids"]) == 2
    assert data["interpreter"]["signatures"]["held_against"] == "0.16.0"


def test_a_build_that_cannot_run_is_said_with_the_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engine = write_current(tmp_path / "fp16", current_config("0.13.0"))
    python = make_interpreter(tmp_path / "venv", "1.2.0rc2")
    bundle = tmp_path / "bundle.zip"
    assert main(["doctor", "--build", f"fp16={engine},python={python}", "--bundle", str(bundle)]) == 1
    assert "built by TensorRT-LLM 0.13.0" in capsys.readouterr().out
    assert bundle.exists()


def test_an_interpreter_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engine = write_current(tmp_path / "fp16")
    arguments = ["doctor", "--build", f"fp16={engine},python=/no/python", "--bundle", str(tmp_path / "bundle.zip")]
    assert main(arguments) == 1
    assert "/no/python cannot be asked" in capsys.readouterr().out
