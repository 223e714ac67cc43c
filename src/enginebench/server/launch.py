"""A managed Triton server: on a free loopback port, trusted only once it proved itself, stopped without a trace.

Knows what ready and alive mean; ``process`` and ``supervisor`` start it and clean up after it, whatever becomes of us.
"""

import contextlib
import itertools
import secrets
import socket
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil

from enginebench.errors import ServerError
from enginebench.server.embedded import (
    EmbeddedTriton,
    find_embedded,
    server_environment,
    write_backends,
    write_python_home,
)
from enginebench.server.logs import last_lines, says_port_taken
from enginebench.server.probe import server_name, stream_events
from enginebench.server.process import SupervisedServer

STOP_GRACE_S = 2.0  # an orderly unload takes over a second for each BLS instance and saves nothing
LAUNCHES = 3  # a free port can be taken between asking and binding
CANARY_TOKENS = 4
POLL_S = 0.05
CLEANUP_S = 2.0


class _PortTakenError(Exception):
    """Somebody else listens on the port that the server was given."""


class TritonServer:
    """A running server with everything that belongs to it. Use ``start``; leaving the context stops it."""

    def __init__(self, process: SupervisedServer, pid: int, port: int, log_path: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid
        self.log_path = log_path
        self._process = process
        self._stubs: list[tuple[str, psutil.Process]] = []

    @classmethod
    def start(
        cls, repository: Path, log_dir: Path, http_port: int | None = None, ready_timeout_s: float = 120.0
    ) -> "TritonServer":
        """Serve the model ``repository`` and return when a canary request has streamed tokens through the ensemble.

        The log goes to ``log_dir/tritonserver.log`` (``-2`` and so on for later servers). Without ``http_port`` a free
        one is chosen.

        Raises:
            ServerError: it cannot be started, did not get ready within ``ready_timeout_s``, or the port is in use.
        """
        embedded = find_embedded()
        for _ in range(LAUNCHES):
            port = _free_port(http_port)
            server = cls._launch(embedded, repository, log_dir, port)
            try:
                server.wait_ready(ready_timeout_s)
            except _PortTakenError:
                server.stop(grace_s=0.0)
                if http_port is not None:
                    raise _port_in_use(port) from None
            except BaseException:  # Ctrl-C, too
                server.stop(grace_s=0.0)
                raise
            else:
                return server
        raise ServerError(f"Triton found its port taken {LAUNCHES} times in a row; see {log_dir}.")

    @classmethod
    def _launch(cls, embedded: EmbeddedTriton, repository: Path, log_dir: Path, port: int) -> "TritonServer":
        name = f"enginebench-{secrets.token_hex(5)}"
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        write_backends(embedded, scratch / "backends")
        write_python_home(scratch / "python")
        # Python in the stub takes paths to be ASCII: the repository is reached through one that is.
        (scratch / "models").symlink_to(repository.resolve())
        log = _new_log(log_dir)
        process = SupervisedServer(name, scratch, log)
        command = _command(embedded, scratch, name, port)
        return cls(process, process.start(command, server_environment(embedded, scratch / "python")), port, log)

    def wait_ready(self, timeout_s: float) -> None:
        """Return when the server answers under our id, lives, and has streamed at least two events.

        Raises:
            ServerError: it ended, or was not ready within ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while server_name(self.url) != self._process.name:
            self._check_starting()
            if time.monotonic() > deadline:
                raise ServerError(f"Triton was not ready within {timeout_s:g} s{self._log_end()}")
            time.sleep(POLL_S)
        self._check_starting()
        self._stubs = _stubs(self.pid)
        self._check_canary(timeout_s)

    def check_alive(self) -> None:
        """Notice what Triton's own health endpoint does not: that the server or the process of a model has died.

        Raises:
            ServerError: something died; with the last lines of the log.
        """
        dead = next(((model, stub) for model, stub in self._stubs if not _alive(stub)), None)
        # Stubs die with their server, whose own end is known once its supervisor has cleaned up.
        if ending := self._process.ending(wait_s=CLEANUP_S if dead else 0.0):
            raise ServerError(f"Triton died while it was needed ({ending}){self._log_end()}")
        if dead:
            raise ServerError(f"The process of Triton's model {dead[0]!r} (pid {dead[1].pid}) died{self._log_end()}")

    def pids(self) -> tuple[int, ...]:
        """The server's pid, then those of the processes that run its models; empty when it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return (self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True)))
        return ()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the server, by force after ``grace_s``, and remove what is left of it. May be called twice."""
        self._process.stop(grace_s)

    def __enter__(self) -> "TritonServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_starting(self) -> None:
        ending = self._process.ending()
        if ending and says_port_taken(self.log_path):
            raise _PortTakenError
        if ending:
            raise ServerError(f"Triton did not start ({ending}){self._log_end()}")

    def _check_canary(self, timeout_s: float) -> None:
        inputs = {"text_input": "canary", "max_tokens": CANARY_TOKENS, "stream": True}
        events = sum(1 for _ in stream_events(self.url, "ensemble", inputs, timeout_s))
        if events < 2:
            raise ServerError(
                f"Triton streamed {CANARY_TOKENS} tokens in {events} event(s), so it does not stream: "
                f"is its model 'tensorrt_llm' decoupled?{self._log_end()}"
            )

    def _log_end(self) -> str:
        lines = last_lines(self.log_path)
        if not lines:
            return f"; see its log {self.log_path}."
        return f"; its log {self.log_path} ends with:\n  " + "\n  ".join(lines)


def _command(embedded: EmbeddedTriton, scratch: Path, name: str, port: int) -> list[str]:
    return [
        str(embedded.binary),
        f"--id={name}",
        f"--model-repository={scratch / 'models'}",
        f"--backend-directory={scratch / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",  # nothing here speaks it
        "--allow-metrics=false",  # the python backend has no engine metrics to show
        "--disable-auto-complete-config",  # what is not in config.pbtxt is not there
        f"--backend-config=python,shm-region-prefix-name={name}",
    ]


def _new_log(directory: Path) -> Path:
    """An empty log file of its own for each server, so that no ending is explained with another's last words."""
    directory.mkdir(parents=True, exist_ok=True)
    names = (f"tritonserver{f'-{number}' if number > 1 else ''}.log" for number in itertools.count(1))
    log = next(directory / name for name in names if not (directory / name).exists())
    log.touch()
    return log


def _free_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OverflowError:
            raise ServerError(
                f"{wanted} is no port: use a number up to 65535, or let enginebench choose one."
            ) from None
        except OSError as error:
            raise _port_in_use(wanted or 0) from error
        return int(probe.getsockname()[1])


def _port_in_use(port: int) -> ServerError:
    return ServerError(
        f"Port {port} on 127.0.0.1 is in use by another program: stop it, or let enginebench choose a free port."
    )


def _stubs(pid: int) -> list[tuple[str, psutil.Process]]:
    """The processes that run the models, each with the name of its model."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            path = next((argument for argument in process.cmdline() if argument.endswith("/model.py")), None)
            if path:
                found.append((Path(path).parent.parent.name, process))
    return found


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
