"""The only module that knows pytest and pytest-benchmark: options, items, the timed call, the tables, the exit code.

One item measures one cell; one round of pytest-benchmark is one pass over the cell's requests, run by the worker.
Verdicts are not given here: items report, ``enginebench`` commands decide.
"""

import errno
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from shutil import copyfile
from typing import TYPE_CHECKING, Any, cast

import pytest

from enginebench.bench_options import BENCH_OPTIONS
from enginebench.errors import EnginebenchError
from enginebench.files import write_aside
from enginebench.plan.cells import Cell
from enginebench.plan.expand import Expansion, expand
from enginebench.plan.load import KINDS
from enginebench.plan.selection import Selection, load_selection

if TYPE_CHECKING:
    from enginebench.bench_plan import BenchPlan
    from enginebench.run.campaign import Campaign

PARAMETERS = ("scenario", "path", "streaming", "output_tokens", "load")


@dataclass(slots=True)
class Bench:
    """What one pytest session knows of its run; filled as the session gets on."""

    selection: Selection | None = None
    expansion: Expansion = field(default_factory=lambda: Expansion(cells=(), left_out={}))
    error: EnginebenchError | None = None
    planned: "BenchPlan | None" = None
    campaign: "Campaign | None" = None  # made once it is known what to measure
    problem: str | None = None  # why the run fails, whatever became of its items


BENCH = pytest.StashKey[Bench]()
BENCHMARK_JSON = "benchmark.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("enginebench", "enginebench: what `pytest bench/` measures")
    for name, settings in BENCH_OPTIONS.items():
        group.addoption(name, **settings)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BENCH] = Bench()
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used")  # said of cells that failed
    config.addinivalue_line("markers", f"loads(*kinds): measure only cells with these loads ({', '.join(KINDS)})")


# --- Collection: scenarios → cells → items ---------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "measure" not in metafunc.fixturenames:
        return
    bench = metafunc.config.stash[BENCH]
    if bench.selection is None and bench.error is None:
        try:
            _select(metafunc.config, bench)
        except EnginebenchError as error:
            bench.error = error
    cells = bench.expansion.cells
    kinds = [kind for mark in metafunc.definition.iter_markers("loads") for kind in mark.args]
    cells = tuple(cell for cell in cells if not kinds or cell.load.kind in kinds)
    metafunc.parametrize(PARAMETERS, [cell.parameters for cell in cells], ids=[cell.id for cell in cells])


