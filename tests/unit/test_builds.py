"""Engine directories: what is read from them, and what is said about broken ones."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import Build, Limits, batch_exceeded, limit_exceeded, read_build
from enginebench.errors import BuildError

TENSORRT_LLM: Mapping[str, Any] = {
    "version": "0.16.0",
    "pretrained_config": {
        "architecture": "ChatGLMForCausalLM",
        "dtype": "float16",
        "mapping": {"world_size": 2, "tp_size": 2, "pp_size": 1},
    },
    "build_config": {"max_batch_size": 8, "max_input_len": 1024, "max_seq_len": 1536},
}


def write(directory: Path, config: object, ranks: int = 2) -> Path:
    directory.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (directory / "config.json").write_text(text, encoding="utf-8")
    for rank in range(ranks):
        (directory / f"rank{rank}.engine").write_bytes(b"weights" * (rank + 1))
    return directory


def changed(*path: str, value: Any) -> dict[str, Any]:
    """``TENSORRT_LLM`` with the value at ``path`` replaced, or removed for None."""
    config: dict[str, Any] = json.loads(json.dumps(TENSORRT_LLM))
    section = config
    for key in path[:-1]:
        section = section[key]
    section.pop(path[-1], None)
    if value is not None:
        section[path[-1]] = value
    return config


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return read_build("fp16", write(tmp_path, TENSORRT_LLM))


def test_a_build_says_what_it_is(build: Build, tmp_path: Path) -> None:
    assert (build.name, build.directory, build.kind, build.version) == ("fp16", tmp_path, "tensorrt_llm", "0.16.0")
    assert (build.architecture, build.dtype) == ("ChatGLMForCausalLM", "float16")
    assert build.limits == Limits(max_batch_size=8, max_input_len=1024, max_seq_len=1536)
    assert build.engine_bytes == 21
    assert build.python == sys.executable
    assert build.config == TENSORRT_LLM


def test_the_interpreter_can_be_chosen(tmp_path: Path) -> None:
    assert read_build("a", write(tmp_path, TENSORRT_LLM), python="/opt/python").python == "/opt/python"


def test_the_output_length_of_0_8_to_0_10_gives_the_sequence_length(tmp_path: Path) -> None:
    config = changed("build_config", "max_seq_len", value=None)
    config["build_config"]["max_output_len"] = 200
    assert read_build("a", write(tmp_path, config)).limits.max_seq_len == 1224


def test_one_rank_is_assumed_where_nothing_is_said(tmp_path: Path) -> None:
    config = changed("pretrained_config", "mapping", value=None)
    assert read_build("a", write(tmp_path, config, ranks=1)).engine_bytes == 7


def test_the_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    first = read_build("a", write(tmp_path / "a", TENSORRT_LLM)).fingerprint
    assert first.startswith("sha256:")
    assert read_build("b", write(tmp_path / "b", TENSORRT_LLM)).fingerprint == first


@pytest.mark.parametrize("name", ["config.json", "rank1.engine"])
def test_the_fingerprint_covers_every_file(build: Build, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(file.read_bytes() + b" ")
    assert read_build("fp16", tmp_path).fingerprint != build.fingerprint


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param("{", r"config\.json cannot be read as JSON", id="no JSON"),
        pytest.param("[1]", r"config\.json holds no JSON object", id="a list"),
        pytest.param({"builder_config": {}}, r"no builder_config\.precision", id="old layout"),
        pytest.param(changed("version", value=None), "has no version", id="no version"),
        pytest.param(changed("pretrained_config", value=None), "has no pretrained_config", id="no model"),
        pytest.param(
            changed("pretrained_config", "dtype", value=None), r"has no pretrained_config\.dtype", id="no dtype"
        ),
        pytest.param(changed("build_config", value="x"), r"build_config.* is no object", id="section of text"),
        pytest.param(changed("build_config", "max_seq_len", value=None), r"build_config\.max_seq_len", id="no limit"),
        pytest.param(changed("build_config", "max_batch_size", value="8"), "= '8'", id="limit of text"),
        pytest.param(changed("build_config", "max_input_len", value=0), "= 0: it must be", id="limit of nothing"),
        pytest.param(
            changed("pretrained_config", "mapping", "world_size", value=3), r"no rank2\.engine", id="a rank missing"
        ),
    ],
)
def test_a_broken_build_is_one_clear_sentence(tmp_path: Path, config: object, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        read_build("a", write(tmp_path, config))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="nowhere is no directory"):
        read_build("a", tmp_path / "nowhere")


def test_a_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"has no config\.json"):
        read_build("a", tmp_path)


@pytest.mark.parametrize(
    ("prompt_tokens", "output_tokens", "reason"),
    [
        (1024, 512, None),
        (1025, 1, "prompt 1025 tokens exceed the build's max_input_len 1024"),
        (900, 1024, "prompt 900 + output 1024 tokens exceed the build's max_seq_len 1536"),
        (1024, 513, "prompt 1024 + output 513 tokens exceed the build's max_seq_len 1536"),
    ],
)
def test_a_request_beyond_a_limit_names_the_limit(
    build: Build, prompt_tokens: int, output_tokens: int, reason: str | None
) -> None:
    assert limit_exceeded(build.limits, prompt_tokens, output_tokens) == reason


def test_requests_beyond_a_batch_wait_where_they_can(build: Build) -> None:
    assert batch_exceeded(build, 64) is None
