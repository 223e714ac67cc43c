"""Runs on disk: whole or not there, read back as they were written, and one sentence when they cannot be."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from enginebench.errors import RunError
from enginebench.measure.gpu_trace import GpuReading
from enginebench.measure.metrics import cell_metrics
from enginebench.measure.telemetry import Sample
from enginebench.store import SCHEMA, RunStore, load_run
from tests.support.rounds import Row, assert_same_record, round_of

HEADER: dict[str, Any] = {
    "command": ["pytest", "bench/"],
    "build": {
        "name": "reference",
        "kind": "reference",
        "version": None,
        "directory": "/engines/a",
        "architecture": "A",
        "dtype": "float32",
        "fingerprint": "sha256:0",
    },
    "attached_url": None,
    "environment": {"gpus": None},
    "calibration": None,
    "plan": {"set": None, "scenarios": {}, "cells": ["a", "b", "c"], "left_out": {}},
}
ROUNDS = [
    round_of(Row([(5, 1), (9, 2)]), warmup=True, round_index=-1),
    round_of(Row([(5, 2), (9, 1)]), Row([], asked=3, outcome="error", error="服务器说：不"), round_index=0),
    round_of(Row([(5, -1), (9, -1)]), round_index=1, stamp_kind="kernel", clock_stepped=True),
    round_of(Row([(7, 3)]), round_index=2, block=1),
]


def result(status: str = "measured", **more: Any) -> dict[str, Any]:
    keys = {"scenario": "smoke", "path": "direct", "streaming": True, "output_tokens": 3}
    load = {"kind": "batch", "label": "bs001", "level": 1}
    return {**keys, "load": load, "status": status, "reason": None, "metrics": {}, **more}


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    metrics = {name: each.as_json() for name, each in cell_metrics(ROUNDS).items()}
    store.write_cell("a", result(metrics=metrics, findings=["很好"]), ROUNDS)
    store.write_cell("b", result("not_applicable", reason="too long"), [])
    store.finish(sessions=[{"path": "direct"}], interrupted=True)
    run = load_run(store.directory)
    assert run.directory.parent == tmp_path / "reports" / "runs"
    assert run.id == run.directory.name
    assert {key: run.data[key] for key in HEADER} == HEADER
    assert run.cells["a"] == result(metrics=metrics, findings=["很好"])
    assert set(run.data["plan"]["cells"]) - set(run.cells) == {"c"}
    assert run.data["sessions"] == [{"path": "direct"}]
    assert run.data["interrupted"]
    assert run.data["finished"].endswith("Z")
    for mine, theirs in zip(ROUNDS, run.rounds("a"), strict=True):
        assert_same_record(mine, theirs)
    assert run.rounds("b") == []
    assert cell_metrics(run.rounds("a")) == cell_metrics(ROUNDS)


def test_parquet_has_a_row_per_request_and_one_per_arrival(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_cell("a", result(), ROUNDS)
    requests = pq.read_table(store.directory / "cells" / "a" / "requests.parquet")
    chunks = pq.read_table(store.directory / "cells" / "a" / "chunks.parquet")
    assert requests["round"].to_pylist() == [0, 1, 1, 2, 3]
    assert requests["error"].to_pylist()[2] == "服务器说：不"
    assert chunks["tokens"].to_pylist() == [1, 2, 2, 1, -1, -1, 3]
    assert chunks["token_ids"].to_pylist() == [[0], [1, 2], [0, 1], [2], [], [], [0, 1, 2]]


def test_a_cell_that_is_measured_again_replaces_the_old_one(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_cell("a", result(), ROUNDS)
    store.write_cell("a", result("failed", reason="it broke"), ROUNDS[:1])
    run = load_run(store.directory)
    assert run.cells["a"]["status"] == "failed"
    assert len(run.rounds("a")) == 1


def test_a_run_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    assert load_run(store.directory).cells == {}
    assert load_run(store.directory / "run.json").data["finished"] is None


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_cell("a", result(), ROUNDS)
    gpus = (GpuReading(8), GpuReading(9, power_w=300.5))
    store.write_telemetry([Sample(1, {"engine": 5}, None), Sample(2, {"engine": 6, "server": 7}, gpus)])
    assert names(store.directory) == {
        "run.json", "cells/a/requests.parquet", "cells/a/chunks.parquet", "telemetry/memory.parquet",
        "telemetry/gpu.parquet",
    }  # fmt: skip
    rows = pq.read_table(store.directory / "telemetry" / "memory.parquet").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (1, "host", "engine", 5),
        (2, "host", "engine", 6),
        (2, "host", "server", 7),
        (2, "gpu", "0", 8),
        (2, "gpu", "1", 9),
    ]
    of_gpus = pq.read_table(store.directory / "telemetry" / "gpu.parquet").to_pylist()
    assert [(row["stamp_ns"], row["gpu"], row["used_bytes"], row["power_w"]) for row in of_gpus] == [
        (2, 0, 8, None), (2, 1, 9, 300.5)
    ]  # fmt: skip


def test_telemetry_without_samples_is_an_empty_table(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_telemetry([])
    assert pq.read_table(store.directory / "telemetry" / "memory.parquet").num_rows == 0


def test_a_full_disk_costs_the_cell_in_flight_and_no_other(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_cell("a", result(), ROUNDS)
    (store.directory / ".run.json.part").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"run\.json cannot be written \(No space left on device\); free some space"):
        store.write_cell("b", result(), ROUNDS)
    assert set(load_run(store.directory).cells) == {"a"}
    store.write_cell("c", result(), ROUNDS)  # there is space again
    assert set(load_run(store.directory).cells) == {"a", "c"}


WRITER = """
    import sys
    from pathlib import Path
    from tests.unit.test_store import HEADER, ROUNDS, result
    from enginebench.store import RunStore
    store = RunStore.create(Path(sys.argv[1]), HEADER)
    print(store.directory, flush=True)
    for number in range(100_000):
        store.write_cell(f"cell-{number}", result(), ROUNDS)
        print(number, flush=True)
