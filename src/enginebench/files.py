"""Files that are whole or not there: written aside, synced and renamed. Knows nothing of what is in them."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from enginebench.errors import RunError


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Replace ``path`` by what ``write`` makes, at once: whatever happens, it holds the old or the new, whole.

    A link stays, and what it leads to is replaced; a device or a pipe, such as ``/dev/stdout``, is written to; the
    directories that lead to it are made.
    """
    path = Path(os.path.realpath(path)) if path.is_file() else path
    if path.exists() and not path.is_file():
        write(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file ``path`` by ``text``. Raises RunError."""
    with writing(path):
        write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def check_writable(path: Path) -> None:
    """Raise RunError where no file can be written as ``path``; nothing is changed there."""
    with writing(path):
        is_new = not path.exists()
        path.open("ab").close()
        if is_new:
            path.unlink()


def sync(path: Path) -> None:
    """Have the system write a file or directory out."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about writing ``path`` into a RunError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path} cannot be written ({reason}); free some space or choose another directory.") from error
