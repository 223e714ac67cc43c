"""What becomes of a command when nobody reads what it prints, or when it cannot be written."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enginebench.cli import main
from enginebench.files import write_text

SCHEMA = [sys.executable, "-m", "enginebench.cli", "schema"]


def said(stdout: int) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(SCHEMA, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_a_command_ends_as_it_would_though_nobody_reads_on() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = said(writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_on_a_full_disk_is_an_error() -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = said(full.fileno())
    assert done.returncode == 1
    assert done.stderr == (
        "enginebench: The output cannot be written (No space left on device); free some space or print elsewhere.\n"
    )


def test_a_closed_output_is_no_error() -> None:
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *SCHEMA], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_of_few_characters_shows_all() -> None:
    code = "from enginebench.cli.output import printing\nwith printing(): print('\u2713')"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=ascii_only, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\\u2713\n")


def test_a_device_is_written_to_and_stays() -> None:
    reader, writer = os.pipe()
    write_text(Path(f"/dev/fd/{writer}"), "hello")
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "hello"


def test_a_pipe_in_the_file_system_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "hello")
    assert os.read(reader, 10) == b"hello"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("old", encoding="utf-8")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text(encoding="utf-8") == "new"


def test_memory_that_does_not_suffice_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    class Endless(list[str]):
        def __iter__(self) -> Iterator[str]:
            raise MemoryError  # as Python does: without a word

    assert main(Endless()) == 1
    assert capsys.readouterr().err == "enginebench: There is not enough memory: end other programs.\n"


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "0", "1e22"])
def test_what_is_no_number_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "--rate", number])
    assert ended.value.code == 2
    assert f"{number} is no number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tokens", "999999999"], "tokens has no end: lower --tokens"),
        (["--seconds", "1e8"], "tokens has no end"),
        (["--rate", "1e-6"], "An answer of 6.4e+07 s has no end"),
    ],
)
def test_a_calibration_without_end_is_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == 1
    assert sentence in capsys.readouterr().err
