"""Hugging Face tokenizers run under the build's interpreter, and what goes wrong there is said in our words."""

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enginebench.builds.build import read_build
from enginebench.builds.tokenizer import open_tokenizer, tokenizer_from_spec, tokenizer_spec
from enginebench.builds.tokenizer_process import ProcessTokenizer
from enginebench.errors import BuildError
from tests.support import engine_dirs as made

STANDINS = Path(__file__).parents[1] / "support" / "standins"

Opener = Callable[..., ProcessTokenizer]


@pytest.fixture
def open_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Open a tokenizer with these settings; what is open at the end is closed."""
    monkeypatch.setenv("PYTHONPATH", str(STANDINS))
    opened: list[ProcessTokenizer] = []

    def open_it(trust: bool = False, launcher: tuple[str, ...] = (sys.executable,), **settings: Any) -> Any:
        (tmp_path / "standin.json").write_text(json.dumps(settings))
        opened.append(ProcessTokenizer(launcher, tmp_path, trust_remote_code=trust))
        return opened[-1]

    yield open_it
    for tokenizer in opened:
        tokenizer.close()


def test_text_and_ids(open_one: Opener) -> None:
    tokenizer = open_one()
    assert tokenizer.encode("a b") == (3, 2, 4)
    assert tokenizer.decode(iter([3, 2, 4])) == "a b"
    assert not tokenizer.identifies_ids
    assert tokenizer.facts == {"class": "ChatGLMTokenizer", "vocabulary": 30, "transformers": "4.99.0"}


def test_plain_ids_survive_their_own_text(open_one: Opener) -> None:
    assert open_one().plain_ids == tuple(range(3, 29))
    merging = open_one(merging=True).plain_ids
    assert set(merging) == set(range(29, 55))  # "aaa" is "aa" "a", and "aaaaaa" three times "aa"


def test_a_long_text_fits_through_the_pipe(open_one: Opener) -> None:
    text = "abcdefgh" * 20_000  # a pipe holds 64 KiB
    tokenizer = open_one()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_the_tokenizer_does_not_know_is_a_value_error(open_one: Opener) -> None:
    tokenizer = open_one()
    with pytest.raises(ValueError, match="not in list"):
        tokenizer.encode("字")
    with pytest.raises(ValueError, match="IndexError"):
        tokenizer.decode([1000])
    assert tokenizer.encode("a") == (3,)


def test_its_own_code_runs_only_when_it_is_trusted(open_one: Opener) -> None:
    with pytest.raises(BuildError, match=r"Python of its own.*--trust-remote-code"):
        open_one(own_code=True)
    assert open_one(trust=True, own_code=True).encode("a") == (3,)


@pytest.mark.parametrize(
    ("error", "message", "ours"),
    [
        (
            "ValueError",
            "Tokenizer class ChatGLMTokenizer does not exist or is not currently imported.",
            r"class ChatGLMTokenizer.*tokenization_chatglm\.py.*--trust-remote-code",
        ),
        (
            "AttributeError",
            "can't set attribute 'pad_token'",
            r"computes pad_token, which transformers 4\.99\.0 sets.*transformers_version",
        ),
        (
            "AttributeError",
            "property 'eos_token' of 'ChatGLMTokenizer' object has no setter",
            r"computes eos_token, which transformers 4\.99\.0 sets",
        ),
        (
            "AttributeError",
            "'ChatGLMTokenizer' object has no attribute 'sp_tokenizer'",
            r"older than transformers 4\.99\.0",
        ),
        ("ImportError", "No module named 'sentencepiece'", r"needs sentencepiece, which .* does not have"),
        (
            "ValueError",
            "LlamaTokenizer requires the SentencePiece library but it was not found",
            r"needs SentencePiece",
        ),
        (
            "OSError",
            "/x does not appear to have a file named tokenization_chatglm.py. Checkout 'https://…'",
            r"tokenization_chatglm\.py is missing: copy that file",
        ),
        ("ValueError", "Couldn't instantiate the backend tokenizer from one of: (1) …", "not all there"),
        ("ValueError", "We couldn't connect to 'https://huggingface.co'", r"not all there.*nothing is downloaded"),
        ("ValueError", "bad\nluck", r"fails under .*: ValueError: bad luck"),
    ],
)
def test_errors_in_our_words(open_one: Opener, error: str, message: str, ours: str) -> None:
    with pytest.raises(BuildError, match=ours) as caught:
        open_one(raises=[error, message])
    assert "\n" not in str(caught.value)


def test_padding_that_its_code_does_not_know(open_one: Opener) -> None:
    with pytest.raises(ValueError, match=r"older than transformers 4\.99\.0 .*padding_side"):
        open_one(pads=True).encode("a")


def test_an_interpreter_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(BuildError, match="needs transformers, which"):
        ProcessTokenizer((sys.executable, "-S"), tmp_path)


def test_no_interpreter(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"nowhere/python cannot be started .*python=PATH"):
        ProcessTokenizer(("/nowhere/python",), tmp_path)


def test_an_interpreter_that_is_none_leaves_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"ended, its last words: no such image:"):
        ProcessTokenizer(("sh", "-c", "echo no such image >&2; exit 1"), tmp_path)


def test_a_child_that_dies_is_a_build_error(open_one: Opener) -> None:
    tokenizer = open_one(dies=True)
    with pytest.raises(BuildError, match=r"tokenizer process .* ended"):
        tokenizer.encode("a")
    with pytest.raises(BuildError, match="ended"):
        tokenizer.encode("a")


def test_the_launcher_may_be_a_container_command(open_one: Opener) -> None:
    assert open_one(launcher=("env", "INSIDE=1", sys.executable)).encode("a") == (3,)


def test_the_child_goes_with_its_tokenizer(open_one: Opener, tmp_path: Path) -> None:
    open_one()
    tokenizer = ProcessTokenizer((sys.executable,), tmp_path)
    process = tokenizer._process
    del tokenizer
    gc.collect()
    assert process.returncode == 0


def test_a_build_and_its_spec(open_one: Opener, tmp_path: Path) -> None:
    open_one().close()
    build = read_build("a", made.write_current(tmp_path / "engine"), tokenizer=tmp_path, trust_remote_code=True)
    spec = json.loads(json.dumps(tokenizer_spec(build)))
    assert spec["trust_remote_code"] is True
    tokenizer = tokenizer_from_spec(spec)
    assert isinstance(tokenizer, ProcessTokenizer)
    assert tokenizer.encode("b") == (4,)
    tokenizer.close()
    with pytest.raises(BuildError, match=r"--tokenizer .*nowhere is no directory"):
        open_tokenizer(replace(build, tokenizer=tmp_path / "nowhere"))


def test_what_lies_where_the_harness_runs_is_not_imported(
    open_one: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transformers.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert os.environ["PYTHONPATH"] == str(STANDINS)
    assert open_one().encode("a") == (3,)
