"""What a server needs from the place that its program comes from: the wheel's ``embedded``, or ``image``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enginebench.server.tracing import trace_arguments


@dataclass(frozen=True, slots=True)
class Place:
    """Where one server runs. All paths that end up in arguments of the server are ASCII."""

    name: str  # the server's id, with which its shared memory begins
    scratch: Path  # a directory that goes when it goes
    repository: Path  # of models
    http_port: int
    metrics_port: int
    log: Path  # of the process that is started

    @property
    def trace_file(self) -> Path:
        """What the server writes traces of single requests to, once it is asked for them."""
        return self.scratch / "trace.json"

    def rank_log(self, rank: int) -> Path:
        """Where rank ``rank`` of several writes."""
        return self.log.with_name(f"{self.log.stem}-rank{rank}{self.log.suffix}")


class Installation(Protocol):
    """A tritonserver that can be started."""

    @property
    def ready_timeout_s(self) -> float:
        """How long a server that lives may take to get ready."""

    @property
    def stop_grace_s(self) -> float:
        """How long it may take to end once it is asked to."""

    def prepare(self, scratch: Path) -> Mapping[str, str]:
        """Put into ``scratch`` what the server needs; return its environment."""

    def command(self, place: Place) -> Sequence[str]:
        """The program and its arguments."""

    def logs(self, place: Place) -> Sequence[Path]:
        """Every file that the server writes what it has to say to."""


@dataclass(frozen=True, slots=True)
class WrappedInstallation:
    """An installation whose server another program runs, such as a profiler."""

    inner: Installation
    wrapper: tuple[str, ...]  # the program and its arguments, before those of the server
    env: Mapping[str, str]

    @property
    def ready_timeout_s(self) -> float:
        """As the installation's."""
        return self.inner.ready_timeout_s

    @property
    def stop_grace_s(self) -> float:
        """As the installation's."""
        return self.inner.stop_grace_s

    def prepare(self, scratch: Path) -> Mapping[str, str]:
        """As the installation does."""
        return {**self.inner.prepare(scratch), **self.env}

    def command(self, place: Place) -> Sequence[str]:
        """The wrapper, then the server."""
        return [*self.wrapper, *self.inner.command(place)]

    def logs(self, place: Place) -> Sequence[Path]:
        """As the installation's."""
        return self.inner.logs(place)


def listening(place: Place) -> list[str]:
    """Arguments of a server that only this machine reaches, over HTTP, under its own id."""
    return [
        f"--id={place.name}",
        f"--model-repository={place.repository}",
        "--http-address=127.0.0.1",
        f"--http-port={place.http_port}",
        "--allow-grpc=false",  # nothing here speaks it
        "--metrics-address=127.0.0.1",
        f"--metrics-port={place.metrics_port}",
        *trace_arguments(place.trace_file),
        "--disable-auto-complete-config",  # what is not in config.pbtxt is not there
    ]
