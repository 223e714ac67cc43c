"""SPEC.yaml: which engines it means, which commands build them, and what is said about its mistakes."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.spec import build_command, convert_command, flags, read_spec
from enginebench.errors import BuildError

EXAMPLE = Path(__file__).parents[2] / "docs" / "chatglm3-6b.build.yaml"

SPEC = """\
model: /models/chatglm3-6b
out: /engines/chatglm3_6b
script: convert_checkpoint.py
container: docker run --rm -v "/a b:/a" image
convert: {dtype: float16}
build: {gemm_plugin: float16, max_batch_size: 8}
engines:
  fp16:
  int8:
    convert: {use_weight_only: true, weight_only_precision: int8}
    build: {max_batch_size: 64}
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_commands(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, SPEC))
    fp16, int8 = spec.engines
    docker = 'docker run --rm -v "/a b:/a" image'
    assert convert_command(spec, int8, Path("/x")) == tuple(
        shlex.split(
            f"{docker} python3 convert_checkpoint.py --model_dir /models/chatglm3-6b --output_dir /x "
            "--dtype float16 --use_weight_only --weight_only_precision int8"
        )
    )
    assert build_command(spec, int8, Path("/y")) == tuple(
        shlex.split(
            f"{docker} trtllm-build --checkpoint_dir {spec.checkpoint(int8)} --output_dir /y "
            "--gemm_plugin float16 --max_batch_size 64"
        )
    )
    assert spec.directory(fp16) == Path("/engines/chatglm3_6b/fp16")
    assert spec.checkpoint(fp16) != spec.checkpoint(int8)


def test_the_old_layout_has_one_step(tmp_path: Path) -> None:
    text = "model: /m\nout: /o\nscript: build.py\nlayout: build.py\nengines: {fp16: {build: {model_name: chatglm3_6b}}}"
    spec = read_spec(written(tmp_path, text))
    assert spec.checkpoint(spec.engines[0]) is None
    command = build_command(spec, spec.engines[0], Path("/x"))
    assert command == tuple(shlex.split("python3 build.py --model_dir /m --output_dir /x --model_name chatglm3_6b"))


def test_a_matrix_multiplies_engines(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, SPEC + "matrix: {max_batch_size: [8, 64], max_input_len: [128]}\n"))
    assert [engine.name for engine in spec.engines] == [
        f"{name}-max_batch_size{size}-max_input_len128" for name in ("fp16", "int8") for size in (8, 64)
    ]
    assert [engine.build["max_batch_size"] for engine in spec.engines] == [8, 64, 8, 64]
    assert len({spec.checkpoint(engine) for engine in spec.engines}) == 2


def test_the_example_of_the_docs() -> None:
    spec = read_spec(EXAMPLE)
    assert [engine.name for engine in spec.engines] == [
        *("fp16-max_batch_size8", "fp16-max_batch_size64"),
        *("int8wo-max_batch_size8", "int8wo-max_batch_size64"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.replace("model:", "modell:"), r"spec\.yaml:1: the key 'modell' is unknown; did you mean model\?"),
        (SPEC.replace("script: convert_checkpoint.py\n", ""), r"spec\.yaml:1: script is missing; write e\.g\. script:"),
        (SPEC.replace("out: /engines/chatglm3_6b", "out: 7"), r"spec\.yaml:2: out must be text"),
        (SPEC.replace("{dtype: float16}", "{dtype: {a: 1}}"), r"spec\.yaml:5: dtype must be an option's name"),
        (SPEC.replace("{dtype: float16}", "{dtype: 2024-01-01}"), r"spec\.yaml:5: dtype must be an option's name"),
        (SPEC.replace("dtype:", "--dtype:"), r"spec\.yaml:5: --dtype must be an option's name"),
        (SPEC.replace('"/a b', '"/a'), None),
        (SPEC.replace('b:/a" image', "b:/a image"), r"spec\.yaml:4: container is no shell command"),
        (SPEC + "layout: cmake\n", r"spec\.yaml:12: layout 'cmake' is unknown; use trtllm-build or build\.py"),
        (SPEC + "layout: build.py\n", r"spec\.yaml:5: layout build\.py has no step of its own"),
        (SPEC + "matrix: {max_batch_size: 8}\n", r"spec\.yaml:12: matrix\.max_batch_size must be a list"),
        (SPEC + "matrix: {max_batch_size: [8, 8]}\n", r"spec\.yaml:7: two engines are called 'fp16-max_batch_size8'"),
        (SPEC.replace("  int8:", "  ../int8:"), r"spec\.yaml:9: '\.\./int8' cannot be part of a directory's name"),
        (SPEC.replace("  fp16:", "  checkpoints:"), r"spec\.yaml:8: 'checkpoints' cannot be"),
        (SPEC.replace("    build: {max", "    biuld: {max"), r"spec\.yaml:11: the key 'biuld'.*did you mean build"),
        ("- a\n", r"spec\.yaml:1: the file must hold keys and values"),
        ("model: [", r"spec\.yaml:1: not valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str | None) -> None:
    file = written(tmp_path, text)
    if message is None:
        read_spec(file)
        return
    with pytest.raises(BuildError, match=message):
        read_spec(file)


NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
VALUES = st.one_of(
    st.booleans(), st.none(), st.integers(), st.text("ab c", min_size=1), st.lists(st.integers(), min_size=1)
)


@given(st.dictionaries(NAMES, VALUES))
def test_every_option_that_is_not_off_is_passed_once(options: dict[str, object]) -> None:
    found = flags(options)
    on = {name for name, value in options.items() if value is not None and value is not False}
    assert [word for word in found if word.startswith("--")] == [f"--{name}" for name in options if name in on]
    assert "True" not in found
    assert "None" not in found
