"""The whole flow with a recorded trace in the place of a GPU, and without any."""

from pathlib import Path

import pytest

from enginebench.report.figures import Section
from enginebench.report.gpu import gpu_section
from enginebench.report.ledger import ledger_section
from enginebench.report.roofline import roofline_section
from enginebench.run.builds import build_from_option
from enginebench.store import Run
from enginebench.store_tables import read_columns
from tests.support.gpu_traces import CARD, MIB, reading, state, write_trace
from tests.support.sample_run import full_run
from tests.support.traced_run import traced_run

DATA = Path(__file__).parents[1] / "data"
H100, TWO_H200 = DATA / "gpu-trace-h100.jsonl", DATA / "nvml-h200-2gpus.jsonl"
BASELINE, LOADED, PEAK, AFTER = 700 * MIB, 60_000 * MIB, 60_800 * MIB, 702 * MIB
LINES = [
    state({41: 600 * MIB}),
    "before_load",
    reading(BASELINE, sm_percent=0),
    "after_load",
    reading(LOADED),
    "round",
    reading(PEAK, event_reasons=4),
    reading(LOADED, sm_clock_mhz=1400),
    state({41: 600 * MIB, 42: 59_000 * MIB}),
    "round_end",
    reading(LOADED),
    "after_unload",
    reading(AFTER),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("traced")
    return traced_run(root, write_trace(root / "trace.jsonl", LINES))


def test_a_cell_says_what_the_card_did(run: Run) -> None:
    (cell,) = run.cells.values()
    gpu = cell["gpu"]
    tokens = cell["requests"] * 24
    assert gpu["energy_source"] == "counter"
    assert gpu["average_power_w"] == pytest.approx(420.0)  # what the trace plays
    assert gpu["energy_per_output_token_j"] == pytest.approx(gpu["energy_j"] / tokens)
    assert gpu["energy_per_request_j"] == pytest.approx(gpu["energy_j"] / cell["requests"])
    assert gpu["tokens_per_j"] == pytest.approx(tokens / gpu["energy_j"])
    stamps_ns = read_columns(run.directory / "telemetry" / "gpu.parquet")["stamp_ns"]
    assert sum(cell["makespan_s"]) <= gpu["energy_j"] / 420 < (stamps_ns[-1] - stamps_ns[0]) / 1e9
    assert gpu["peak_bytes"] == PEAK
    assert gpu["sm_clock_mhz"]["min"] == 1400
    assert 0 < gpu["throttle"]["power cap"] <= 1
    assert 0 < gpu["mbu"] < 1
    assert 0 < gpu["mfu"] < 1
    assert gpu["limits"]["peak_bytes_per_s"] == pytest.approx(5120 / 8 * 2 * 2619e6)
    assert len(gpu["round_spans_ns"]) == 2


def test_mbu_and_energy_are_metrics_of_the_cell_and_of_its_block(run: Run) -> None:
    (cell,) = run.cells.values()
    assert cell["metrics"]["mbu"]["summary"]["value"] == cell["gpu"]["mbu"]
    joules = cell["metrics"]["energy_per_output_token"]
    assert (joules["unit"], joules["better"], len(joules["per_round"])) == ("J", "lower", 2)
    assert cell["per_block"][0]["metrics"]["energy_per_output_token"] == joules["summary"]
    rate = cell["metrics"]["output_tokens_per_s"]["summary"]["value"]
    assert cell["metrics"]["output_tokens_per_s_per_gpu"]["summary"]["value"] == pytest.approx(rate)


def test_the_machine_spoils_the_cell_with_its_reasons(run: Run) -> None:
    (cell,) = run.cells.values()
    assert cell["validity"]["level"] in ("degraded", "invalid")
    assert any("other processes were on the GPU (pid 41)" in reason for reason in cell["validity"]["reasons"])


def test_a_session_has_a_ledger_that_adds_up(run: Run) -> None:
    (session,) = run.data["sessions"]
    by_name = {entry["what"]: entry for entry in session["ledger"]}
    assert session["memory"]["gpu"] == {
        "before_load": BASELINE, "after_load": LOADED, "peak": PEAK, "after_unload": AFTER
    }  # fmt: skip
    assert sum(entry["bytes"] or 0 for entry in session["ledger"] if entry["owner"] == "gpu") == LOADED
    assert by_name["CUDA context"]["bytes"] is None  # an engine on the host has none
    assert by_name["other processes"]["bytes"] == 600 * MIB
    assert by_name["weights"]["source"] == "the runtime"
    assert by_name["growth in rounds"]["bytes"] == PEAK - LOADED
    assert by_name["left after unloading"]["bytes"] == AFTER - BASELINE
    assert by_name["engine processes, after loading"]["bytes"] > 20 * MIB
    assert session["gpus"][0]["uuid"] == CARD["uuid"]


def test_samples_of_the_card_are_kept(run: Run) -> None:
    table = read_columns(run.directory / "telemetry" / "gpu.parquet")
    assert set(table["gpu"]) == {0}
    assert max(table["used_bytes"]) == PEAK
    assert len(table["stamp_ns"]) == len(table["power_w"]) > 10


def test_the_page_shows_the_card_its_limits_and_its_memory(run: Run) -> None:
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    for words in ("The GPU over time", "Roofline", "GPU memory by owner", "other processes were on the GPU", "420"):
        assert words in page
    (over_time,) = [f for f in section(gpu_section(run.data, run.directory)).figures if f.id == "gpu-over-time"]
    assert [plot.title for plot in over_time.plots] == [
        "Memory in use", "Power", "SM clock", "Utilisation", "Temperature"
    ]  # fmt: skip
    assert len(over_time.plots[0].rules) == 2  # rounds
    (roof,) = section(roofline_section(run.data, None)).figures
    assert {marks.name for marks in roof.plots[0].marks} == {"the card's limit", "decode, direct", "prefill, direct"}
    (held,) = section(ledger_section(run.data, None)).figures
    drawn = sum(float(marks.x[0]) for marks in held.plots[0].marks)
    assert drawn == pytest.approx(LOADED / 2**30)


def section(found: Section | None) -> Section:
    assert found is not None
    return found


def test_a_run_without_a_gpu_has_no_such_parts() -> None:
    data = full_run(paths=("direct",))
    assert [make(data, None) for make in (gpu_section, roofline_section, ledger_section)] == [None] * 3


def test_blocks_add_up_while_the_trace_of_a_real_card_plays(tmp_path: Path) -> None:
    """Recorded on an H100, see tests/data/README.md."""
    run = traced_run(tmp_path, H100, blocks=2)
    (cell,) = run.cells.values()
    assert 70 < cell["gpu"]["average_power_w"] < 700
    assert cell["gpu"]["sm_clock_mhz"]["p50"] == 1980
    reasons = [reason for reason in cell["validity"]["reasons"] if "nobody saw the GPU" not in reason]  # held up
    assert not [reason for reason in reasons if "GPU" in reason]
    assert [session["memory"]["gpu"]["before_load"] for session in run.data["sessions"]] == [0, 0]
    assert all(session["memory"]["gpu"]["after_load"] > 32 * 2**30 for session in run.data["sessions"])
    assert len(cell["gpu"]["round_spans_ns"]) == cell["rounds"] == 4
    both = [block["metrics"]["energy_per_output_token"]["value"] for block in cell["per_block"]]
    assert min(both) <= cell["gpu"]["energy_per_output_token_j"] <= max(both)


def test_two_cards_are_summed_up_and_shown_apart(tmp_path: Path) -> None:
    """Recorded on two H200, see tests/data/README.md."""
    run = traced_run(tmp_path, TWO_H200, stages=2)
    (cell,), (session,) = run.cells.values(), run.data["sessions"]
    gpu, each = cell["gpu"], cell["gpu"]["by_gpu"]
    assert len(each) == len(session["gpus"]) == gpu["limits"]["gpus"] == 2
    assert gpu["energy_j"] == pytest.approx(sum(one["energy_j"] for one in each))
    assert gpu["average_power_w"] == pytest.approx(sum(one["average_power_w"] for one in each))
    assert gpu["limits"]["peak_bytes_per_s"] == pytest.approx(6016 / 8 * 2 * 3201e6)
    by_name = {entry["what"]: entry["bytes"] for entry in session["ledger"]}
    assert by_name["in use on GPU 0"] + by_name["in use on GPU 1"] == session["memory"]["gpu"]["after_load"]
    rate = cell["metrics"]["output_tokens_per_s"]["summary"]["value"]
    assert cell["metrics"]["output_tokens_per_s_per_gpu"]["summary"]["value"] == pytest.approx(rate / 2)
    (over_time,) = section(gpu_section(run.data, run.directory)).figures
    assert [marks.name for marks in over_time.plots[0].marks] == ["GPU 0", "GPU 1"]
    assert over_time.table is not None
    assert [str(row[0].text).rpartition(", ")[2] for row in over_time.table.rows[1:]] == ["GPU 0", "GPU 1"]


def test_a_build_on_one_of_two_cards_is_not_charged_with_the_other(tmp_path: Path) -> None:
    run = traced_run(tmp_path, TWO_H200)
    (cell,), (session,) = run.cells.values(), run.data["sessions"]
    assert session["memory"]["gpu"]["after_load"] < cell["gpu"]["peak_bytes"] < 9 * 2**30
    assert cell["memory"]["gpu_peak_bytes"] == cell["gpu"]["peak_bytes"]
    assert cell["gpu"]["average_power_w"] < 350


def test_the_reference_build_for_the_host_uses_no_gpu(tmp_path: Path) -> None:
    assert not build_from_option(None, tmp_path).on_gpu
