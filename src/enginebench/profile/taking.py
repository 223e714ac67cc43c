"""One profiled round of one cell: what is switched on before it and off after it, kind by kind and path by path.

What is taken here is looked into later, when the engine has gone: see ``findings``.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from enginebench.errors import ServerError
from enginebench.measure.records import RoundRecord
from enginebench.measure.server_sampler import PageSample
from enginebench.measure.worker_process import Worker
from enginebench.profile.nsys import ServerCapture
from enginebench.profile.pyspy import record as py_spy
from enginebench.run.cell import CellRun
from enginebench.run.plan import PlannedCell
from enginebench.run.sessions import Sessions
from enginebench.server.tracing import Span, Tracer

IN_THE_SERVER = (
    "The engine computes in Triton's process, which no profiler of the worker reaches: profile the direct path."
)

SEVERAL_SERVERS = "The gauges of several servers are not one engine's iterations, and are left out."


@dataclass(slots=True)
class Taken:
    """What one rerun left. ``data``: what profile.json will say of it, as far as it is known."""

    kind: str
    planned: PlannedCell
    directory: Path
    by_itself: bool = False  # the engine profiles itself, and must be left alone
    data: dict[str, Any] = field(default_factory=lambda: {"files": [], "notes": [], "functions": [], "reason": None})
    record: RoundRecord | None = None
    observed: Mapping[str, Any] = field(default_factory=dict)  # by the engine, of this round
    pages: list[PageSample] = field(default_factory=list)  # of the server
    spans: list[dict[str, Any]] = field(default_factory=list)  # of the server, a tree a request

    def note(self, told: Mapping[str, Any]) -> None:
        """Add what a profiler told."""
        for name in ("files", "notes", "functions"):
            self.data[name] += told.get(name, [])
        self.data |= {name: value for name, value in told.items() if name not in ("files", "notes", "functions", "op")}


def take(taken: Taken, cell_run: CellRun, sessions: Sessions, worker: Worker, capture: ServerCapture | None) -> None:
    """Warm the cell up and drive one round with everything on; what came goes to ``taken``.

    Raises:
        EnginebenchError: the round broke.
    """
    cell_run.warm_up()
    cell_run.prepare()
    direct = taken.planned.cell.path == "direct"
    with ExitStack() as stack:
        if not taken.by_itself and (direct or taken.kind in ("python", "iterations")):
            stack.enter_context(_in_the_worker(taken, worker))
        if not direct:
            stack.enter_context(_in_the_server(taken, sessions, capture))
        cell_run.run()
    cell_run.collect()
    taken.record = cell_run.records[-1]
    if tracer := _tracer(taken, sessions):
        taken.spans = [span_json(span) for span in _spans(taken, tracer, len(taken.record.requests))]
    taken.observed = worker.observed
    if sessions.watched is not None and len(sessions.watched.watches) > 1:
        taken.data["notes"].append(SEVERAL_SERVERS)
    else:
        taken.pages = sessions.pages


@contextmanager
def _in_the_worker(taken: Taken, worker: Worker) -> Iterator[None]:
    """The worker's own profiler; where there is none of Python's, py-spy from outside."""
    missing = worker.profile(taken.kind, taken.directory)
    spy = taken.kind == "python" and missing is not None
    with py_spy([("worker", worker.pid)], taken.directory, taken.data) if spy else nullcontext():
        yield
    told = dict(worker.profiled())
    if taken.data["functions"]:  # py-spy saw what could not be seen from inside
        told.pop("reason", None)
    taken.note(told)


@contextmanager
def _in_the_server(taken: Taken, sessions: Sessions, capture: ServerCapture | None) -> Iterator[None]:
    makers: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
        "iterations": lambda: tracer.on() if (tracer := _tracer(taken, sessions)) else nullcontext(),
        "nsys": lambda: capture.on() if capture else nullcontext(),
        "python": lambda: _models_sampled(taken, sessions),
    }
    make = makers.get(taken.kind)
    with make() if make else nullcontext():
        yield


def _tracer(taken: Taken, sessions: Sessions) -> Tracer | None:
    """What has Triton stamp every request; None: the server is not ours, or there is none."""
    return sessions.watched.tracer if taken.kind == "iterations" and sessions.watched else None


def _spans(taken: Taken, tracer: Tracer, requests: int) -> list[Span]:
    try:
        return tracer.take(requests)
    except ServerError as error:
        taken.data["notes"].append(str(error))
        return []


def span_json(span: Span) -> dict[str, Any]:
    """A span and those below it."""
    return {**asdict(span), "children": [span_json(child) for child in span.children]}


def _models_sampled(taken: Taken, sessions: Sessions) -> AbstractContextManager[object]:
    """py-spy on Triton's Python models."""
    if sessions.server is None:
        taken.data["notes"].append("The processes of a server that runs elsewhere cannot be sampled.")
        return nullcontext()
    return py_spy(sessions.server.models(), taken.directory, taken.data)
