"""One hash for what a build's files hold; large ones are read once."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds import fingerprint as module
from enginebench.builds.fingerprint import file_hash, fingerprint
from enginebench.errors import BuildError

OLD_NS = 1_700_000_000_000_000_000


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "REMEMBERED_BYTES", 4)
    return tmp_path / "cache" / "enginebench" / "hashes"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    file = tmp_path / "rank0.engine"
    file.write_bytes(b"12345")
    os.utime(file, ns=(OLD_NS, OLD_NS))
    return file


def remembered(memory: Path) -> list[Path]:
    return list(memory.iterdir()) if memory.is_dir() else []


def test_a_large_file_is_read_once(memory: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_hash(engine)
    assert len(remembered(memory)) == 1
    monkeypatch.setattr(module, "_hash", lambda _: pytest.fail("read again"))
    assert file_hash(engine) == first
    assert file_hash(engine.parent / "." / engine.name) == first


@pytest.mark.parametrize("what", ["content", "time", "size"])
def test_a_changed_file_is_read_again(memory: Path, engine: Path, what: str) -> None:
    first = file_hash(engine)
    engine.write_bytes(b"123456" if what == "size" else b"54321" if what == "content" else b"12345")
    os.utime(engine, ns=(OLD_NS, OLD_NS + (what != "size")))
    again = file_hash(engine)
    assert (again == first) == (what == "time")
    assert len(remembered(memory)) == 2


def test_another_file_in_its_place_is_read_again(memory: Path, engine: Path) -> None:
    first = file_hash(engine)
    other = engine.parent / "other"
    other.write_bytes(b"54321")
    os.utime(other, ns=(OLD_NS, OLD_NS))
    other.replace(engine)
    assert file_hash(engine) != first


def test_small_and_fresh_files_are_not_remembered(memory: Path, tmp_path: Path, engine: Path) -> None:
    small = tmp_path / "config.json"
    small.write_bytes(b"{}")
    os.utime(small, ns=(OLD_NS, OLD_NS))
    engine.write_bytes(b"just written")
    fingerprint([small, engine])
    assert remembered(memory) == []


def test_a_broken_memory_is_no_memory(memory: Path, engine: Path) -> None:
    first = file_hash(engine)
    remembered(memory)[0].write_text("half a ha")
    assert file_hash(engine) == first
    assert remembered(memory)[0].read_text() == first


def test_a_home_that_cannot_be_written_to(memory: Path, engine: Path) -> None:
    memory.parent.parent.write_text("a file in the way")
    assert len(file_hash(engine)) == 64


def test_a_file_that_grows_meanwhile(memory: Path, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_while_written(place: Path) -> str:
        place.write_bytes(place.read_bytes() + b"more")
        return "0" * 64

    monkeypatch.setattr(module, "_hash", hash_while_written)
    with pytest.raises(BuildError, match=r"rank0\.engine changed while it was read"):
        file_hash(engine)
    assert remembered(memory) == []


def test_a_missing_file_is_a_build_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot be read .*gone\.engine"):
        fingerprint([tmp_path / "gone.engine"])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=4)), min_size=2, max_size=2, unique=True))
def test_names_and_contents_both_count(files: list[tuple[str, bytes]]) -> None:
    import tempfile

    prints = []
    for name, content in files:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / name
            file.write_bytes(content)
            prints.append(fingerprint([file]))
    assert prints[0] != prints[1]
