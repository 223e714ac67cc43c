"""``pytest bench/``: what a user asks for, also what cannot be."""

import shlex
import subprocess

import pytest

from enginebench.reference.build import ReferenceOptions, write_build
from tests.support.bench_project import BenchProject, environment, output
from tests.support.embedded import needs_triton

pytestmark = needs_triton


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--scenario", "smok"], "did you mean 'smoke'"),
        (["--build", "mine=scenarios"], "scenarios has no config.json"),
        (["--rounds", "0"], "--rounds 0 is not possible"),
    ],
)
def test_a_wrong_choice_is_one_sentence(project: BenchProject, arguments: list[str], sentence: str) -> None:
    done = project.bench(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert "Traceback" not in output(done)


def test_a_misspelt_key_names_file_line_and_fix(project: BenchProject) -> None:
    project.write_scenario("mine", "prompts: [你好]\noutput_tokens: 8\nbatch_size: [1]\n")
    done = project.bench("--scenario", "mine")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "mine.yaml:3: batch_size is not a known key" in done.stderr
    assert "did you mean 'batch_sizes'" in done.stderr


def test_a_run_that_measures_nothing_fails(project: BenchProject) -> None:
    project.write_scenario(
        "huge", "prompts: {synthetic: {input_tokens: 2000}}\noutput_tokens: 8\npaths: [direct]\nrounds: 1\n"
    )
    done = project.bench("--scenario", "huge")
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "not applicable: prompt 2000 tokens exceed the build's max_input_len 1024" in done.stdout
    assert "No cell was measured" in done.stdout
    assert [cell["status"] for cell in project.run().cells.values()] == ["not_applicable"]


def test_the_live_line_is_seen_on_a_terminal(project: BenchProject) -> None:
    command = shlex.join(project.command("--scenario", "smoke", "--path", "direct", "-k", "bs001", "--rounds", "3"))
    done = subprocess.run(
        ["script", "--quiet", "--return", "--command", command, "/dev/null"],
        cwd=project.root, env=environment(), capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "cell 1 of 2" in done.stdout
    assert "round 2/3" in done.stdout


def test_a_place_that_cannot_be_written_is_one_sentence(project: BenchProject) -> None:
    build = project.root / "build"
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=32), build)
    (project.root / "reports").write_text("a file where the directory should be")
    done = project.bench("--scenario", "smoke", "--path", "direct", "--build", f"mine={build}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR" in done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in output(done)


def test_names_of_cells_work_with_pytests_selection(project: BenchProject) -> None:
    done = project.bench("--collect-only", "-q", "-k", "novel-zh and ensemble and bs008")
    items = [line for line in done.stdout.splitlines() if "::" in line]
    assert [item.partition("[")[2] for item in items] == [
        "novel-zh-ensemble-stream-out0128-bs008]",
        "novel-zh-ensemble-nostream-out0128-bs008]",
    ]
