"""A Triton server of our own for a build: of which repository, with which program, and what it is to be told.

A reference build is served by the server of the wheel, a TensorRT-LLM build by the tritonserver of the image that
enginebench runs in, from the templates that lie there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.builds.build import Build
from enginebench.errors import ServerError
from enginebench.measure.world import Wrapper
from enginebench.run.attached import Attached, OwnServer
from enginebench.run.direct import check_gpus, runtime_of
from enginebench.run.plan import Plan
from enginebench.server.embedded import find_embedded
from enginebench.server.filled import FilledRepository, fill_repository
from enginebench.server.filling import Demand
from enginebench.server.image import ImageTriton, find_image
from enginebench.server.installation import Installation, WrappedInstallation
from enginebench.server.launch import TritonServer
from enginebench.server.repository import write_reference_repository


@dataclass(frozen=True, slots=True)
class Prepared:
    """A server that can be started: nothing is left to be found out."""

    build: Build
    bls_instances: int
    repository: FilledRepository | None  # None: that of a reference build
    program: ImageTriton | None  # None: the server of the wheel

    def start(
        self, directory: Path, logs: Path, http_port: int | None = None, *, wrapper: Wrapper | None = None
    ) -> TritonServer:
        """Write the repository into ``directory`` and serve it, under ``wrapper``. Raises ServerError."""
        if self.repository is None:
            write_reference_repository(self.build, directory, bls_instances=self.bls_instances)
        else:
            self.repository.write(directory)
        program: Installation | None = self.program
        if wrapper is not None:
            program = WrappedInstallation(program or find_embedded(), wrapper.command, wrapper.env)
        return TritonServer.start(directory, logs, http_port, installation=program)

    def as_json(self) -> dict[str, Any] | None:
        """The ``repository`` of a session in run.json; None for a reference build's, in which nothing is filled."""
        return None if self.repository is None else self.repository.as_json()


def check_own_server(plan: Plan, attached: Attached, paths: Collection[str]) -> tuple[str, ...]:
    """What there is to worry about in a server that ``plan`` would start; raises as ``prepare`` does.

    Asked before anything is measured, so that nobody waits for half a run to be told what was wrong from the start.
    """
    own = attached.own
    if not attached.starts(paths) or plan.build.kind == "reference":
        if own.fills_templates:
            raise ServerError("--templates and --set are of no use here: no server of a TensorRT-LLM build is started.")
        return ()
    reuse = any(each.scenario.kv_cache_reuse for each in plan.cells if each.cell.path in paths)
    prepared = prepare(plan.build, plan.connections, own, plan.engine, kv_cache_reuse=reuse)
    return prepared.repository.warnings if prepared.repository else ()


def prepare(
    build: Build,
    concurrency: int,
    own: OwnServer,
    engine: Mapping[str, Any] | None = None,
    *,
    kv_cache_reuse: bool = False,
    gpus: int | None = None,
) -> Prepared:
    """Find program and templates for ``build`` and fill them; writes and starts nothing.

    ``concurrency``: most requests in flight. ``engine``: settings, as of the path direct. ``gpus``: how many there are.

    Raises:
        BuildError: the build needs more GPUs than there are.
        ServerError: there is no server or no templates for it, or they cannot work together.
    """
    instances = concurrency if own.bls else 1
    check_gpus(build, gpus)
    if build.kind == "reference":
        return Prepared(build, min(instances, build.limits.max_batch_size or instances), None, None)
    options = runtime_of(build, engine)[1]
    demand = Demand(
        bls_concurrency=instances,
        kv_cache_reuse=kv_cache_reuse,
        kv_cache_tokens=options.get("kv_cache_tokens"),
        kv_cache_fraction=options.get("kv_cache_fraction"),
        scheduler_policy=options.get("scheduler_policy") or "guaranteed_no_evict",
        chunked_context=bool(options.get("chunked_context")),
        overrides=own.overrides,
    )
    repository = fill_repository(build, demand, own.templates)
    pytorch = build.kind == "pytorch"
    backend = "python" if pytorch else "tensorrtllm"
    program = find_image(build.world_size, backend=backend, with_mpi=not pytorch, python=build.python)
    return Prepared(build, instances, repository, program)
