"""A managed Triton server: on a free loopback port, trusted only once it proved itself, stopped without a trace.

Knows what ready and alive mean, whichever ``Installation`` the server is of; ``process`` and ``supervisor`` start it
and clean up after it, whatever becomes of us.
"""

import contextlib
import itertools
import secrets
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from enginebench.errors import ServerError
from enginebench.server.embedded import find_embedded
from enginebench.server.installation import Installation, Place
from enginebench.server.logs import explain_ending, says_held_up, says_port_taken
from enginebench.server.probe import canary_inputs, server_name, stream_events
from enginebench.server.process import SupervisedServer

LAUNCHES = 3  # a free port can be taken between asking and binding, and a busy machine can stand still for too long
PORTS = range(20_000, 30_000)  # below those that Linux gives to connections, of which a busy machine has thousands
STUB = "triton_python_backend_stub"
CANARY_TOKENS = 4
CANARY_STALL_S = 300.0  # a first request may compile kernels
POLL_S = 0.05
CLEANUP_S = 15.0  # of a supervisor whose server ended


class _AgainError(ServerError):
    """The server did not start, for a reason that another start need not meet."""


class TritonServer:
    """A running server with everything that belongs to it. Use ``start``; leaving the context stops it."""

    def __init__(self, installation: Installation, process: SupervisedServer, pid: int, place: Place) -> None:
        self.url = f"http://127.0.0.1:{place.http_port}"
        self.metrics_url = f"http://127.0.0.1:{place.metrics_port}/metrics"
        self.trace_file = place.trace_file
        self.pid = pid  # of the process that everything else of the server descends from
        self.log_path = place.log
        self._logs = installation.logs(place)
        self._installation = installation
        self._process = process
        self._processes: list[tuple[str, psutil.Process]] = []  # on which answers depend, with what they are

    @classmethod
    def start(
        cls,
        repository: Path,
        log_dir: Path,
        http_port: int | None = None,
        ready_timeout_s: float | None = None,
        installation: Installation | None = None,
    ) -> "TritonServer":
        """Serve the model ``repository`` and return when a canary request has streamed tokens through its models.

        The log goes to ``log_dir/tritonserver.log`` (``-2`` and so on for later servers). Without ``http_port`` a free
        one is chosen, without ``installation`` the server of the wheel.

        Raises:
            ServerError: it cannot be started, did not get ready within ``ready_timeout_s``, or the port is in use.
        """
        program: Installation = installation or find_embedded()
        for _ in range(LAUNCHES):
            port = free_port(http_port)
            server = cls._launch(program, repository, log_dir, port)
            try:
                model = "ensemble" if (repository / "ensemble").is_dir() else "tensorrt_llm"
                server.wait_ready(model, ready_timeout_s or program.ready_timeout_s)
            except _AgainError as error:
                server.stop(grace_s=0.0)
                if http_port is not None and not _is_free(http_port):
                    raise _port_in_use(port) from None
                failed = error
            except BaseException:  # Ctrl-C, too
                server.stop(grace_s=0.0)
                raise
            else:
                return server
        raise failed

    @classmethod
    def _launch(cls, program: Installation, repository: Path, log_dir: Path, port: int) -> "TritonServer":
        name = f"enginebench-{secrets.token_hex(5)}"
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        environment = program.prepare(scratch)
        # Python in the stub takes paths to be ASCII: the repository is reached through one that is.
        (scratch / "models").symlink_to(repository.resolve())
        place = Place(name, scratch, scratch / "models", port, _metrics_port(port), _new_log(log_dir))
        process = SupervisedServer(name, scratch, place.log)
        return cls(program, process, process.start(program.command(place), environment), place)

    def wait_ready(self, model: str, timeout_s: float) -> None:
        """Return when the server answers under our id, lives, and ``model`` has streamed at least two events.

        Raises:
            ServerError: it ended, or was not ready within ``timeout_s``; with the reason, where its log shows one.
        """
        deadline = time.monotonic() + timeout_s
        while server_name(self.url) != self._process.name:
            self._check_starting()
            if time.monotonic() > deadline:
                raise ServerError(f"Triton was not ready within {timeout_s:g} s{explain_ending(self._logs)}")
            time.sleep(POLL_S)
        self._check_starting()
        self._processes = _processes(self.pid)
        if _has_stubs(self._processes):
            self._process.claim_environment()
        self._check_canary(model, timeout_s)

    def check_alive(self) -> None:
        """Notice what Triton's own health endpoint does not: that the server or the process of a model has died.

        Raises:
            ServerError: something died; with the last lines of the log.
        """
        dead = next(((what, process) for what, process in self._processes if not _alive(process)), None)
        # How a server ended is known once its supervisor has cleaned up.
        if ending := self._process.ending(wait_s=CLEANUP_S if dead and dead[0] == "server" else 0.0):
            raise ServerError(f"Triton died while it was needed ({ending}){explain_ending(self._logs)}")
        if dead:
            which = f"The process of Triton's {dead[0]} (pid {dead[1].pid})"
            raise ServerError(f"{which} died{explain_ending(self._logs)}")

    def pids(self) -> tuple[int, ...]:
        """The server's pid, then those of the processes that run its models; empty when it is gone."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return (self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True)))
        return ()

    def models(self) -> list[tuple[str, int]]:
        """The processes that run models, each with what it is and its pid."""
        return [(what, process.pid) for what, process in self._processes if what != "server"]

    def stop(self, grace_s: float | None = None) -> None:
        """End the server, by force after ``grace_s``, and remove what is left of it. May be called twice."""
        self._process.stop(self._installation.stop_grace_s if grace_s is None else grace_s)

    def __enter__(self) -> "TritonServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_starting(self) -> None:
        if ending := self._process.ending():
            again = says_port_taken(*self._logs) or says_held_up(*self._logs)
            error = _AgainError if again else ServerError
            raise error(f"Triton did not start ({ending}){explain_ending(self._logs)}")

    def _check_canary(self, model: str, timeout_s: float) -> None:
        try:
            inputs = canary_inputs(self.url, model, CANARY_TOKENS)
            events = sum(1 for _ in stream_events(self.url, model, inputs, min(timeout_s, CANARY_STALL_S)))
        except ServerError as error:
            raise ServerError(f"{str(error).rstrip('.')}{explain_ending(self._logs)}") from error
        if events < 2:
            raise ServerError(
                f"Triton streamed {CANARY_TOKENS} tokens in {events} event(s), so it does not stream: "
                f"is its model 'tensorrt_llm' decoupled?{explain_ending(self._logs)}"
            )


def _new_log(directory: Path) -> Path:
    """An empty log file of its own for each server, so that no ending is explained with another's last words."""
    directory.mkdir(parents=True, exist_ok=True)
    names = (f"tritonserver{f'-{number}' if number > 1 else ''}.log" for number in itertools.count(1))
    log = next(directory / name for name in names if not (directory / name).exists())
    log.touch()
    return log


