"""``pytest bench/`` and the servers that it starts, attaches to, and loses."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enginebench.errors import ServerError
from enginebench.server import metrics_page as page
from enginebench.server.plain_http import fetch
from tests.support.bench_project import BenchProject, output
from tests.support.embedded import needs_triton
from tests.support.processes import left_of
from tests.support.scripted_openai import ScriptedOpenAi
from tests.support.scripted_server import ScriptedServer

pytestmark = needs_triton

LONG = """
prompts: [你是谁？]
output_tokens: 1500
batch_sizes: [1]
rounds: 1
warmup_rounds: 0
paths: [core]
"""
SHORT = """
prompts: [你是谁？]
output_tokens: 8
batch_sizes: [1, 2]
streaming: [true]
rounds: 1
warmup_rounds: 0
"""
REPLICAS = """
prompts: [你是谁？, Tell me a story]
output_tokens: [24]
batch_sizes: [3]
streaming: [true]
rounds: 2
"""


def test_a_killed_server_fails_its_cell_and_no_other(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    project.write_scenario("short", f"{SHORT}paths: [ensemble]")
    process = project.start("--scenario", "long", "--scenario", "short")
    wait_for_the_stream(process).kill()
    text, _ = process.communicate(timeout=300)
    run = project.run()
    assert process.returncode == pytest.ExitCode.TESTS_FAILED, text
    assert [cell["status"] for cell in run.cells.values()] == ["failed", "measured", "measured"]
    failed = next(iter(run.cells.values()))
    assert failed["metrics"] == {}
    assert failed["reason"] in text
    assert failed["reason"].count("\n") == 0


def test_ctrl_c_leaves_a_readable_run_and_no_process(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    project.write_scenario("short", SHORT)
    process = project.start("--scenario", "short", "--scenario", "long", "--path", "ensemble")
    server = wait_for_the_stream(process)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=300)
    run = project.run()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert run.data["interrupted"]
    assert set(run.data["plan"]["cells"]) - set(run.cells) == {"long-ensemble-stream-out1500-bs001"}
    assert (project.runs()[-1] / "report.html").is_file()
    assert server in family
    assert left_of(family) == []


def test_attaching_to_a_running_server(served: tuple[str, Path], project: BenchProject) -> None:
    url, _ = served
    project.write_scenario("short", SHORT)
    done = project.bench("--scenario", "short", "--path", "ensemble", "--triton-url", url)
    assert done.returncode == 0, output(done)
    assert project.run().data["attached_url"] == url
    assert not any("shares" in cell for cell in project.run().cells.values())


def test_replicas_are_measured_as_one_endpoint(served: tuple[str, Path], project: BenchProject) -> None:
    project.write_scenario("replicas", REPLICAS)
    one, directory = served
    with serving(directory) as other:
        servers = ("--triton-url", one, "--triton-url", other)
        done = project.bench("--scenario", "replicas", "--path", "ensemble", *servers)
    assert done.returncode == 0, output(done)
    run = project.run()
    ((cell_id, cell),) = run.cells.items()
    assert run.data["plan"]["servers"] == {"triton": [one, other]}
    assert [(share["server"], share["requests"]) for share in cell["shares"]] == [(one, 3), (other, 3)]
    assert cell["findings"] == []
    for part in cell["server"]["servers"]:
        assert [(row["client"], row["server"]) for row in part["counted"]] == [(3, 3), (72, 72), (72, 72)]
        assert part["gauges"]["values"]["kv_max"] == {"min": 8, "max": 8}
        assert part["idle_before"] == "verified"
    assert [(row["client"], row["server"]) for row in cell["server"]["counted"]] == [(6, 6), (144, 144), (144, 144)]
    assert (cell["server"]["layers"]["servers"], cell["server"]["layers"]["perf_metrics"]) == (2, True)
    (session,) = run.data["sessions"]
    assert {check["status"] for check in session["preflight"]} == {"verified"}
    assert {check["server"] for check in session["preflight"]} == {one, other, ""}
    assert len({each["metrics_url"] for each in session["metrics"]}) == 2
    assert len(run.rounds(cell_id)) == 3
    assert "Server by server" in (run.directory / "report.html").read_text(encoding="utf-8")


def test_openai_servers_have_two_paths_and_may_be_replicas(project: BenchProject) -> None:
    project.write_scenario("short", SHORT.replace("[true]", "[true, false]"))
    paths = ("openai-completions", "openai-chat")
    asked = [argument for path in paths for argument in ("--path", path)]
    with ScriptedServer(ScriptedOpenAi()) as one, ScriptedServer(ScriptedOpenAi()) as other:
        done = project.bench("--scenario", "short", *asked, "--openai-url", one.url, "--openai-url", other.url)
    assert done.returncode == 0, output(done)
    cells = project.run().cells.values()
    assert [cell["path"] for cell in cells] == [path for path in paths for _ in range(4)]
    assert {cell["status"] for cell in cells} == {"measured"}
    took = [[share["requests"] for share in cell["shares"]] for cell in cells]
    assert [sorted(each) for each in took] == [[0, 1], [1, 1]] * 4, "one round of a batch of 1 or 2"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--path", "ensemble", "--triton-url", "http://127.0.0.1:9"], "Nothing at http://127.0.0.1:9 answers"),
        (["--path", "openai-chat"], "name it with --openai-url"),
    ],
)
def test_a_server_that_is_not_there_is_named_before_anything_runs(
    project: BenchProject, arguments: list[str], sentence: str
) -> None:
    done = project.bench("--scenario", "smoke", *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert sentence in done.stderr
    assert not project.runs()


def test_a_dead_model_process_is_named(project: BenchProject) -> None:
    project.write_scenario("long", LONG)
    process = project.start("--scenario", "long", "--path", "ensemble")
    wait_for_the_stream(process)
    core = next(
        child for child, line in descendants(process) if any("/tensorrt_llm/1/model.py" in part for part in line)
    )
    core.kill()
    text, _ = process.communicate(timeout=300)
    assert process.returncode == pytest.ExitCode.TESTS_FAILED, text
    reason = next(iter(project.run().cells.values()))["reason"]
    assert "The process of Triton's model 'tensorrt_llm'" in reason
    assert reason in text


@contextlib.contextmanager
def serving(directory: Path, *options: str) -> Iterator[str]:
    """``enginebench serve`` in a process of its own; its URL."""
    command = [sys.executable, "-m", "enginebench.cli", "serve", *options]
    with subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running server, and the directory that it was started in."""
    directory = tmp_path_factory.mktemp("served")
    with serving(directory) as url:
        yield url, directory


def descendants(process: "subprocess.Popen[str]") -> Iterator[tuple[psutil.Process, list[str]]]:
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it may end while we look
            yield child, child.cmdline()


def wait_for_the_stream(process: "subprocess.Popen[str]") -> psutil.Process:
    """Until the engine has taken more steps than all but the long answer need; that takes a thousand more.

    Return the server.
    """
    deadline_s = time.monotonic() + 180
    while time.monotonic() < deadline_s:
        for server, line in descendants(process):
            ports = [each.partition("=")[2] for each in line if each.startswith("--metrics-port=")]
            if ports and steps_of(f"http://127.0.0.1:{ports[0]}/metrics") > 300:
                return server
        time.sleep(0.05)
    raise AssertionError("the long answer did not begin")


def steps_of(metrics_url: str) -> float:
    with contextlib.suppress(ServerError):
        return page.gauge(page.series(page.parse(fetch(metrics_url))), page.ITERATIONS) or 0.0
    return 0.0
