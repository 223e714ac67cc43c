"""``pytest bench/ --build NAME=DIR`` and ``enginebench serve`` on a TensorRT-LLM build: Triton is started for it.

The engine looks like one of TensorRT-LLM and holds a reference engine; the server is the wheel's under an image's name.
"""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from enginebench.builds.build import read_build
from enginebench.cli import main
from enginebench.errors import ServerError, SessionError
from enginebench.reference.build import write_build
from enginebench.run.attached import Attached
from enginebench.server.image import MPIRUN, SERVER
from enginebench.store import load_run
from tests.support import wheel_tritonserver
from tests.support.bench_project import ROOT, BenchProject
from tests.support.embedded import needs_triton
from tests.support.engine_dirs import current_config, write_current
from tests.support.interpreters import make_interpreter
from tests.support.processes import PATIENCE_S
from tests.support.templates import SMALL, UPSTREAM, VERSIONS, checkout, tokenizer_of

pytestmark = [
    needs_triton,
    pytest.mark.skipif(not VERSIONS, reason=f"upstream's configurations are not at {UPSTREAM}"),
]

SCENARIO = """
description: Two short answers.
prompts: [a letter, and another]
output_tokens: [4]
batch_sizes: [2]
streaming: [true]
rounds: 1
"""


@dataclass(frozen=True, slots=True)
class Box:
    """What a GPU box would have."""

    project: BenchProject
    build: str
    templates: Path

    def serve(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [
            sys.executable,
            "-m",
            "enginebench.cli",
            "serve",
            "--bls-instances",
            "1",
            "--build",
            self.build,
            *arguments,
        ]
        return subprocess.Popen(
            command, cwd=self.project.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    root = tmp_path_factory.mktemp("box")
    project = BenchProject.make(root / "project")
    project.write_scenario("tiny", SCENARIO)
    engine = write_current(
        root / "engine", current_config("1.0.0", max_batch_size=4, max_input_len=64, max_seq_len=512)
    )
    write_build(SMALL, engine / "reference")
    tokenizer = tokenizer_of(read_build("reference", engine / "reference"), root / "tokenizer")
    (tokenizer / "standin.json").write_text("{}")
    python = make_interpreter(root / "venv", "1.0.0")
    (packages,) = (root / "venv").glob("lib/python*/site-packages")
    shutil.copytree(ROOT / "tests/support/standins/transformers", packages / "transformers")
    with (packages / "transformers" / "__init__.py").open("a") as library:
        library.write("\nLETTERS += [chr(code) for code in range(33, 97)]\n")
    build = f"fp16={engine},python={python},tokenizer={tokenizer}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SERVER, str(wheel_tritonserver.write(root / "opt")))
        patch.setenv(MPIRUN, "no-mpirun-here")
        patch.setenv(wheel_tritonserver.SCRATCH, str(root))
        yield Box(project, build, checkout("v1.x-late", root / "checkout"))


def test_a_bench_fills_the_templates_and_starts_the_server_by_itself(box: Box) -> None:
    done = box.project.bench(
        *("--build", box.build, "--scenario", "tiny", "--path", "ensemble"),
        *("--templates", str(box.templates), "--set", "tensorrt_llm.enable_kv_cache_reuse=true"),
        *("--engine", "kv_cache_tokens=4096"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "! enable_kv_cache_reuse is on" in done.stdout
    run = box.project.run()
    (cell,) = run.data["cells"].values()
    assert cell["status"] == "measured"
    (session,) = run.data["sessions"]
    filled = {(one["model"], one["variable"]): one["value"] for one in session["repository"]["filled"]}
    assert filled["tensorrt_llm", "triton_max_batch_size"] == "4"
    assert filled["tensorrt_llm", "max_tokens_in_paged_kv_cache"] == "4096"
    assert filled["tensorrt_llm_bls", "bls_instance_count"] == "1"  # nothing goes there
    assert filled["tensorrt_llm", "enable_kv_cache_reuse"] == "true"
    page = (run.directory / "report.html").read_text()
    assert "Model repository" in page
    assert "max_tokens_in_paged_kv_cache" in page


def test_what_cannot_work_is_said_before_anything_is_measured(box: Box) -> None:
    done = box.project.bench("--build", box.build, "--scenario", "tiny", "--path", "ensemble")
    assert done.returncode == 4
    assert "There are no templates of inflight_batcher_llm" in done.stderr


def test_an_ab_measurement_fills_the_templates_for_both_builds(box: Box) -> None:
    done = ab(box, "--templates", str(box.templates), "--set", "tensorrt_llm.enable_kv_cache_reuse=true")
    assert done.returncode in {0, 10, 11, 12}, done.stdout + done.stderr  # whatever two pairs say
    assert "! old: enable_kv_cache_reuse is on" in done.stdout
    for directory in box.project.runs()[-2:]:
        run = load_run(directory)
        assert [session["path"] for session in run.data["sessions"]] == ["core", "core"]
        for session in run.data["sessions"]:
            filled = {(one["model"], one["variable"]): one["value"] for one in session["repository"]["filled"]}
            assert filled["tensorrt_llm", "enable_kv_cache_reuse"] == "true"


def test_an_ab_measurement_without_templates_is_refused_at_once(box: Box) -> None:
    before = box.project.runs()
    done = ab(box)
    assert done.returncode == 1
    assert "There are no templates of inflight_batcher_llm" in done.stderr
    assert box.project.runs() == before


def ab(box: Box, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "enginebench.cli", "ab", box.build, box.build, "--scenario", "tiny"]
    return subprocess.run(
        [*command, "--path", "core", "--pairs", "2", *arguments],
        cwd=box.project.root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("with_templates", [True, False])
def test_the_doctor_says_whether_a_server_could_be_started(
    box: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, with_templates: bool
) -> None:
    monkeypatch.chdir(box.project.root)
    before = {path.name for path in Path(box.project.root).iterdir()}
    arguments = ["--templates", str(box.templates)] if with_templates else []
    main(["doctor", "--build", box.build, *arguments])
    said = capsys.readouterr().out
    section = said.partition("Server paths")[2]
    if with_templates:
        assert f"could be started for it with the templates in {box.templates}" in " ".join(section.split())
    else:
        assert "no server could be started: There are no templates of inflight_batcher_llm" in section
    assert {path.name for path in Path(box.project.root).iterdir()} - before <= {"reports"}


def test_the_doctor_tries_a_variable_as_it_would_be_filled(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--set", "tensorrt_llm.nonsense=1", "--bundle", str(box.project.root / "doctor.zip")]
    assert main(["doctor", "--build", box.build, "--templates", str(box.templates), *given]) == 1
    assert "nonsense" in capsys.readouterr().out.partition("Server paths")[2]
    assert main(["doctor", "--set", "tensorrt_llm.max_beam_width=4"]) == 1
    assert "--set are for TensorRT-LLM builds" in capsys.readouterr().err


def test_serve_shows_what_it_filled_and_leaves_nothing_on_ctrl_c(box: Box) -> None:
    with box.serve("--templates", str(box.templates)) as serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        line = serving.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), serving.stderr.read()
        assert "serves build fp16" in line
        processes = psutil.Process(serving.pid).children(recursive=True)
        assert "tritonserver" in {process.name() for process in processes}
        serving.send_signal(signal.SIGINT)
        errors = serving.stderr.read()
    assert serving.returncode == 130
    assert "bls_instance_count" in errors
    assert "one request an instance" in errors
    assert "Traceback" not in errors
    assert psutil.wait_procs(processes, timeout=PATIENCE_S)[1] == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--templates", "nowhere"], "is no directory"),
        (["--templates", "."], "holds no inflight_batcher_llm"),
        ([], "There are no templates of inflight_batcher_llm"),
        (["--set", "nonsense"], "MODEL.VARIABLE=VALUE"),
        (["--engine", "kv_cache_tokens=many"], "needs a number of tokens"),
        (["--tokenizer", "nowhere", "--build", "DIR"], "--tokenizer nowhere is no directory"),
        (["--build", "nowhere"], "is not of the form"),
        (["--build", "x=nowhere"], "nowhere is no directory"),
    ],
)
def test_serve_refuses_in_one_sentence(
    box: Box, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    engine = box.build.partition(",python=")[0]
    words = [engine if word == "DIR" else word for word in arguments]
    build = [] if "--build" in arguments else ["--build", box.build]
    assert main(["serve", *build, *words]) == 1
    assert sentence in capsys.readouterr().err


def test_serve_names_a_port_that_is_in_use(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        arguments = ["--templates", str(box.templates), "--port", port]
        assert main(["serve", "--build", box.build, *arguments]) == 1
    assert f"Port {port} on 127.0.0.1 is in use" in capsys.readouterr().err


def test_what_our_own_server_offers_depends_on_the_build() -> None:
    Attached().check(["direct", "ensemble", "bls", "core"], "tensorrt_llm")
    Attached().check(["direct", "llmapi"], "pytorch")
    with pytest.raises(ServerError, match="use --path direct or --path llmapi"):
        Attached().check(["ensemble"], "pytorch")
    with pytest.raises(ServerError, match="The path 'llmapi' needs a running server"):
        Attached().check(["llmapi"], "tensorrt_llm")
    with pytest.raises(ServerError, match="of no use without a path to it"):
        Attached(("http://127.0.0.1:9",)).check(["direct"])
    with pytest.raises(ServerError, match=r"--openai-model m is of no use .*: add --path openai-completions"):
        Attached(openai_model="m").check(["direct"])
    with pytest.raises(SessionError, match=r"No OpenAI-compatible server answers at http://127\.0\.0\.1:9"):
        Attached(openai_urls=("http://127.0.0.1:9",), openai_model="m").check(["openai-chat"])
    assert Attached().starts(["direct", "ensemble"])
    assert not Attached(("http://127.0.0.1:9",)).starts(["direct", "ensemble"])
