"""Upstream's template sets, for the server of the wheel: their configurations as they are, our Python beside them."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enginebench.builds.build import Build, read_build
from enginebench.builds.tokenizer import tokenizer_spec
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.server.embedded import EmbeddedTriton, find_embedded
from enginebench.server.installation import Place

UPSTREAM = Path(__file__).parents[3] / "shared" / "triton_configs"
VERSIONS = tuple(sorted(path.name for path in UPSTREAM.glob("v*")))
SMALL = ReferenceOptions(
    layers=1, hidden=16, heads=2, kv_heads=1, ffn=32, vocab_size=20_000, max_batch_size=8, max_input_len=64,
    max_seq_len=512, max_num_tokens=64,
)  # fmt: skip
STAND_INS = Path(__file__).parent / "template_models"


def checkout(version: str, directory: Path, kind: str = "inflight_batcher_llm") -> Path:
    """Make a checkout of upstream's repository, as far as the templates go; return it."""
    root = directory / "all_models" / kind
    if kind == "llmapi":
        shutil.copytree(UPSTREAM / version / "llmapi_tensorrt_llm", root / "tensorrt_llm")
        (root / "tensorrt_llm" / "1").mkdir()
        (root / "tensorrt_llm" / "model.yaml").rename(root / "tensorrt_llm" / "1" / "model.yaml")
        return directory
    for model in UPSTREAM.joinpath(version).iterdir():
        if not model.name.startswith("llmapi"):
            shutil.copytree(model, root / model.name)
            (root / model.name / "1").mkdir()
            if (stand_in := STAND_INS / f"{model.name}.py").is_file():
                shutil.copy(stand_in, root / model.name / "1" / "model.py")
    return directory


def engine_build(directory: Path) -> Build:
    """A reference engine that passes for one of TensorRT-LLM, with a tokenizer beside it."""
    write_build(SMALL, directory / "engine")
    reference = read_build("tiny", directory / "engine")
    return replace(reference, kind="tensorrt_llm", tokenizer=tokenizer_of(reference, directory / "tokenizer"))


def tokenizer_of(reference: Build, directory: Path) -> Path:
    """Write what the stand-ins for upstream's Python take for a tokenizer."""
    directory.mkdir()
    (directory / "spec.json").write_text(json.dumps(tokenizer_spec(reference)))
    return directory


def for_the_wheel(repository: Path) -> None:
    """Let the core run on the python backend, which is all that the wheel has; nothing else is changed."""
    config = repository / "tensorrt_llm" / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "tensorrtllm"', 'backend: "python"'))


def prefixed(repository: Path, prefix: str) -> None:
    """Rename every model, so that one server can hold several sets."""
    for directory in list(repository.iterdir()):
        config = directory / "config.pbtxt"
        lines = config.read_text().splitlines()
        config.write_text("\n".join(_renamed(line, prefix) for line in lines) + "\n")
        directory.rename(repository.parent / "all" / f"{prefix}{directory.name}")


def _renamed(line: str, prefix: str) -> str:
    word, colon, value = line.partition(":")
    named = word.strip() == "model_name" or word == "name"  # of tensors, which are indented
    return f'{word}: "{prefix}{value.strip().strip(chr(34))}"' if named and colon else line


@dataclass(frozen=True, slots=True)
class ExplicitTriton:
    """The server of the wheel, which loads nothing but ``load`` until it is told to."""

    load: tuple[str, ...]
    wheel: EmbeddedTriton
    ready_timeout_s: float = 180.0
    stop_grace_s: float = 0.0

    @classmethod
    def make(cls, *load: str) -> "ExplicitTriton":
        return cls(load, find_embedded())

    def prepare(self, scratch: Path) -> Mapping[str, str]:
        return self.wheel.prepare(scratch)

    def command(self, place: Place) -> Sequence[str]:
        chosen = [f"--load-model={model}" for model in self.load]
        return [*self.wheel.command(place), "--model-control-mode=explicit", *chosen]

    def logs(self, place: Place) -> Sequence[Path]:
        return self.wheel.logs(place)