"""


@pytest.mark.parametrize("cells", [1, 7])
def test_a_run_that_was_killed_is_readable(tmp_path: Path, cells: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, text=True
    ) as writer:
        assert writer.stdout is not None
        directory = Path(writer.stdout.readline().strip())
        for _ in range(cells):
            assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    run = load_run(directory)
    assert len(run.cells) >= cells
    assert all(len(run.rounds(cell_id)) == len(ROUNDS) for cell_id in run.cells)


def test_infinity_never_reaches_the_file(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    with pytest.raises(ValueError, match="JSON"):
        store.write_cell("a", result(metrics={"ttft": float("inf")}), [])
    assert load_run(store.directory).cells == {}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "is not the record of a run"),
        ('{"schema": "asv/2"}', "is not the record of a run"),
        ('{"schema": "enginebench/run/99"}', f"'enginebench/run/99', and this enginebench reads '{SCHEMA}'"),
        (f'{{"schema": "{SCHEMA}"}}', r"run\.json: id is missing: it is damaged; use an intact copy\."),
        (f'{{"schema": "{SCHEMA}", "id": NaN}}', "cannot be read"),
        (f'{{"schema": "{SCHEMA}", "id": "\\ud800"}}', "cannot be read"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_what_is_no_run_is_refused_in_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunError, match=sentence) as caught:
        load_run(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"id": "../../x"}, r"id must be letters, digits, '.', '_' and '-', not \"../../x\""),
        ({"created": "2026-11-22T21:14:47"}, "created must be a time such as 2026-11-22T21:14:47Z, not"),
        ({"cells": []}, r"cells must be an object, not \[\]: it is damaged"),
        ({"plan": {}}, r"plan\.scenarios is missing"),
        ({"build": {}}, r"build\.name is missing"),
        ({"build": {**HEADER["build"], "directory": None}}, r"build\.directory must be a valid string, not null"),
        ({"environment": {"gpus": ["H100"]}}, r"environment\.gpus\[0\] must be an object, not \"H100\""),
        ({"cells": {"a": None}}, r"cells\.a must be an object, not null"),
        ({"cells": {"a\nb": None}}, r"cells\.a b must be an object, not null"),
        ({"cells": {"a": result("fine")}}, r"cells\.a\.status must be 'measured', 'failed', .*, not \"fine\""),
        (
            {"cells": {"a": result(metrics={"ttft": {"summary": {"p50": "5"}}})}},
            r"cells\.a\.metrics\.ttft\.summary\.p50 must be a valid number, not \"5\": it is damaged",
        ),
        ({"cells": {"a": result(requests=-1)}}, r"cells\.a\.requests must be greater than or equal to 0, not -1"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    store = RunStore.create(tmp_path, HEADER)
    file = store.directory / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RunError, match=sentence):
        load_run(store.directory)


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run\.json"):
        load_run(tmp_path)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    store = RunStore.create(tmp_path, HEADER)
    store.write_cell("a", result(), ROUNDS)
    (store.directory / "cells" / "a" / "chunks.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(RunError, match="cannot be read"):
        load_run(store.directory).rounds("a")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("a file where a directory should be")
    with pytest.raises(RunError, match="cannot be written"):
        RunStore.create(tmp_path, HEADER)
