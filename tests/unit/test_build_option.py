"""What ``--build`` takes."""

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.errors import BuildError
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.run.builds import _split, build_from_option, only_build, parse_build
from tests.support import engine_dirs as made

PLAIN = st.text(st.characters(exclude_characters=",=", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return made.write_current(tmp_path / "fp16, 1=gpu")


def test_name_and_directory(engine: Path) -> None:
    build = parse_build(f"old={engine}")
    assert (build.name, build.directory, build.launcher) == ("old", engine, (sys.executable,))
    assert build.tokenizer is None


def test_a_directory_alone_is_called_after_itself(engine: Path) -> None:
    assert parse_build(str(engine)).name == "fp16, 1=gpu"


def test_everything_at_once(engine: Path) -> None:
    container = "docker run --rm -i -v /engines:/engines,ro 'an image'"
    build = parse_build(f"old={engine},tokenizer=/tok,python=/venvs/0.16/bin/python,container={container}")
    assert build.tokenizer == Path("/tok")
    assert build.launcher == (
        *("docker", "run", "--rm", "-i", "-v", "/engines:/engines,ro", "an image"),
        "/venvs/0.16/bin/python",
    )


def test_the_option_stands_in_for_a_tokenizer_that_is_not_named(engine: Path) -> None:
    assert parse_build(f"a={engine}", Path("/other"), trust_remote_code=True).tokenizer == Path("/other")
    assert parse_build(f"a={engine}", trust_remote_code=True).trust_remote_code
    assert parse_build(f"a={engine},tokenizer=/tok", Path("/other")).tokenizer == Path("/tok")


@pytest.mark.parametrize(
    "text", ["=/x", "a=", "a=/x,python=", "a=/x,python=p,python=q", "a=/x,container=  ", "", "a=/x,container='run"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BuildError, match="--build"):
        parse_build(text)


def test_a_measured_build_has_a_name(engine: Path) -> None:
    with pytest.raises(BuildError, match="NAME=DIR"):
        build_from_option(str(engine), engine)


@given(PLAIN, st.dictionaries(st.sampled_from(["python", "tokenizer", "llm_args", "container"]), PLAIN))
def test_options_come_back_as_they_were_given(place: str, options: dict[str, str]) -> None:
    ordered = dict(sorted(options.items(), key=lambda item: item[0] == "container"))
    text = place + "".join(f",{key}={value}" for key, value in ordered.items())
    assert _split(text) == (place, options)


def test_a_misspelt_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="unknown key 'pyhton': there are python, tokenizer, llm_args, container"):
        parse_build(f"fp16={tmp_path},pyhton=/usr/bin/python3")


def test_what_a_build_has_no_use_for_is_refused(engine: Path, tmp_path: Path) -> None:
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=32), tmp_path / "ref")
    for text, other in ((f"a={tmp_path}/ref,tokenizer=/tok", None), (f"a={tmp_path}/ref", Path("/tok"))):
        with pytest.raises(BuildError, match="ref is a reference build, whose tokenizer is its own: leave out a tok"):
            build_from_option(text, tmp_path, other)
    with pytest.raises(BuildError, match="leave out --trust-remote-code"):
        build_from_option(f"a={tmp_path}/ref", tmp_path, trust_remote_code=True)
    with pytest.raises(BuildError, match="no checkpoint for the PyTorch backend: leave out llm_args=x"):
        parse_build(f"{engine},llm_args=x.yaml")


def test_two_builds_are_not_one_run() -> None:
    assert only_build(None) is None
    assert only_build(["a=b"]) == "a=b"
    with pytest.raises(BuildError, match=r"given more than once.*enginebench ab"):
        only_build(["a=b", "c=d"])
