"""Stored runs → series of numbers with their steps: by machine, workload, cell and metric, oldest run first."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from enginebench.decide.model import Endpoint
from enginebench.decide.steps import Step, steps
from enginebench.errors import RunError
from enginebench.measure.metrics import BY_NAME
from enginebench.plan.messages import did_you_mean
from enginebench.plan.scenario import GATE_METRICS
from enginebench.report.trend import Point, Series, StepAt
from enginebench.run.endpoints import DEFAULT_MARGIN, endpoint
from enginebench.run.machine import machine_words, workload_key
from enginebench.run_lookup import all_runs, find_run
from enginebench.store import load_run

Json = Mapping[str, Any]

HEADLINES = ("ttft_p50", "tpot_p50", "e2e_latency_p50", "output_tokens_per_s")
_NEWS = (("build", "build"), ("fingerprint", "files of the build"), ("version", "version"), ("driver", "driver"),
         ("commit", "commit"))  # fmt: skip


def runs_of(texts: Sequence[str], root: Path) -> tuple[list[Json], list[str]]:
    """run.json of the runs that ``texts`` mean, each a run or a directory of runs; none: all runs of ``root``.

    With it what is said of runs that cannot be read, such as those of another version: they are passed over.

    Raises:
        RunError: a text means no run, or no run can be read.
    """
    found = [place for text in texts for place in _places(text, root)] if texts else all_runs(root)
    read = [_read(place) for place in dict.fromkeys(found)]
    runs = [run for run in read if not isinstance(run, RunError)]
    unreadable = [str(run) for run in read if isinstance(run, RunError)]
    if not runs:
        raise RunError(
            next(iter(unreadable), "There is no run in reports/runs: measure some, or name their directory.")
        )
    return sorted(runs, key=lambda run: str(run["created"])), unreadable


def series_of(runs: Sequence[Json], metrics: Sequence[str] = (), cell: str = "") -> tuple[Series, ...]:
    """The series of ``metrics`` (default: the headline numbers) in the cells whose id holds ``cell``.

    Raises:
        RunError: a metric that is none, or no cell of that name.
    """
    if cell and not any(cell in cell_id for run in runs for cell_id in run["cells"]):
        raise RunError(f"No run has a cell whose id holds {cell!r}; enginebench show RUN lists those of a run.")
    for name in metrics:
        if name not in GATE_METRICS:
            raise RunError(f"There is no metric {name!r}; {did_you_mean(name, GATE_METRICS)}")
    points: defaultdict[tuple[str, str, Endpoint], list[Point]] = defaultdict(list)
    for run in runs:
        for key, value in _numbers(run, metrics or HEADLINES, cell):
            points[key].append(_point(run, value))
    return tuple(_series(machine, each, found) for (machine, _, each), found in points.items())


def _read(place: Path) -> Json | RunError:
    try:
        return load_run(place).data
    except RunError as error:
        return error


def _places(text: str, root: Path) -> list[Path]:
    directory = Path(text)
    if directory.is_dir() and not (directory / "run.json").is_file():
        if inside := sorted(file.parent for file in directory.glob("*/run.json")):
            return inside
        raise RunError(f"{directory} holds no runs: name a directory such as reports/runs.")
    return [find_run(text, root)]


def _numbers(
    run: Json, metrics: Sequence[str], wanted: str
) -> Iterator[tuple[tuple[str, str, Endpoint], float | None]]:
    machine = machine_words({**run["environment"], "gpus": _without_drivers(run["environment"])})
    for cell_id, cell in run["cells"].items():
        if wanted not in cell_id or cell["status"] != "measured":
            continue
        scenario = run["plan"]["scenarios"].get(cell["scenario"])
        for name in metrics:
            each = endpoint(cell_id, name, DEFAULT_MARGIN)
            if each.metric in cell["metrics"]:
                value = cell["metrics"][each.metric]["summary"].get(each.statistic)
                yield (machine, workload_key(scenario) if scenario else "", each), value


def _without_drivers(environment: Json) -> list[Json]:
    """A new driver is a step to be seen, and no other machine."""
    return [{"name": gpu.get("name"), "driver": "any"} for gpu in environment.get("gpus") or ()]


def _point(run: Json, value: float | None) -> Point:
    build, environment = run["build"], run["environment"]
    return Point(
        run_id=run["id"],
        created=run["created"],
        build=build["name"],
        fingerprint=build["fingerprint"],
        version=build["version"],
        driver=(environment.get("gpus") or [{}])[0].get("driver"),
        commit=(environment.get("git") or {}).get("commit"),
        value=value,
    )


def _series(machine: str, each: Endpoint, points: Sequence[Point]) -> Series:
    found = steps([point.value for point in points])
    metric = BY_NAME[each.metric]
    marked = tuple(_step(step, points, metric.better) for step in found)
    return Series(machine, each.cell_id, each.name, metric.unit, metric.better, tuple(points), marked)


def _step(step: Step, points: Sequence[Point], better: str) -> StepAt:
    before = next(point for point in reversed(points[: step.index]) if point.value is not None)
    after = points[step.index]
    news = [
        f"{words} {_short(getattr(before, name))} → {_short(getattr(after, name))}"
        for name, words in _NEWS
        if getattr(before, name) != getattr(after, name)
    ]
    worse = (step.change > 0) == (better == "lower")
    return StepAt(step.index, step.before, step.after, step.change, step.p_value, worse, tuple(news))


def _short(value: str | None) -> str:
    """Hashes by their first digits."""
    text = str(value).removeprefix("sha256:")
    return text[:10] if len(text) >= 40 else text
