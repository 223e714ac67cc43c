"""How commands end when something outside of them goes wrong: an unwritable page, Ctrl-C before any number."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.ab_project import AbProject
from tests.support.bench_project import BenchProject, output


def test_the_last_line_of_a_bench_says_what_could_not_be_written(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    (project.root / "reports" / "index.html" / "in-the-way").mkdir(parents=True)
    done = BenchProject(project.root).bench("--scenario", "tiny", "--build", "old=builds/old")
    assert done.returncode == 1
    assert "index.html cannot be written (Is a directory)" in done.stdout.splitlines()[-1]
    assert "report.html" in done.stdout  # which could be


def test_a_full_disk_costs_the_file_that_was_being_written_alone(tmp_path: Path) -> None:
    project = BenchProject(AbProject.make(tmp_path).root)
    done = project.bench("--scenario", "tiny", "--build", "old=builds/old", "--benchmark-json", "/dev/full")
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("enginebench: pytest-benchmark broke ([Errno 28] No space left on device); what was")
    assert "Traceback" not in output(done)
    assert not (project.runs()[-1] / "benchmark.json").exists()
    assert project.run().data["finished"]
    assert f"page: {project.runs()[-1] / 'report.html'}" in done.stdout


@pytest.mark.parametrize("place", [".", "nowhere/rows.json", "pyproject.toml/rows.json"])
def test_a_place_where_no_rows_can_be_written_is_told_before_measuring(tmp_path: Path, place: str) -> None:
    project = BenchProject(AbProject.make(tmp_path).root)
    done = project.bench("--scenario", "tiny", "--build", "old=builds/old", "--benchmark-json", place)
    assert done.returncode == 4
    assert f"{place} cannot be written (" in done.stderr
    assert not project.runs()


def test_only_and_skip_are_refused_together(tmp_path: Path) -> None:
    done = BenchProject(AbProject.make(tmp_path).root).bench("--scenario", "tiny", "--benchmark-skip")
    assert done.returncode == 4
    assert "exclude each other" in done.stderr


def test_ctrl_c_while_a_command_is_imported_is_one_line() -> None:
    code = """if True:
        import signal, sys
        from enginebench.cli import main
        def interrupt(event, arguments):
            if event == "import" and arguments[0] == "enginebench.cli.commands":
                signal.raise_signal(signal.SIGINT)
        sys.addaudithook(interrupt)
        sys.exit(main(["schema"]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "enginebench: stopped.\n")


def test_ctrl_c_before_any_number_is_no_error_of_noise(tmp_path: Path) -> None:
    project = AbProject.make(tmp_path)
    noise = project.start("noise", "--build", "old=builds/old", "--scenario", "tiny", "--rounds", "500")
    while noise.poll() is None and not list(project.root.glob("reports/runs/*/logs/worker-direct.log")):
        time.sleep(0.02)
    noise.send_signal(signal.SIGINT)
    output, _ = noise.communicate(timeout=300)
    assert noise.returncode == 130, output
    assert "Stopped before anything was measured" in output
    assert not (project.root / "reports" / "noise").exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_no_temporary_file(tmp_path: Path, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "enginebench.cli", "calibrate", "--seconds", "60"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as calibrate:
        while calibrate.poll() is None and not list(tmp_path.glob("enginebench-calibrate-*/*.log")):
            time.sleep(0.02)
        calibrate.send_signal(ending)
        _, error = calibrate.communicate(timeout=60)
    assert (calibrate.returncode, error) == (130, "enginebench: stopped.\n")
    assert not list(tmp_path.iterdir())


def test_a_closed_terminal_ends_nothing_under_nohup() -> None:
    code = """if True:
        import signal, sys
        from enginebench.cli import main
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        main(["schema"])
        sys.exit(signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN)
    """
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True, timeout=60)
