"""Whatever stands in a run.json, whoever reads it gets an answer or one sentence that names file and place."""

import copy
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enginebench.errors import RunError
from enginebench.report.export import cells_csv, view_json
from enginebench.report.index import write_index
from enginebench.report.lineup_page import write_lineup
from enginebench.report.markdown import run_markdown
from enginebench.report.terminal import summary_text
from enginebench.report.terminal_cell import cell_text
from enginebench.report.trend import trend_text
from enginebench.run.baselines import find_stored, save_baseline
from enginebench.run.lineups import line_up_stored
from enginebench.run.noise import keep_sessions
from enginebench.run.pages import compare_stored, publish_page
from enginebench.run.trend import series_of
from enginebench.store import Run, load_run
from tests.support.ab_runs import sides

ROOT = Path(__file__).parents[2]
OF_TWO_GPUS = json.loads((ROOT / "docs" / "examples" / "h200-2gpus" / "run.json").read_text(encoding="utf-8"))
OF_REPLICAS = json.loads((ROOT / "tests" / "data" / "run-replicas.json").read_text(encoding="utf-8"))
OLD_SIDE, NEW_SIDE = sides(0.1, 3)
PAIRS = {"two gpus": (OF_TWO_GPUS,) * 2, "replicas": (OF_REPLICAS,) * 2, "a side": (OLD_SIDE, NEW_SIDE)}
GONE = object()
OTHERS: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e300,
    10**18,
    "",
    "x",
    [],
    {},
    [None],
    ["a"],
    [{}],
    {"a": 1},
    {"a": None},
    {"a": {}},
)

Step = str | int
Place = tuple[Step, ...]


def places(node: Any, place: Place = ()) -> Iterator[Place]:
    """Every place of a record, of lists the first two entries."""
    yield place
    entries = node.items() if isinstance(node, dict) else enumerate(node[:2]) if isinstance(node, list) else ()
    for step, entry in entries:
        yield from places(entry, (*place, step))


def damaged(record: Any, place: Place, other: Any) -> Any:
    made = copy.deepcopy(record)
    *inner, last = place
    node = made
    for step in inner:
        node = node[step]
    if other is GONE:
        del node[last]
    else:
        node[last] = other
    return made


CASES = [(name, place) for name, (_, new) in PAIRS.items() for place in places(new) if place]


@given(st.sampled_from(CASES), st.sampled_from((*OTHERS, GONE)))
@settings(max_examples=50)
def test_a_damaged_record_is_read_or_refused_in_a_sentence(case: tuple[str, Place], other: Any) -> None:
    name, place = case
    old, new = PAIRS[name]
    with TemporaryDirectory() as directory:
        runs = Path(directory) / "reports" / "runs"
        write(runs / "old", old | {"id": "old"} if old is new else old)
        file = write(runs / "new", damaged(new, place, other))
        if refused := sentence(lambda: load_run(file)):
            assert refused.startswith(f"{file}")
            return
        run = load_run(file)
        for read in READERS:
            sentence(partial(read, run, Path(directory)))


def sentence(act: Callable[[], object]) -> str:
    """What is said where ``act`` refuses; every other error is one of the reader."""
    try:
        act()
    except RunError as error:
        (line,) = str(error).splitlines()
        return line
    return ""


def write(directory: Path, record: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return directory / "run.json"


def show_cells(run: Run, _: Path) -> None:
    for cell_id in run.cells:
        cell_text(run.directory, cell_id, width=100, colour=False)


def compare_both(run: Run, root: Path) -> None:
    comparison, old, new = compare_stored(str(root / "reports" / "runs" / "old"), str(run.directory), root)
    publish_page(comparison, old, new, root, root / "comparison.html")


def line_up_three(run: Run, root: Path) -> None:
    runs = root / "reports" / "runs"
    write(runs / "third", json.loads((runs / "old" / "run.json").read_text(encoding="utf-8")) | {"id": "third"})
    write_lineup(
        line_up_stored([str(runs / "old"), str(run.directory), str(runs / "third")], root), root / "lineup.html"
    )


def keep_as_baseline(run: Run, root: Path) -> None:
    find_stored(str(save_baseline(run.directory, root, "kept")), root)


def list_all(_: Run, root: Path) -> None:
    assert "is damaged (" not in write_index(root).read_text(encoding="utf-8")


READERS: tuple[Callable[[Run, Path], object], ...] = (
    lambda run, _: summary_text(run.directory, width=100, colour=False),
    show_cells,
    lambda run, _: view_json(run),
    lambda run, _: run_markdown(run),
    lambda run, _: list(cells_csv(run)),
    lambda run, _: trend_text(series_of([run.data]), 1),
    lambda run, root: keep_sessions(run.data, root),
    list_all,
    compare_both,
    line_up_three,
    keep_as_baseline,
)


@pytest.mark.parametrize("name", PAIRS)
def test_whole_records_are_read(name: str, tmp_path: Path) -> None:
    old, new = PAIRS[name]
    write(tmp_path / "reports" / "runs" / "old", old | {"id": "old"} if old is new else old)
    run = load_run(write(tmp_path / "reports" / "runs" / "new", new))
    for read in READERS:
        read(run, tmp_path)
