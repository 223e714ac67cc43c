"""The truth server as the harness sees it: a child process that is given a script, and asked afterwards what happened.

Reads what ``truth_server`` tells, and compares nothing: that is ``calibration``'s.
"""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType

import numpy as np

from enginebench.errors import ServerError
from enginebench.measure.records import Stamps
from enginebench.measure.truth_server import COLUMNS, MODEL, TOKEN_COLUMNS, Script

_TIMEOUT_S = 30.0
_EXIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What really happened in a round. Requests in the order in which they arrived; tokens in that order, too."""

    key: Stamps  # shape (requests,): the first input id
    arrived_ns: Stamps  # shape (requests,): the kernel's stamp on the request's last byte
    tokens: Stamps  # shape (requests,): how many left
    due_ns: Stamps  # shape (sum of tokens,): when the script wanted each out
    before_ns: Stamps  # just before the call that handed it to the kernel: it left then, or up to …
    after_ns: Stamps  # … here, which is late when the client woke up and took the core
    clock_steps: int  # seen since the server started

    @property
    def left_ns(self) -> Stamps:
        """When each token left. Over loopback it is received within the same call, so the start of that is taken."""
        return self.before_ns


def read_truth(data: bytes) -> Truth:
    """Parse what ``GET /truth`` gave. Raises ServerError for anything else."""
    head, _, rest = data.partition(b"\n")
    try:
        said = json.loads(head)
        numbers = np.frombuffer(rest, dtype=np.int64)
        of_requests = numbers[: len(COLUMNS) * said["requests"]].reshape(len(COLUMNS), -1)
        of_tokens = numbers[of_requests.size :].reshape(len(TOKEN_COLUMNS), -1)
        key, arrived_ns, tokens = of_requests
        due_ns, before_ns, after_ns = of_tokens
        truth = Truth(key, arrived_ns, tokens, due_ns, before_ns, after_ns, int(said["clock_steps"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(f"The truth server told something that cannot be read ({error}): run it again.") from error
    if int(truth.tokens.sum()) != len(truth.due_ns):
        raise ServerError("The truth server told of more or fewer tokens than it counted: run it again.")
    return truth


class TruthServer:
    """A running truth server; a context manager. Used by one thread."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self._port = port
        self.url = f"http://127.0.0.1:{port}"
        self.model = MODEL

    @classmethod
    def start(cls) -> "TruthServer":
        """Start one on a free port of 127.0.0.1. Raises ServerError."""
        process = subprocess.Popen(
            [sys.executable, "-m", "enginebench.measure.truth_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            process.kill()
            process.wait()
            raise ServerError("The truth server did not start: see its message above.")
        return cls(process, int(line))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def follow(self, script: Script) -> None:
        """Set the script of the requests to come; what happened before is forgotten. Raises ServerError."""
        self._ask("POST", "/script", json.dumps(asdict(script)).encode())
        self.truth()

    def truth(self) -> Truth:
        """What happened since this was asked for last. Raises ServerError."""
        return read_truth(self._ask("GET", "/truth"))

    def stop(self) -> None:
        """End the process. May be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "TruthServer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read()
        except (OSError, HTTPException) as error:
            raise ServerError(f"The truth server at {self.url} does not answer ({error}): run it again.") from error
        finally:
            connection.close()
