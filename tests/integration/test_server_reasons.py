"""What the real Triton writes when models cannot be loaded is understood: one start, several broken models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from enginebench.errors import ServerError
from enginebench.server.embedded import EmbeddedTriton, find_embedded
from enginebench.server.installation import Place
from enginebench.server.launch import TritonServer
from enginebench.server.reasons import reason_of
from tests.support.embedded import needs_triton

pytestmark = needs_triton

CONFIG = """
name: "{name}"
backend: "{backend}"
max_batch_size: 0
input [ {{ name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }} ]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
"""

MODEL = """
class TritonPythonModel:
    def initialize(self, args):
        {fault}

    def execute(self, requests):
        return []
"""

PAD_TOKEN = """
        class ChatGLMTokenizer:
            @property
            def pad_token(self): return ""
        ChatGLMTokenizer().pad_token = "eos"
"""

FAULTS = {
    "classless": (
        "tokenizer class missing",
        'raise ValueError("Tokenizer class ChatGLMTokenizer does not exist or is not currently imported.")',
    ),
    "padded": ("pad_token cannot be set", PAD_TOKEN.strip()),
    "sentenceless": ("sentencepiece missing", "import sentencepiece"),
    "packageless": ("Python package missing", "import no_such_package"),
    "hungry": ("out of memory", 'raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")'),
}
"""Model → the reason that is to be found, and what its Python does."""


def write(repository: Path, name: str, fault: str = "pass", backend: str = "python", count: str = "1") -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(CONFIG.format(name=name, backend=backend, count=count))
    (repository / name / "1" / "model.py").write_text(MODEL.format(fault=fault))


@pytest.fixture(scope="module")
def failure(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The sentence that a start of all of them ended with, and the whole log."""
    root = tmp_path_factory.mktemp("broken")
    for name, (_, fault) in FAULTS.items():
        write(root / "models", name, fault)
    write(root / "models", "unfilled", count="${instances}")
    write(root / "models", "wrong_backend", backend="tensorrtllm")
    with pytest.raises(ServerError) as caught:
        TritonServer.start(root / "models", root / "logs")
    return str(caught.value), (root / "logs" / "tritonserver.log").read_text()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_models_python_is_understood(failure: tuple[str, str], name: str) -> None:
    lines = [line for line in failure[1].splitlines() if f"failed to load '{name}'" in line]
    reason = reason_of("\n".join(lines))
    assert reason is not None
    assert reason.name == FAULTS[name][0]


def test_an_unfilled_template_is_understood(failure: tuple[str, str]) -> None:
    lines = [line for line in failure[1].splitlines() if "text-format" in line or "unfilled" in line]
    reason = reason_of("\n".join(lines))
    assert reason is not None
    assert reason.name == "unfilled template"


def test_a_missing_backend_is_understood(failure: tuple[str, str]) -> None:
    reason = reason_of("\n".join(line for line in failure[1].splitlines() if "wrong_backend" in line))
    assert reason is not None
    assert reason.name == "backend missing"
    assert "no backend tensorrtllm" in reason.sentence


def test_the_sentence_holds_a_reason_and_the_place_of_the_log(failure: tuple[str, str]) -> None:
    assert failure[0].startswith("Triton did not start (exit code 1): ")
    assert "tritonserver.log ends with:\n  " in failure[0]


@dataclass(frozen=True, slots=True)
class HugeMemory:
    """The server of the wheel, which wants more shared memory than there is."""

    wheel: EmbeddedTriton
    ready_timeout_s: float = 180.0
    stop_grace_s: float = 0.0

    def prepare(self, scratch: Path) -> Mapping[str, str]:
        return self.wheel.prepare(scratch)

    def command(self, place: Place) -> Sequence[str]:
        return [*self.wheel.command(place), f"--backend-config=python,shm-default-byte-size={1 << 45}"]

    def logs(self, place: Place) -> Sequence[Path]:
        return self.wheel.logs(place)


def test_too_little_shared_memory_is_understood(tmp_path: Path) -> None:
    write(tmp_path / "models", "fine")
    with pytest.raises(ServerError, match="--shm-size=2g"):
        TritonServer.start(tmp_path / "models", tmp_path / "logs", installation=HugeMemory(find_embedded()))
