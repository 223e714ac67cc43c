"""Baselines and noise: what is kept, how it is found again, and what a damaged file says."""

import json
from pathlib import Path

import pytest

from enginebench.errors import RunError
from enginebench.run.baselines import all_baselines, find_stored, save_baseline
from enginebench.run.comparison import Terms, compare
from enginebench.run.machine import machine_slug, workload_key
from enginebench.run.noise import keep_sessions, known_noise
from tests.support.ab_runs import CELL, SCENARIO, Run, block, run, sides, stored, with_memory
from tests.support.sample_run import write_run


def saved(root: Path, made: Run, name: str | None = None) -> Path:
    return save_baseline(write_run(made, root / "reports" / "runs" / made["id"]), root, name)


def test_a_baseline_decides_as_its_run_does(tmp_path: Path) -> None:
    old, new = with_memory(stored(0.01), [2**29]), with_memory(stored(0.02, "new"), [2**30])
    saved(tmp_path, old)
    kept = find_stored("old", tmp_path)
    assert kept.source == "baseline old"
    direct, small = compare(old, new, Terms()), compare(kept.data, new, Terms())
    assert small.verdicts == direct.verdicts
    assert small.gate == direct.gate


def test_a_baseline_is_small_and_holds_no_rounds(tmp_path: Path) -> None:
    file = saved(tmp_path, stored())
    assert file == tmp_path / "reports" / "baselines" / "cpu-amd-epyc-7b13" / "old.json"
    assert file.stat().st_size < 10_000
    assert '"per_round"' not in file.read_text(encoding="utf-8")


def test_a_name_is_kept_once_and_found_by_hardware(tmp_path: Path) -> None:
    saved(tmp_path, stored(), "main")
    with pytest.raises(RunError, match="exists: choose another --name, or replace it"):
        saved(tmp_path, stored(), "main")
    elsewhere = stored(run_id="gpu")
    elsewhere["environment"]["gpus"] = [{"name": "NVIDIA H200", "driver": "550"}]
    saved(tmp_path, elsewhere, "main")
    assert [file.parent.name for file in all_baselines(tmp_path)] == ["cpu-amd-epyc-7b13", "nvidia-h200"]
    assert find_stored("main", tmp_path, elsewhere["environment"]).data["id"] == "gpu"
    assert find_stored("cpu-amd-epyc-7b13/main", tmp_path).data["id"] == "old"
    with pytest.raises(RunError, match=r"several machines: name one of cpu-.*/main, nvidia-h200/main"):
        find_stored("main", tmp_path)


def test_a_baseline_of_nothing_is_none(tmp_path: Path) -> None:
    empty = stored()
    empty["cells"][CELL].update(status="failed", reason="broken", metrics={})
    with pytest.raises(RunError, match="no measured cell"):
        saved(tmp_path, empty)
    with pytest.raises(RunError, match="cannot be a baseline's name"):
        saved(tmp_path, stored(), "../evil")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "is no baseline"),
        ('{"schema": "enginebench/run/1"}', "is no baseline"),
        ('{"schema": "enginebench/baseline/1", "run": {"id": "x"}}', "name is missing: it is damaged"),
    ],
)
def test_a_damaged_baseline_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=sentence):
        find_stored(str(file), tmp_path)


def test_an_unknown_name_hints_at_the_nearest(tmp_path: Path) -> None:
    saved(tmp_path, stored(), "nightly")
    with pytest.raises(RunError, match="did you mean 'nightly'"):
        find_stored("nigthly", tmp_path)


def test_sessions_are_kept_once_and_add_up(tmp_path: Path) -> None:
    first = run([block(number, 0.01 * factor) for number, factor in enumerate((1.0, 1.02, 0.99, 1.01))], "first")
    (file,) = keep_sessions(first, tmp_path)
    assert keep_sessions(first, tmp_path) == [file]
    known = known_noise(tmp_path, first["environment"], first["plan"]["scenarios"])
    assert known is not None
    assert known.sessions == 4
    assert known.pair_sd[f"{CELL}/tpot_p50"] == pytest.approx(0.02, rel=0.05)
    assert known.noise.endpoints[f"{CELL}/tpot_p50"].degrees == 3
    keep_sessions(stored(0.03, "other"), tmp_path)  # another build: a group of its own
    keep_sessions(stored(0.0101, "second") | {"build": first["build"]}, tmp_path)
    again = known_noise(tmp_path, first["environment"], first["plan"]["scenarios"])
    assert again is not None
    assert again.noise.endpoints[f"{CELL}/tpot_p50"].degrees == 4
    assert len(json.loads(file.read_text())["sessions"]) == 6


def test_noise_is_of_one_machine_and_one_workload(tmp_path: Path) -> None:
    made = run([block(number, 0.01 + number / 1e4) for number in range(3)])
    keep_sessions(made, tmp_path)
    other = {"tiny": {**SCENARIO, "output_tokens": [32]}}
    assert known_noise(tmp_path, made["environment"], other) is None
    assert known_noise(tmp_path, {"gpus": [{"name": "A10"}]}, made["plan"]["scenarios"]) is None
    renamed = {"tiny": {**SCENARIO, "description": "anything", "gate": []}}
    assert known_noise(tmp_path, made["environment"], renamed) is not None


def test_failed_and_missing_values_are_no_sessions(tmp_path: Path) -> None:
    made = run([block(0, 0.01), block(1, 0.01, failed=5), block(2, 0.02)])
    (file,) = keep_sessions(made, tmp_path)
    assert [each["block"] for each in json.loads(file.read_text())["sessions"]] == [0, 2]
    empty = stored()
    empty["cells"][CELL].update(status="failed", per_block=[], metrics={})
    with pytest.raises(RunError, match="nothing can be learnt"):
        keep_sessions(empty, tmp_path)


def test_a_damaged_noise_file_is_one_sentence(tmp_path: Path) -> None:
    made = stored()
    (file,) = keep_sessions(made, tmp_path)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match="delete it"):
        known_noise(tmp_path, made["environment"], made["plan"]["scenarios"])


def test_names_for_machines() -> None:
    h200 = {"name": "NVIDIA H200", "driver": "550"}
    assert machine_slug({"gpus": [h200]}) == "nvidia-h200"
    assert machine_slug({"gpus": [h200, h200]}) == "2x-nvidia-h200"
    assert machine_slug({"cpu": {"model": "Intel(R) Xeon(R) CPU @ 2.20GHz"}}) == "cpu-intel-xeon"
    assert machine_slug({}) == "cpu-unknown"
    assert workload_key(SCENARIO) == workload_key({**SCENARIO, "rounds": 9, "gate": []})
    assert sides()[0]["plan"]["scenarios"]["tiny"]["gate"]
