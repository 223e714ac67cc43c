"""Where the time goes and what the server says, as parts of a page: from records, without a server."""

import json
from pathlib import Path
from typing import Any

import pytest

from enginebench.measure.layers import Part, Waterfall
from enginebench.report.figures import Section
from enginebench.report.layers import MAX_FIGURES, layers_section
from enginebench.report.server import server_section
from enginebench.store_tables import write_columns
from tests.support import sample_run

FIRST = Waterfall(
    0.040,
    0.041,
    (
        Part(("client",), 0.001, "our stamps, trace"),
        Part(("http_queue",), 0.002, "trace"),
        Part(("preprocessing",), 0.003, "trace"),
        Part(("slot", "prefill"), 0.030, "trace"),
        Part(("postprocessing",), 0.002, "trace"),
    ),
)
WHOLE = Waterfall(1.0, 1.1, (*FIRST.parts, Part(("decode",), 0.952, "trace")))
NOTHING_COUNTED = {"queue_s": 0.0, "compute_input_s": 0.0, "compute_infer_s": 0.0, "compute_output_s": 0.0}


def server(first: Waterfall | None = FIRST, whole: Waterfall = WHOLE, **changes: Any) -> dict[str, Any]:
    """A cell's ``server``, as run.json has it."""
    layers = {
        "first": first.as_json() if first else None,
        "whole": whole.as_json(),
        "requests": 4,
        "traced": True,
        "perf_metrics": False,
        "why_not_traced": None,
    }
    return {
        "model": "ensemble",
        "idle_before": {"status": "verified", "waited_s": 0.2},
        "statistics": {
            "ensemble": {"requests": 4, "inferences": 8, "executions": 4, **NOTHING_COUNTED, "queue_s": 0.008},
            "idle": {"requests": 0, "inferences": 0, "executions": 0, **NOTHING_COUNTED},
        },
        "not_offered": ["nv_gpu_"],
        "started_ns": 1_000_000_000,
        "ended_ns": 3_000_000_000,
        "gauges": {"pages": 3, "missed": 0, "values": {"kv_used": {"min": 1.0, "max": 5.0}}},
        "counted": [
            {"what": "requests", "client": 4, "server": 4, "source": "statistics", "matters": True},
            {"what": "output tokens", "client": 40, "server": None, "source": "a family", "matters": True},
        ],
        "layers": {**layers, **changes.pop("layers", {})},
        **changes,
    }


def run_with(**servers: dict[str, Any]) -> dict[str, Any]:
    """A run in which the cells of a path have these numbers of the server."""
    run = sample_run.full_run(paths=("direct", "core", "ensemble"))
    for cell in run["cells"].values():
        for metric in ("ttft", "e2e_latency"):
            summary = cell["metrics"].get(metric, {}).get("summary", {})
            summary["mean"] = summary.get("p50")  # which the records of the model lack
        if cell["path"] in servers and cell["streaming"]:
            cell["server"] = servers[cell["path"]]
    return run


def section(run: dict[str, Any]) -> Section:
    found = layers_section(run, None)
    assert found is not None
    return found


def test_a_run_without_server_paths_has_neither_part() -> None:
    run = sample_run.full_run(paths=("direct",))
    assert layers_section(run, None) is None
    assert server_section(run, None) is None


def test_older_runs_without_a_servers_numbers_have_neither_part() -> None:
    run = sample_run.full_run(paths=("direct", "ensemble"))
    assert layers_section(run, None) is None
    assert server_section(run, None) is None


