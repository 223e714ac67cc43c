"""The worker, and for server paths the Triton server, that stand behind the cell at hand.

At most one engine is loaded at a time: cells arrive sorted by path, cells of one path share a worker, and the server
paths share a server. What each session cost, in time and memory, is kept for the run's record.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginebench.builds.build import Build
from enginebench.builds.tokenizer import tokenizer_spec
from enginebench.errors import EnginebenchError
from enginebench.measure.lease import GpuLease
from enginebench.measure.server_sampler import PageSample
from enginebench.measure.shards import Client, pids_of
from enginebench.measure.telemetry import MemoryPhases, Telemetry
from enginebench.measure.worker_process import Worker
from enginebench.run.attached import Attached
from enginebench.run.clients import ShardCount, connections_each, start_client
from enginebench.run.direct import check_gpus, runtime_of, visible_gpus, world_of
from enginebench.run.gpu import GpuWatch
from enginebench.run.managed import Prepared, prepare
from enginebench.run.watched import WatchedServers

if TYPE_CHECKING:
    from enginebench.measure.ledger import KvPool
    from enginebench.measure.world import Wrapper
    from enginebench.server.launch import TritonServer


class Sessions:
    """Opens, shares and closes the ways to one build; logs and model repository land in ``directory``, the run's.

    ``engine``: settings of an engine that is run directly, as the command line gave them.
    """

    def __init__(
        self,
        build: Build,
        directory: Path,
        telemetry: Telemetry,
        connections: int,
        attached: Attached,
        shards: ShardCount = 1,
        *,
        engine: Mapping[str, Any] | None = None,
        gpu: GpuWatch | None = None,
    ):
        self._build = build
        self._directory = directory
        self._telemetry = telemetry
        self._connections = connections
        self._attached = attached
        self._shards = shards
        self._settings = dict(engine or {})
        self._gpu = gpu or GpuWatch(telemetry, build)  # told of the engine that is loaded now
        self._engine = ExitStack()  # what to undo, last first, when the engine that is loaded now goes
        self._phases = MemoryPhases(telemetry, build.world_size)  # of that engine
        self._options: Mapping[str, Any] = {}  # that it was opened with, when it is run directly
        self._server: TritonServer | None = None
        self._served: Prepared | None = None  # what that server is of
        self._worker: Client | None = None
        self.watched: WatchedServers | None = None  # the servers behind the path at hand
        self._pages: list[PageSample] = []  # of servers that are watched no more
        self._way = ("", False)  # the path, and whether the engine reuses its KV cache
        self.lease = True  # False: somebody else holds the GPU lease meanwhile
        self.block = 0  # for which what is opened is opened
        self.wrapper: Wrapper | None = None  # runs the process that holds the engine, worker or server
        self._entries: list[tuple[dict[str, Any], MemoryPhases, KvPool]] = []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The ``sessions`` of run.json, as far as they are known."""
        return [entry | self._gpu.session(entry, phases, pool) for entry, phases, pool in self._entries]

    def use(self, path: str, kv_cache_reuse: bool = False) -> Client:
        """Return the worker that drives ``path``, opening what is missing and closing what would be in its way.

        What is started here is loaded anew when ``kv_cache_reuse`` changes; a running server has its own mind.

        Raises:
            EnginebenchError: engine or server cannot be started, or died since it was used last.
        """
        way = (path, kv_cache_reuse and not self._attached.urls_of(path))
        if self._worker is not None and way == self._way:
            self.check_alive()
            return self._worker
        self._close_worker()
        started_s = time.monotonic()
        if path == "direct":
            self._open_direct({**self._settings, "kv_cache_reuse": kv_cache_reuse})
        else:
            self._open_on_server(path, kv_cache_reuse)
        self._way = way
        assert self._worker is not None
        opened_s = time.monotonic() - started_s
        entry = {"path": path, "block": self.block, "facts": dict(self._worker.facts), "opened_s": opened_s}
        entry |= self.watched.facts() if self.watched else {}
        if path != "direct" and self._served is not None and (filled := self._served.as_json()):
            entry["repository"] = filled
        served_tokens = self.watched.kv_tokens() if self.watched else None
        settings = self._options if path == "direct" else {}
        self._gpu.loaded(self._phases, self._worker.facts, settings, served_tokens)
        self._entries.append((entry, self._phases, self._gpu.pool))
        return self._worker

    @property
    def pages(self) -> list[PageSample]:
        """What was new on the metrics pages of servers so far."""
        return self._pages + (self.watched.pages() if self.watched else [])

    @property
    def server(self) -> "TritonServer | None":
        """The server that was started for the path at hand."""
        return self._server

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the worker that is open now."""
        return tuple(pids_of(self._worker)) if self._worker else ()

    def check_alive(self) -> None:
        """Raise EnginebenchError when the worker, the server or the process of a model has died."""
        if self._server is not None:
            self._server.check_alive()
        if self._worker is not None:
            self._worker.check_alive()

    def death(self) -> EnginebenchError | None:
        """What died, if something did: the reason behind whatever else went wrong."""
        try:
            self.check_alive()
        except EnginebenchError as error:
            return error
        return None

    def discard(self) -> None:
        """Close everything that is open, so that the next cell starts afresh. Never raises."""
        for close in (self._close_worker, self._engine.close):
            with suppress(EnginebenchError):
                close()

    def close(self) -> None:
        """Close everything, also when Ctrl-C comes meanwhile; safe to call again. What is used later is opened anew."""
        try:
            self._close_worker()
        finally:
            self._engine.close()

    def _open_direct(self, settings: Mapping[str, Any]) -> None:
        self._engine.close()
        check_gpus(self._build, visible_gpus(self._build, self._telemetry.gpus))
        world = world_of(self._build, settings)
        runtime, options = runtime_of(self._build, settings)
        self._options = options
        self._prepare_engine()
        self._worker = Worker.start(self._build.launcher, self._log("direct"), world=world, wrapper=self.wrapper)
        self._watch("engine", self._worker.pid)
        self._worker.open(runtime, options)
        self._phases.after_load()

    def _open_on_server(self, path: str, kv_cache_reuse: bool) -> None:
        attached = self._attached.urls_of(path)
        urls = attached or (self._managed_url(kv_cache_reuse),)
        self._worker = start_client(self._shards, self._log(path))
        for pid in pids_of(self._worker):
            self._telemetry.watch("client", pid)
        connections = connections_each(self._worker, self._connections, len(urls))
        runtime, options = self._attached.options_of(path)
        options |= {"urls": list(urls), "tokenizer": tokenizer_spec(self._build), "connections": connections}
        self._worker.open(runtime, options)
        if runtime == "triton_http":
            own = None if attached else self._server
            self.watched = WatchedServers.open(self._build, self._worker, options, own, kv_cache_reuse=kv_cache_reuse)

    def _managed_url(self, kv_cache_reuse: bool) -> str:
        prepared = self._prepared(kv_cache_reuse)
        if self._server is not None and prepared == self._served:
            self._server.check_alive()
            return self._server.url
        self._engine.close()
        self._prepare_engine()
        repository, logs = self._directory / "model_repository", self._directory / "logs"
        self._server = prepared.start(repository, logs, wrapper=self.wrapper)
        self._served = prepared
        self._engine.callback(self._stop_server)
        self._watch("server", self._server.pid)
        self._phases.after_load()
        return self._server.url

    def _prepared(self, kv_cache_reuse: bool) -> Prepared:
        gpus = visible_gpus(self._build, self._telemetry.gpus)
        own = self._attached.own
        return prepare(self._build, self._connections, own, self._settings, kv_cache_reuse=kv_cache_reuse, gpus=gpus)

    def _log(self, path: str) -> Path:
        """Where the worker of ``path`` writes what it has to say."""
        return self._directory / "logs" / f"worker-{path}.log"

    def _stop_server(self) -> None:
        server, self._server, self._served = self._server, None, None
        if server is not None:
            server.stop()

    def _prepare_engine(self) -> None:
        """Before an engine is loaded: nobody else's is on the GPU, and what is used without it is known."""
        if self.lease:
            self._engine.enter_context(GpuLease(self._telemetry))
        self._phases = MemoryPhases(self._telemetry, self._build.world_size)
        self._phases.before_load()
        self._engine.callback(self._phases.after_unload)

    def _watch(self, role: str, pid: int) -> None:
        self._telemetry.watch(role, pid)
        self._engine.callback(self._telemetry.unwatch, role)

    def _close_worker(self) -> None:
        worker, self._worker, self._way = self._worker, None, ("", False)
        watched, self.watched = self.watched, None
        if watched is not None:
            self._pages += watched.close()
        if worker is not None:
            worker.close()
            self._telemetry.unwatch("client")