def _select(config: pytest.Config, bench: Bench) -> None:
    selection = load_selection(config.option.scenario, config.rootpath / "scenarios")
    bench.expansion = expand(selection, config.option.path)
    bench.selection = selection


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """No item for a function whose kind of load no scenario asks for, where pytest would show a skipped one."""
    made = yield
    if not isinstance(made, list) or not collector.config.stash[BENCH].expansion.cells:
        return made
    empty = [item for item in _bench_items(made) if not isinstance(item.callspec.params[PARAMETERS[0]], str)]
    return [item for item in made if item not in empty]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Path by path, as planned, whichever function takes a cell: cells of a path share a loaded engine."""
    places = {cell.id: place for place, cell in enumerate(config.stash[BENCH].expansion.cells)}
    if places:
        bench = _bench_items(items)
        others = [item for item in items if item not in bench]
        items[:] = [*others, *sorted(bench, key=lambda item: places[_cell(item).id])]


@pytest.hookimpl(tryfirst=True)  # before the terminal asks for the lines of the plan
def pytest_collection_finish(session: pytest.Session) -> None:
    bench = session.config.stash[BENCH]
    if bench.error is not None:
        raise pytest.UsageError(str(bench.error))
    cells = [_cell(item) for item in _bench_items(session.items)]
    option = session.config.option
    if cells and option.benchmark_only and option.benchmark_skip:
        raise pytest.UsageError("--benchmark-only and --benchmark-skip exclude each other: leave one out.")
    if not cells or option.collectonly or option.benchmark_skip:
        return
    _refuse_xdist(session.config)
    from enginebench.bench_plan import plan_bench

    assert bench.selection is not None
    try:
        root, left_out = session.config.rootpath, bench.expansion.left_out
        bench.planned = plan_bench(option, root, bench.selection, cells, left_out)
        bench.campaign = _start(session.config, bench.planned)
    except (EnginebenchError, OSError) as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    planned = config.stash[BENCH].planned
    if planned is None:
        return []
    from enginebench.builds.facts import concerns
    from enginebench.report.terminal import plan_lines

    plan = planned.plan
    not_applicable = {each.cell.id: each.not_applicable for each in plan.cells if each.not_applicable}
    ids = [each.cell.id for each in plan.cells]
    lines = plan_lines(plan.build.name, ids, not_applicable, plan.left_out, plan.estimate_s)
    return lines + [f"! {concern}" for concern in (*concerns(plan.build), *planned.warnings)]


def _bench_items(items: Sequence[pytest.Item]) -> list[pytest.Function]:
    return [item for item in items if isinstance(item, pytest.Function) and "measure" in item.fixturenames]


def _cell(item: pytest.Function) -> Cell:
    cells = item.config.stash[BENCH].expansion.cells
    wanted = tuple(item.callspec.params[name] for name in PARAMETERS)
    return next(cell for cell in cells if cell.parameters == wanted)


def _refuse_xdist(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("A benchmark needs the machine for itself: run without -n (pytest-xdist).")


# --- Measuring: one item, one cell -----------------------------------------------------------------------------------


@pytest.fixture
def measure(  # noqa: PLR0917 - pytest-benchmark groups by scalar parameters, so a cell arrives in pieces
    request: pytest.FixtureRequest,
    benchmark: Any,
    scenario: str,  # noqa: ARG001
    path: str,  # noqa: ARG001
    streaming: bool,  # noqa: ARG001
    output_tokens: int | str,  # noqa: ARG001
    load: str,  # noqa: ARG001
) -> Callable[[], None]:
    """A function that measures the item's cell."""
    cell = _cell(request.node)
    return lambda: _measure(request.config, benchmark, cell)


def _measure(config: pytest.Config, benchmark: Any, cell: Cell) -> None:
    with _terminal(config):
        campaign = config.stash[BENCH].campaign
        assert campaign is not None
        benchmark.group = f"{cell.scenario} {cell.shape}"
        benchmark.has_error = True  # keeps a cell that breaks, or Ctrl-C, out of pytest-benchmark's file
        try:
            if reason := campaign.not_applicable(cell):
                pytest.skip(f"not applicable: {reason}")
            result = _time(campaign, benchmark, cell)
        except EnginebenchError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        benchmark.has_error = False
    benchmark.extra_info.update(schema="enginebench/cell/1", **result)


def _time(campaign: "Campaign", benchmark: Any, cell: Cell) -> dict[str, Any]:
    """Warm up, then let pytest-benchmark time whole rounds; records are fetched between the timed calls."""
    with campaign.open(cell) as cell_run:
        cell_run.warm_up()
        benchmark.pedantic(cell_run.run, setup=cell_run.prepare, rounds=cell_run.rounds, warmup_rounds=0, iterations=1)
    return campaign.result(cell, cell_run)


def pytest_report_teststatus(report: Any, config: pytest.Config) -> tuple[str, str, str] | None:
    """No dot and no F for a cell: it has a line of its own already."""
    if config.stash[BENCH].campaign is not None and report.when == "call" and report.outcome in {"passed", "failed"}:
        return report.outcome, "", ""
    return None


def _terminal(config: pytest.Config) -> AbstractContextManager[None]:
    """Where the live line is written as it is; it looks for a terminal when the campaign is made."""
    capture = config.pluginmanager.getplugin("capturemanager")
    return cast("AbstractContextManager[None]", capture.global_and_fixture_disabled() if capture else nullcontext())