def free_port(wanted: int | None) -> int:
    """``wanted``, or any free port on 127.0.0.1. Raises ServerError for one that is none or in use."""
    if not wanted:
        return next(port for port in iter(lambda: secrets.choice(PORTS), None) if _is_free(port))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OverflowError:
            raise ServerError(
                f"{wanted} is no port: use a number up to 65535, or let enginebench choose one."
            ) from None
        except PermissionError:
            raise ServerError(
                f"Port {wanted} needs the rights of root: use one above 1023, or let enginebench choose one."
            ) from None
        except OSError as error:
            raise _port_in_use(wanted) from error
    return wanted


def _metrics_port(http_port: int) -> int:
    """Two above, as Triton's own ports lie, where whoever attaches looks for it; another one when that is taken."""
    return http_port + 2 if _is_free(http_port + 2) else free_port(None)


def _is_free(port: int) -> bool:
    with contextlib.suppress(ServerError):
        return bool(free_port(port))
    return False


def _port_in_use(port: int) -> ServerError:
    return ServerError(
        f"Port {port} on 127.0.0.1 is in use by another program: stop it, or let enginebench choose a free port."
    )


def _processes(pid: int) -> list[tuple[str, psutil.Process]]:
    """Process ``pid`` and those under it that answers depend on, each with what it is."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        found.append(("server", psutil.Process(pid)))
    for process in found[0][1].children(recursive=True) if found else ():
        with contextlib.suppress(psutil.NoSuchProcess):
            if model := _model_of(process.name(), process.cmdline()):
                found.append((f"model {model!r}", process))
    return found


def _has_stubs(processes: Sequence[tuple[str, psutil.Process]]) -> bool:
    """Whether the python backend is loaded: it runs every model in a stub."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(process.name() == STUB for _, process in processes)
    return False


def _model_of(name: str, command: list[str]) -> str | None:
    """The model that a process of the server runs: a stub's, or the core's for ranks and the LLM API's workers."""
    path = next((argument for argument in command if argument.endswith("/model.py")), None)
    if path:
        return Path(path).parent.parent.name
    # The kernel keeps 15 characters of a name.
    of_the_core = name in {"tritonserver", "trtllmExecutorW"} or "mpi4py.futures.server" in command
    return "tensorrt_llm" if of_the_core else None


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
