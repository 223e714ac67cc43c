"""A Hugging Face tokenizer in a child process, run by the interpreter (or container) that the build names.

So the harness needs no transformers, and each build has the version that its tokenizer's code was written for. The
child's side is ``hf_tokenizer.py``. Standard library only.
"""

import json
import os
import select
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from enginebench.builds import hf_tokenizer
from enginebench.builds.tokenizer_errors import explain
from enginebench.errors import BuildError

OPEN_TIMEOUT_S = 180.0  # importing transformers from a network file system takes its time
ANSWER_TIMEOUT_S = 120.0
EXIT_TIMEOUT_S = 5.0
PLAIN_IDS = 2048
"""As many ids to draw synthetic prompts from are looked for."""

_LOG_LINES = 5


class ProcessTokenizer:
    """Meets ``builds.tokenizer.Tokenizer``. Used by any number of threads; one question is answered at a time."""

    def __init__(self, launcher: Sequence[str], directory: Path, *, trust_remote_code: bool = False):
        """Start the child and have it open the tokenizer. Raises BuildError that says what is wrong with it."""
        self._launcher, self._directory = tuple(launcher), directory
        self._lock = threading.Lock()
        self._unread = b""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = self._start("trust" if trust_remote_code else "distrust")
        weakref.finalize(self, _end, self._process, self._log)
        self.facts: Mapping[str, Any] = self._opened()

    @property
    def identifies_ids(self) -> bool:
        """No: several sequences of ids have the same text in a vocabulary that merges."""
        return False

    @cached_property
    def plain_ids(self) -> Sequence[int]:
        """Ids whose printable text is encoded back to them, found by trying; some seconds the first time."""
        return tuple(self._ask({"op": "plain_ids", "wanted": PLAIN_IDS})["ids"])

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of ``text``, without special tokens. Raises ValueError when the tokenizer does."""
        return tuple(self._ask({"op": "encode", "text": text})["ids"])

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ``ids``, special tokens left out. Raises ValueError when the tokenizer does."""
        return str(self._ask({"op": "decode", "ids": [int(token_id) for token_id in ids]})["text"])

    def close(self) -> None:
        """End the child; safe to call again."""
        _end(self._process, self._log)

    def _start(self, trust: str) -> "subprocess.Popen[bytes]":
        source = Path(hf_tokenizer.__file__).read_text(encoding="utf-8")
        command = [*self._launcher, "-c", source, str(self._directory.absolute()), trust]
        try:
            return subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is for the harness; the end of its input ends the child
            )
        except OSError as error:
            self._log.close()
            raise BuildError(
                f"{self._launcher[0]} cannot be started ({error.strerror}) to open the tokenizer {self._directory}: "
                "name an interpreter that can with --build NAME=DIR,python=PATH."
            ) from error

    def _opened(self) -> Mapping[str, Any]:
        try:
            facts = self._read(OPEN_TIMEOUT_S)
            if "error" in facts:
                raise BuildError(explain(facts, self._directory, self._launcher))
        except BuildError:
            self.close()
            raise
        return facts

    def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._lock:
            self._write(json.dumps(question).encode("ascii") + b"\n")
            answer = self._read(ANSWER_TIMEOUT_S)
        if "error" in answer:
            raise ValueError(explain(answer, self._directory, self._launcher))
        return answer

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        unsent = memoryview(line)
        try:
            while unsent:
                unsent = unsent[self._process.stdin.write(unsent) or 0 :]
        except (OSError, ValueError) as error:
            raise self._gone("ended") from error

    def _read(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor, deadline_s = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._unread:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
                raise self._gone(f"said nothing for {timeout_s:.0f} s")
            part = os.read(descriptor, 1 << 16)
            if not part:
                raise self._gone("ended")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self, how: str) -> BuildError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)  # its last words are still on their way
        words = ""
        if not self._log.closed:
            self._log.seek(0)
            words = " | ".join(self._log.read().decode("utf-8", "replace").split("\n")[-_LOG_LINES - 1 :]).strip(" |")
        self.close()
        return BuildError(
            f"The tokenizer process of {self._directory} ({' '.join(self._launcher)}) {how}"
            f"{f', its last words: {words}' if words else ''}: run that interpreter by hand to see why."
        )


def _end(process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    log.close()
