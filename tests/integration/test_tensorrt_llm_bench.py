"""``pytest bench/`` on TensorRT-LLM builds, each in its own interpreter, with the stand-in for the library."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.bench_project import ROOT, BenchProject
from tests.support.engine_dirs import current_config, write_current
from tests.support.interpreters import make_interpreter

SCENARIO = """
description: Two short answers.
prompts: [a letter, and another]
output_tokens: [8]
batch_sizes: [2]
streaming: [true]
rounds: 2
"""


@pytest.fixture
def project(tmp_path: Path) -> BenchProject:
    project = BenchProject.make(tmp_path / "project")
    project.write_scenario("tiny", SCENARIO)
    return project


def option(tmp_path: Path, name: str, version: str) -> str:
    engine = write_current(tmp_path / name, current_config(version))
    tokenizer = tmp_path / f"tokenizer-{name}"
    tokenizer.mkdir()
    (tokenizer / "standin.json").write_text(json.dumps({}))
    python = make_interpreter(tmp_path / f"venv-{name}", version)
    (packages,) = (tmp_path / f"venv-{name}").glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "tests/support/standins/transformers", packages / "transformers")
    return f"{name}={engine},python={python},tokenizer={tokenizer}"


@pytest.mark.parametrize(("version", "adapter"), [("0.13.0", "executor"), ("1.2.0rc2", "llm_api")])
def test_an_engine_is_measured_in_its_own_interpreter_and_reuse_gets_a_session_of_its_own(
    project: BenchProject, tmp_path: Path, version: str, adapter: str
) -> None:
    project.write_scenario("warm", SCENARIO + "kv_cache_reuse: true\n")
    done = project.bench(
        *("--build", option(tmp_path, "fp16", version), "--scenario", "tiny", "--scenario", "warm"),
        *("--path", "direct", "--engine", "kv_cache_tokens=4096", "--engine", "chunked_context=on"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = project.run()
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    for cell in run.cells.values():
        assert cell["status"] == "measured"
        assert cell["metrics"]["ttft"]["summary"]["p50"] > 0
        engine = cell["engine"]
        assert engine["iterations"]["count"] > 0
        if version == "1.2.0rc2":  # before, results do not show the engine's stamps
            assert (engine["source"], engine["told"], engine["requests"]) == ("perf metrics", 4, 4)
            assert engine["queue"]["p50"] > 0
            assert "waiting for a batch slot" in page
        else:
            assert (engine["told"], engine["queue"]) == (0, None)
    assert run.data["plan"]["engine"] == {"kv_cache_tokens": 4096, "chunked_context": True}
    facts = [session["facts"] for session in run.data["sessions"]]
    assert {(each["adapter"], each["tensorrt_llm"]) for each in facts} == {(adapter, version)}
    settings = [each["settings"] for each in facts]
    assert [each["kv_cache_reuse"] for each in settings] == [False, True]
    assert {(each["kv_cache_tokens"], each["kv_cache_fraction"], each["chunked_context"]) for each in settings} == {
        (4096, None, True)
    }


def test_the_reference_engine_has_no_such_settings(project: BenchProject) -> None:
    done = project.bench("--scenario", "tiny", "--path", "direct", "--engine", "kv_cache_tokens=4096")
    assert done.returncode == 4
    assert "--engine kv_cache_tokens=4096 cannot be told to build reference" in done.stderr


def test_a_reference_cell_that_wants_reuse_is_not_applicable(project: BenchProject) -> None:
    project.write_scenario("warm", SCENARIO + "kv_cache_reuse: true\n")
    done = project.bench("--scenario", "tiny", "--scenario", "warm", "--path", "direct")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(cell["status"] for cell in project.run().data["cells"].values()) == ["measured", "not_applicable"]
