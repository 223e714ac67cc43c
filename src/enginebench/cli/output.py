"""What commands print, whatever becomes of its reader. Knows nothing of what is printed."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TextIO

from enginebench.errors import RunError


class _Output(io.TextIOBase):
    """``stream``, until its reader leaves, as ``head`` does: what follows goes nowhere, and the command goes on."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def write(self, text: str, /) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            self._drop()
        except OSError as error:
            self._drop()
            raise RunError(
                f"The output cannot be written ({error.strerror}); free some space or print elsewhere."
            ) from error

    def _drop(self) -> None:
        """Let what is buffered, and all that follows, go nowhere: Python itself writes once more when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def printing() -> Iterator[None]:
    """Let a command print and end as it would, though nobody reads on. Raises RunError if the disk is full."""
    if sys.stdout is None:  # closed by who started the command
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
        return
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal of few characters shows the others as \u2713
        sys.stdout.reconfigure(errors="backslashreplace")
    with redirect_stdout(_Output(sys.stdout)):
        try:
            yield
        finally:
            sys.stdout.flush()
