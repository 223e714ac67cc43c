"""``pytest bench/ --shards N`` as a user types it: several client processes against a real server."""

from pathlib import Path

from tests.support.bench_project import BenchProject, answers
from tests.support.embedded import needs_triton

LOADS = """
prompts: [你是谁？, Hello!]
output_tokens: 6
load:
  - {kind: batch, sizes: [4]}
  - {kind: concurrency, levels: [3], requests: 9}
  - {kind: rate, per_s: 40, requests: 12}
rounds: 2
warmup_rounds: 1
paths: [core]
"""


@needs_triton
def test_every_load_is_measured_by_all_shards(tmp_path: Path) -> None:
    project = BenchProject.make(tmp_path)
    project.write_scenario("loads", LOADS)
    done = project.bench("--scenario", "loads", "--shards", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    run = project.run()
    assert {cell["status"] for cell in run.data["cells"].values()} == {"measured"}
    session = run.data["sessions"][0]
    assert [shard["error_ns"] for shard in session["facts"]["shards"]] == [0, 0]
    assert session["memory"]["host"]["client"]["peak"] > 2**20
    requests = [sorted(index for _, index in answers(run, cell_id)) for cell_id in run.data["cells"]]
    assert requests == [sorted([*range(count)] * 3) for count in (4, 9, 12)]
    for cell_id, cell in run.data["cells"].items():
        points = run.data["calibration"]["points"]
        assert cell["calibration"] in points
        assert f"{cell['calibration']}-shard0" in points, cell_id
    assert {path.name for path in (project.runs()[-1] / "logs").glob("worker-core*")} == {
        "worker-core-shard0.log",
        "worker-core-shard1.log",
    }


def test_the_direct_path_is_refused_in_one_sentence(tmp_path: Path) -> None:
    done = BenchProject.make(tmp_path).bench("--scenario", "smoke", "--shards", "2")
    assert done.returncode == 4
    assert "ERROR: --shards 2 divides the client of a server, and the direct path has one process" in done.stderr