def test_a_direct_run_with_the_engines_own_stamps_has_the_part_alone() -> None:
    run = sample_run.full_run(paths=("direct",))
    means = {"queue": 0.002, "prefill": 0.008, "decode": 0.09}
    for cell in run["cells"].values():
        summary = {"mean": 0.1 + 1e-12}
        cell["metrics"] = {"ttft": {"summary": {"mean": 0.01}}, "e2e_latency": {"summary": summary}}
        cell["engine"] = {
            "source": "perf metrics",
            "requests": 8,
            "told": 8,
            **{step: {"mean": s} for step, s in means.items()},
        }
    figure = section(run).figures[0]
    assert "nothing is unexplained" in figure.finding
    sources = {row[1].text: row[-1].text for row in figure.table.rows}
    assert sources["waiting for a batch slot"] == sources["prefill"] == sources["decode"] == "perf metrics"
    for cell in run["cells"].values():
        cell["engine"]["told"] = 7  # of one nobody knows: its time is in the mean, and in no part
    (row, *_) = section(run).figures[0].table.rows
    assert row[-1].text == "our stamps"


def test_paths_stand_side_by_side_with_the_same_series_in_both_plots() -> None:
    figure = section(run_with(ensemble=server())).figures[0]
    first, whole = figure.plots
    names = [marks.name for marks in first.marks]
    assert names == [marks.name for marks in whole.marks]
    assert names[-1] == "unexplained"
    assert "waiting for a batch slot, prefill" in names
    assert first.marks[0].y == ("ensemble", "direct")  # core has none here
    bars = {marks.name: marks.x[0] for marks in first.marks}
    assert bars["prefill" if "prefill" in bars else "waiting for a batch slot, prefill"] == pytest.approx(30)
    assert bars["decode"] == 0.0
    assert bars["unexplained"] == pytest.approx(2)


def test_the_residual_is_always_a_row_and_a_part_that_is_not_told_apart_says_so() -> None:
    table = section(run_with(ensemble=server())).figures[0].table
    rows = [[text.text for text in row] for row in table.rows if row[0].text == "ensemble"]
    unexplained = next(row for row in rows if row[1] == "unexplained")
    assert unexplained[2:4] == ["2.00", "5.0%"]
    merged = next(row for row in table.rows if row[1].text == "waiting for a batch slot, prefill")
    assert merged[1].why == "not told apart here"
    assert rows[-1][1] == "all, measured rounds"
    assert rows[-1][2:4] == ["41.00", "+2.5%"]


def test_overlapping_parts_are_counted_twice_and_not_hidden() -> None:
    greedy = Waterfall(0.010, 0.010, (Part(("client",), 0.012, "our stamps"),))
    figure = section(run_with(ensemble=server(first=greedy))).figures[0]
    rest = next(row for row in figure.table.rows if row[0].text == "ensemble" and row[1].text == "unexplained")
    assert rest[2].text == "\u22122.00"


def test_what_stays_with_the_residual_is_named() -> None:
    blind = Waterfall(1.0, 1.0, (Part(("preprocessing",), 0.1, "Triton's statistics"),), ("client", "http_queue"))
    layers = {"first": None, "whole": blind.as_json(), "requests": 0, "why_not_traced": "only ours is traced"}
    shown = section(run_with(ensemble=server(layers=layers)))
    assert any(
        row[1].text == "unexplained, with client and network, HTTP and queue" for row in shown.figures[0].table.rows
    )
    assert "Not traced: only ours is traced." in shown.notes


def test_what_each_path_adds_is_the_difference_of_measured_means() -> None:
    run = run_with(ensemble=server(), core=server())
    (differences,) = section(run).tables
    rows = [row for row in differences.rows if row[1].text == differences.rows[0][1].text]
    assert [row[0].text for row in rows] == ["direct", "core", "ensemble"]
    assert rows[0][3].missing
    cells = [cell for cell in run["cells"].values() if cell["scenario"] == "who-are-you" and cell["streaming"]]
    means = {
        cell["path"]: cell["metrics"]["ttft"]["summary"]["mean"] for cell in cells if cell["load"]["label"] == "bs001"
    }
    assert rows[1][3].text == f"{(means['core'] - means['direct']) * 1e3:+,.2f}".replace("-", "\u2212")


