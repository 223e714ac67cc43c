"""Profiled reruns of cells that were measured before: engines are loaded anew, and nothing of the run's own is touched.

A rerun that breaks, or a profiler that is missing, is a reason in its profile.json; the run stays as good as it was.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from enginebench.builds.build import Build
from enginebench.builds.installed import installed_versions
from enginebench.errors import EnginebenchError
from enginebench.measure.telemetry import Telemetry
from enginebench.measure.worker_process import Worker
from enginebench.measure.world import Wrapper
from enginebench.profile import findings
from enginebench.profile.kinds import KINDS, MOST_CELLS
from enginebench.profile.nsys import ITERATIONS, MISSING, ServerCapture, find_nsys, worker_wrapper
from enginebench.profile.taking import IN_THE_SERVER, Taken, take
from enginebench.run.attached import Attached
from enginebench.run.block import Block
from enginebench.run.cell import CellRun
from enginebench.run.direct import world_of
from enginebench.run.plan import Plan, PlannedCell
from enginebench.run.progress import Progress
from enginebench.run.sessions import Sessions
from enginebench.store_profiles import profile_directory

Tell = Callable[[str], None]


def check_request(kinds: Sequence[str], plan: Plan, attached: Attached) -> None:
    """Raise EnginebenchError when ``plan`` has more cells than can be profiled, or a kind can be taken of none."""
    if kinds and len(plan.cells) > MOST_CELLS:
        raise EnginebenchError(
            f"--profile drives each cell once more, and {len(plan.cells)} are selected: narrow them to {MOST_CELLS} or "
            "fewer, e.g. with -k 'direct and bs008', or leave --profile out."
        )
    paths = {planned.cell.path for planned in plan.cells}
    for kind in kinds:
        reasons = [why_not(kind, path, plan.build, attached) for path in sorted(paths)]
        if reasons and all(reasons):
            raise EnginebenchError(f"--profile {kind}: {reasons[0]}")


def why_not(kind: str, path: str, build: Build, attached: Attached) -> str | None:
    """Why cells on ``path`` cannot be profiled so, as far as that is known beforehand; None: they may be."""
    if kind == "torch" and build.kind != "pytorch":
        return _why_no_torch(build) if path == "direct" else IN_THE_SERVER
    return _why_no_nsys(path, build, attached) if kind == "nsys" else None


def _why_no_nsys(path: str, build: Build, attached: Attached) -> str | None:
    if find_nsys() is None:
        return MISSING
    if attached.urls_of(path):
        return "A server that runs already cannot be put under Nsight Systems: let enginebench start it."
    if path == "direct" and len(build.launcher) > 1:
        return "The build's interpreter runs in a container: run enginebench, and nsys, inside it."
    if path == "direct" and not build.on_gpu:
        return f"Nsight Systems is opened and closed through CUDA, and build {build.name} computes on the host."
    return None


def _why_no_torch(build: Build) -> str | None:
    if "torch" in installed_versions(build.launcher):
        return None
    return f"{' '.join(build.launcher)}, which runs the engine, has no torch: install it there."


@dataclass(frozen=True, slots=True)
class Rerun:
    """Where the cells of ``plan`` are profiled: into ``directory``, the run's."""

    plan: Plan
    directory: Path
    attached: Attached
    telemetry: Telemetry
    tell: Tell

    def profile(self, kinds: Sequence[str], cell_ids: Sequence[str]) -> None:
        """Take each kind of profile of each cell, in the order of ``KINDS``.

        Raises:
            RunError: what was taken cannot be written.
        """
        cells = [planned for planned in self.plan.cells if planned.cell.id in cell_ids and not planned.not_applicable]
        self.telemetry.start()
        try:
            for kind in (kind for kind in KINDS if kind in kinds):
                for group in self._groups(kind, cells):
                    self._take(kind, group)
        finally:
            self.telemetry.stop()

    def _groups(self, kind: str, cells: Sequence[PlannedCell]) -> list[Sequence[PlannedCell]]:
        """Cells that share a loaded engine: those whose profiler is not a part of the engine's own process."""
        if kind == "nsys" or self._by_itself(kind):
            return [[planned] for planned in cells]
        return [cells] if cells else []

    def _by_itself(self, kind: str) -> bool:
        """Whether TensorRT-LLM takes the torch trace by itself, in the process that computes."""
        return kind == "torch" and self.plan.build.kind == "pytorch"

    def _take(self, kind: str, cells: Sequence[PlannedCell]) -> None:
        place, alone = self.directory, self._by_itself(kind)
        everything = [Taken(kind, planned, profile_directory(place, kind, planned.cell.id), alone) for planned in cells]
        for taken in everything:
            findings.clear(taken)
        with self._sessions(kind) as sessions:
            for taken in everything:
                self._drive(taken, sessions)
        for taken in everything:  # after the engine has gone: reports are complete then
            why = findings.keep(taken, self.telemetry.samples())
            self.tell(f"profile {kind}  {taken.planned.cell.id}  {why or f'kept in {taken.directory}'}")

    @contextmanager
    def _sessions(self, kind: str) -> Iterator[Sessions]:
        logs = self.directory / "profiles" / kind
        plan = self.plan
        sessions = Sessions(plan.build, logs, self.telemetry, plan.connections, self.attached, engine=plan.engine)
        try:
            yield sessions
        finally:
            with suppress(EnginebenchError):
                sessions.close()

    def _drive(self, taken: Taken, sessions: Sessions) -> None:
        cell, scenario = taken.planned.cell, taken.planned.scenario
        if why := why_not(taken.kind, cell.path, self.plan.build, self.attached):
            taken.data["reason"] = why
            return
        sessions.wrapper, capture = self._wrapper(taken)
        try:
            worker = sessions.use(cell.path, scenario.kv_cache_reuse)
            assert isinstance(worker, Worker)  # one process, since it is one client
            progress = Progress(total_cells=1, estimate_s=taken.planned.estimate_s)
            block = Block(label=f"profile {taken.kind} ")
            cell_run = CellRun(taken.planned, worker, self.plan.tokenizer, progress, sessions.check_alive, block)
            with progress.cell(f"{block.label}{cell.id}", taken.planned.estimate_s):
                take(taken, cell_run, sessions, worker, capture)
        except EnginebenchError as error:
            findings.failed(taken, sessions.death() or error)
            sessions.discard()

    def _wrapper(self, taken: Taken) -> tuple[Wrapper | None, ServerCapture | None]:
        """What runs the process that computes, and what captures a server."""
        if taken.by_itself:
            window = os.environ.get("TLLM_PROFILE_START_STOP", ITERATIONS)
            trace = taken.directory / "torch-trace.json"
            env = {"TLLM_TORCH_PROFILE_TRACE": str(trace), "TLLM_PROFILE_START_STOP": window}
            return Wrapper((), env, 0.0), None
        nsys = find_nsys()
        if taken.kind != "nsys" or nsys is None:
            return None, None
        if taken.planned.cell.path == "direct":
            world = world_of(self.plan.build, self.plan.engine)
            taken.data["ranks"] = world.size if world else 1
            wrapper = worker_wrapper(nsys, taken.directory, taken.data["ranks"])
            taken.data["command"] = [*wrapper.command, *self.plan.build.launcher, "-m", "enginebench.worker"]
            return wrapper, None
        capture = ServerCapture(nsys, taken.directory)
        taken.data["command"] = [*capture.wrapper.command, "tritonserver", "..."]
        return capture.wrapper, capture
