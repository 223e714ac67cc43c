"""The harness's end of a supervised server: start it under ``supervisor``, know whether it lives, end it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from enginebench.errors import ServerError
from enginebench.server.logs import last_lines
from enginebench.server.supervisor import ENVIRONMENT, remove_leftovers

FORCED_END_S = 10.0


class SupervisedServer:
    """A server process whose supervisor ends it, and cleans up, when this process stops holding on to it."""

    def __init__(self, name: str, scratch: Path, log: Path) -> None:
        """``name`` begins the name of all its shared memory; ``scratch`` goes when it goes; ``log`` is appended to."""
        self.name = name
        self._scratch = scratch
        self._log = log

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start ``command`` and return its pid. Raises ServerError when the supervisor does not come up."""
        order = {
            "name": self.name,
            "scratch": str(self._scratch),
            "log": str(self._log),
            "command": command,
            "environment": environment,
        }
        self._environments = _environments()
        self._supervisor = self._start_supervisor()
        with contextlib.suppress(BrokenPipeError):
            self._tell(json.dumps(order))
        assert self._supervisor.stdout is not None
        with self._supervisor.stdout as answers:
            pid = answers.readline()
        if not pid:
            self.stop(0.0)
            raise ServerError(f"Triton's supervisor did not start: {' / '.join(last_lines(self._log))}")
        return int(pid)

    def _start_supervisor(self) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "enginebench.server.supervisor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the harness, which then stops us in order
            )

    def claim_environment(self) -> None:
        """Have the directory removed that Triton's python backend, now loaded, made since the start.

        It does so itself in an orderly end alone, which takes over a second for each BLS instance. The name tells
        nothing: where other servers made theirs meanwhile, nobody knows whose is whose, and all stay.
        """
        made = _environments() - self._environments
        if len(made) == 1:
            (self._scratch / ENVIRONMENT).symlink_to(made.pop())

    def ending(self, wait_s: float = 0.0) -> str | None:
        """How the server ended, in words, or None when it has not within ``wait_s``."""
        try:
            code = self._supervisor.wait(wait_s)
        except subprocess.TimeoutExpired:
            return None
        if code > 128:
            return f"killed by signal {code - 128}"
        return f"killed with its supervisor by signal {-code}" if code < 0 else f"exit code {code}"

    def stop(self, grace_s: float) -> None:
        """End the server, by force after ``grace_s``, and remove what is left of it. May be called twice."""
        if grace_s:
            with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
                self._tell("stop")
                self._supervisor.wait(grace_s)
        assert self._supervisor.stdin is not None
        with contextlib.suppress(OSError):
            self._supervisor.stdin.close()  # the supervisor ends the server at once
        try:
            self._supervisor.wait(FORCED_END_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        remove_leftovers(self.name, self._scratch)  # the supervisor may have been killed before it could

    def _tell(self, line: str) -> None:
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.write(line.encode() + b"\n")
        self._supervisor.stdin.flush()


def _environments() -> set[Path]:
    return set(Path("/tmp").glob("python_env_*"))  # noqa: S108 - the python backend asks nobody where to put them