def test_a_time_of_which_no_part_is_known_is_unexplained() -> None:
    nothing = Waterfall(0.05, 0.05, (), ("client", "http_queue", "slot", "prefill", "decode"))
    figure = section(run_with(ensemble=server(None, nothing))).figures[0]
    assert figure.finding.startswith(
        "On the ensemble path no part is known of the 50.0 ms to the last token, and 100.0%"
    )
    assert any(row[0].text == "ensemble" and "unexplained, with client" in row[1].text for row in figure.table.rows)


def test_many_load_points_are_not_all_drawn_and_the_page_says_so() -> None:
    shown = section(run_with(ensemble=server()))
    assert len(shown.figures) == MAX_FIGURES
    assert any("but not drawn" in note for note in shown.notes)


def test_what_is_not_offered_is_named_and_never_zero() -> None:
    found = server_section(run_with(ensemble=server()), None)
    assert found is not None
    counted, statistics = found.tables
    tokens = next(row for row in counted.rows if row[1].text == "output tokens")
    assert tokens[3].missing
    assert tokens[3].why == "not offered by this server"
    assert [row[1].text for row in statistics.rows][:2] == ["ensemble", "idle"]
    assert statistics.rows[1][3].missing
    assert statistics.rows[0][4].text == "2.00"
    assert "Not offered by this server: nv_gpu_*." in found.notes
    assert any("reference engine" in note for note in found.notes) == (
        sample_run.full_run()["build"]["kind"] == "reference"
    )


def test_tokens_that_the_client_was_not_told_are_no_number_and_no_difference() -> None:
    counted = [{"what": "output tokens", "client": None, "server": 40, "source": "a family", "matters": False}]
    found = server_section(run_with(ensemble=server(counted=counted)), None)
    assert found is not None
    (row,) = found.tables[0].rows
    assert (row[2].missing, row[2].why) == (True, "no answer tells")
    assert row[3].text != "0"
    assert row[5].text == "0"


def test_a_preflight_that_failed_stands_out() -> None:
    run = run_with()
    run["sessions"][0]["preflight"] = [
        {"name": "order", "status": "failed", "detail": "Tokens come in another order."},
        {"name": "streaming", "status": "unverified", "detail": "It cannot stream."},
    ]
    found = server_section(run, None)
    assert found is not None
    (checks,) = found.tables
    assert [column.title for column in checks.columns] == ["Path", "Streams", "In order"]
    assert [text.text for text in checks.rows[0][1:]] == ["unverified", "NO"]
    assert checks.rows[0][2].why == "Tokens come in another order."


def test_gauges_are_steps_from_the_start_of_the_cell(tmp_path: Path) -> None:
    used = json.dumps({"kv_cache_block_type": "used"})
    scheduled = json.dumps({"request_type": "scheduled"})
    rows = [
        (500_000_000, "nv_trt_llm_kv_cache_block_metrics", used, 1.0),  # before the cell: what it starts with
        (500_000_000, "nv_trt_llm_kv_cache_block_metrics", json.dumps({"kv_cache_block_type": "max"}), 8.0),
        (500_000_000, "nv_trt_llm_request_metrics", scheduled, 0.0),
        (1_500_000_000, "nv_trt_llm_kv_cache_block_metrics", used, 5.0),
        (1_500_000_000, "nv_trt_llm_request_metrics", scheduled, 3.0),
        (9_000_000_000, "nv_trt_llm_kv_cache_block_metrics", used, 7.0),  # after it
    ]
    names = ("stamp_ns", "family", "labels", "value")
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    write_columns(tmp_path / "telemetry" / "server.parquet", columns)
    run = run_with(ensemble=server())
    found = server_section(run, tmp_path)
    assert found is not None
    figure = found.figures[0]
    requests, cache = figure.plots
    assert (requests.marks[0].x, requests.marks[0].y) == ((0.0, 0.5, 2.0), (0.0, 3.0, 3.0))
    assert (cache.marks[0].x, cache.marks[0].y) == ((0.0, 0.5, 2.0), (1.0, 5.0, 5.0))
    assert cache.rules[0].at == 8.0
    assert "up to 5 of 8 blocks (62%)" in figure.finding