def _start(config: pytest.Config, planned: "BenchPlan") -> "Campaign":
    from enginebench.run.block import Block
    from enginebench.run.campaign import Campaign
    from enginebench.run.signals import end_as_ctrl_c_does

    command = ["pytest", *config.invocation_params.args]
    with _terminal(config):
        campaign = Campaign(planned.plan, config.rootpath, command, planned.attached, planned.shards)
    campaign.begin(Block())
    end_as_ctrl_c_does()
    if not config.option.benchmark_json:
        # The attribute is not documented, but there is no other way to name the file once the run's directory exists.
        config.pluginmanager.getplugin("pytest-benchmark").json = str(campaign.directory / BENCHMARK_JSON)
    return campaign


# --- The end: page, tables, exit code --------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)  # around pytest-benchmark's, which writes its file, and inside the terminal's summary
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    bench = session.config.stash[BENCH]
    if bench.campaign is None:
        return (yield)
    asked_for, kept = session.config.option.benchmark_json, bench.campaign.directory / BENCHMARK_JSON
    try:
        yield
        if asked_for and bench.campaign.measured:
            write_aside(kept, partial(copyfile, asked_for))
    except (Exception, KeyboardInterrupt) as error:  # whatever breaks there, nothing that was measured is lost
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            kept.unlink(missing_ok=True)  # half of one
        _fail(session, error, f"pytest-benchmark broke ({error}); what was measured is in {kept.parent}.")
    finally:
        _close(session, bench.campaign)
        if session.exitstatus == pytest.ExitCode.OK and not bench.campaign.measured:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _close(session: pytest.Session, campaign: "Campaign") -> None:
    try:
        try:
            if session.config.option.profile and session.exitstatus != pytest.ExitCode.INTERRUPTED:
                _profile(session.config, campaign)
        finally:
            campaign.close()
    except (EnginebenchError, KeyboardInterrupt) as error:
        _fail(session, error, str(error))


def _fail(session: pytest.Session, error: BaseException, problem: str) -> None:
    stopped = isinstance(error, KeyboardInterrupt)
    session.exitstatus = pytest.ExitCode.INTERRUPTED if stopped else pytest.ExitCode.TESTS_FAILED
    session.config.stash[BENCH].problem = "Stopped before all was written." if stopped else problem


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line, since what pytest said before it may be that all passed."""
    if problem := config.stash[BENCH].problem:
        config.pluginmanager.getplugin("terminalreporter").write_line(f"enginebench: {problem}", red=True)


def _profile(config: pytest.Config, campaign: "Campaign") -> None:
    """Once everything is measured and its engine gone, drive the measured cells again under the profilers."""
    from enginebench.measure.telemetry import Telemetry
    from enginebench.profile.rerun import Rerun

    planned = config.stash[BENCH].planned
    assert planned is not None
    campaign.end()
    with _terminal(config):
        measured = [cell_id for cell_id, result in campaign.store.cells.items() if result["status"] == "measured"]
        tell = partial(print, flush=True)
        rerun = Rerun(planned.plan, campaign.directory, planned.attached, Telemetry(), tell)
        rerun.profile(config.option.profile, measured)


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None, Any, Any]:
    try:
        return (yield)
    finally:  # comparing may raise, and our table must not be lost with it
        if campaign := terminalreporter.config.stash[BENCH].campaign:
            _write_summary(terminalreporter, campaign)


def _write_summary(terminal: pytest.TerminalReporter, campaign: "Campaign") -> None:
    from enginebench.report.terminal import summary_text

    terminal.section("enginebench", sep="=")
    width, colour = terminal._tw.fullwidth, terminal.hasmarkup
    for line in summary_text(campaign.directory, width=width, colour=colour).splitlines():
        terminal.write_line(line)  # one by one: a terminal that has no way to show a character gets it escaped
    if not campaign.measured:
        terminal.write_line("No cell was measured: the run fails.", red=True)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Leave out what changes by itself: any difference there is reported as another machine."""
    for key in [key for key in machine_info.get("cpu", {}) if key.startswith("hz_actual")]:
        del machine_info["cpu"][key]
