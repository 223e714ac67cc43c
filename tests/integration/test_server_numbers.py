"""The server's own numbers beside the client's: of a script that counts what it is told to, and of a real run."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.measure.records import UNKNOWN, ChunkTable, RequestTable, RoundRecord, int_array, stamp_array
from enginebench.measure.server_sampler import ServerSampler, columns_of
from enginebench.run.server_numbers import CellNumbers, findings
from enginebench.run.server_watch import ServerWatch, find_metrics, same_server
from enginebench.runtimes.answers import JSON
from enginebench.server.metrics_page import Reading, parse
from enginebench.server.statistics import ModelCounts
from enginebench.store_tables import read_columns
from tests.support.bench_project import BenchProject
from tests.support.embedded import needs_triton
from tests.support.scripted_server import Asked, ScriptedServer, Step, whole

ENGINE = """\
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="active",version="1"}} {active}
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="tensorrt_llm",version="1"}} {active}
nv_trt_llm_general_metrics{{general_type="iteration_counter",model="tensorrt_llm",version="1"}} {iteration}
nv_llm_output_token_len_sum{{model="tensorrt_llm"}} {tokens}
nv_inference_pending_request_count{{model="ensemble"}} 0
"""
PLAIN = 'nv_inference_pending_request_count{{model="ensemble"}} {active}\n'


@dataclass
class Counting:
    """A server with counters that tests set. ``pages``: how many metrics pages were read."""

    requests: int = 0
    tokens: int = 0
    active: Callable[[int], int] = lambda _: 0  # from the number of the page
    moving: bool = True  # whether the engine's iterations go on
    page: str = ENGINE
    pages: int = 0
    models: dict[str, int] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Iterator[Step]:
        if asked.path == "/metrics":
            self.pages += 1
            shown = {"active": self.active(self.pages), "iteration": self.pages if self.moving else 7}
            yield whole(200, "text/plain", self.page.format(**shown, tokens=self.tokens).encode())
        else:
            counts = {"ensemble": self.requests, **self.models}
            stats = [_model_stats(name, count) for name, count in counts.items()]
            yield whole(200, JSON, json.dumps({"model_stats": stats}).encode())


def _model_stats(name: str, count: int) -> dict[str, Any]:
    spent = {"count": count, "ns": count * 1_000_000}
    kinds = ("success", "queue", "compute_input", "compute_infer", "compute_output")
    inference = {"fail": {}, **dict.fromkeys(kinds, spent)}  # proto3 leaves zeros out
    return {"name": name, "inference_count": count, "execution_count": count, "inference_stats": inference}


def record(requests: int = 2, tokens: int = 5) -> RoundRecord:
    stamps = stamp_array([1] * requests)
    ints = int_array([tokens] * requests)
    table = RequestTable(
        index=int_array(range(requests)),
        prompt_tokens=ints,
        reported_prompt_tokens=ints,
        requested_tokens=ints,
        intended_ns=stamps,
        sent_ns=stamps,
        first_ns=stamps,
        last_ns=stamps,
        tokens=ints,
        first_tokens=ints,
        outcome=("ok",) * requests,
        error=("",) * requests,
    )
    none = int_array([])
    chunks = ChunkTable(none, stamp_array([]), stamp_array([]), none, none)
    load = {"kind": "batch", "label": "bs002", "level": 2, "size": 2}
    return RoundRecord(0, False, 0, True, load, "user", 1, 2, False, table, chunks)


def watch(server: ScriptedServer, *, metrics: bool = True) -> ServerWatch:
    watched = ServerWatch(server.url, f"{server.url}/metrics")
    watched.stop()  # the pages are the test's own
    watched.sampler = None
    if not metrics:
        watched.metrics_url = None
    return watched


def numbers_of(script: Counting, requests: int, tokens: int, *, metrics: bool = True, told: int = 5) -> dict[str, Any]:
    """What a cell of two requests of five tokens (as ``told`` by answers) keeps when the server counts so many."""
    with ScriptedServer(script) as server:
        numbers = CellNumbers([watch(server, metrics=metrics)], "ensemble")
        numbers.wait_idle()
        numbers.begin()
        script.requests += requests
        script.tokens += tokens
        numbers.begin()  # of the next round: the first reading stands
        numbers.end()
        kept = numbers.as_json([record(tokens=told)])
        return {**kept, "findings": findings(kept)}


def counted(kept: dict[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    return {each["what"]: (each["client"], each["server"]) for each in kept["counted"]}


def kv_tokens(most: Callable[[int], int] | None) -> int | None:
    """Of a server whose pages show so many blocks of 64 tokens; None: it has no such family."""
    kinds = {} if most is None else {"max": "{active}", "tokens_per": "64"}
    lines = [f'nv_trt_llm_kv_cache_block_metrics{{{{kv_cache_block_type="{k}"}}}} {v}\n' for k, v in kinds.items()]
    script = Counting(page="".join(lines), active=most or (lambda _: 0))
    with ScriptedServer(script) as server:
        return watch(server).kv_tokens()


def test_the_kv_pool_is_what_the_blocks_hold_once_they_are_shown() -> None:
    assert kv_tokens(lambda page: 0 if page < 3 else 6239) == 6239 * 64
    assert kv_tokens(lambda _: 0) is None
    assert kv_tokens(None) is None


def test_equal_counts_are_no_finding() -> None:
    kept = numbers_of(Counting(requests=100, tokens=1000), 2, 10)
    assert counted(kept) == {"requests": (2, 2), "output tokens": (10, 10)}
    assert kept["findings"] == []
    assert kept["idle_before"]["status"] == "verified"
    assert kept["statistics"]["ensemble"]["requests"] == 2


def test_a_mismatch_is_a_finding_that_names_both_numbers() -> None:
    findings = numbers_of(Counting(), 3, 12)["findings"]
    assert [finding.split(" (")[0] for finding in findings] == [
        "The client counted 2 requests and the server 3",
        "The client counted 10 output tokens and the server 12",
    ]


def test_tokens_that_no_answer_tells_are_none_and_no_finding() -> None:
    kept = numbers_of(Counting(requests=100, tokens=1000), 2, 10, told=UNKNOWN)
    assert counted(kept) == {"requests": (2, 2), "output tokens": (None, 10)}
    assert kept["findings"] == []


def test_what_a_server_does_not_count_is_none_and_its_families_are_named() -> None:
    kept = numbers_of(Counting(page=PLAIN), 2, 10)
    assert counted(kept) == {"requests": (2, 2), "output tokens": (10, None)}
    assert "nv_trt_llm_request_metrics" in kept["not_offered"]
    assert kept["gauges"] is None
    assert kept["findings"] == []
    assert kept["idle_before"]["status"] == "unverified"


def test_without_a_metrics_page_idleness_is_unverified() -> None:
    kept = numbers_of(Counting(), 2, 10, metrics=False)
    assert kept["idle_before"]["status"] == "unverified"
    assert counted(kept)["output tokens"] == (10, None)


def test_a_cell_waits_until_cancelled_requests_have_run_out() -> None:
    script = Counting(active=lambda page: 3 if page < 6 else 0)
    with ScriptedServer(script) as server:
        numbers = CellNumbers([watch(server)], "ensemble")
        numbers.wait_idle()
        assert script.pages >= 6
        numbers.begin()
        numbers.end()
        assert numbers.as_json([record()])["idle_before"]["status"] == "verified"


def test_a_server_that_stays_busy_is_a_finding() -> None:
    with ScriptedServer(Counting(active=lambda _: 1)) as server:
        numbers = CellNumbers([watch(server)], "ensemble")
        numbers.wait_idle(timeout_s=0.3)
        numbers.begin()
        numbers.end()
        kept = numbers.as_json([record()])
        assert kept["idle_before"]["status"] == "failed"
        assert "still working on earlier requests" in findings(kept)[0]


def test_an_engine_that_stands_still_is_idle_whatever_its_gauge_says() -> None:
    with ScriptedServer(Counting(active=lambda _: 1, moving=False)) as server:
        numbers = CellNumbers([watch(server)], "ensemble")
        numbers.wait_idle(timeout_s=30, standing_s=0.3)
        numbers.begin()
        numbers.end()
        assert numbers.as_json([record()])["idle_before"]["status"] == "verified"


def numbers_of_two(one: Counting, other: Counting, served: tuple[int, int]) -> dict[str, Any]:
    """What a cell of two requests keeps when two servers, which get one each, count so many."""
    with ScriptedServer(one) as first, ScriptedServer(other) as second:
        watches = [watch(first), watch(second)]
        numbers = CellNumbers(watches, "ensemble")
        numbers.wait_idle(timeout_s=0.5)
        numbers.begin()
        for script, requests in zip((one, other), served, strict=True):
            script.requests += requests
            script.tokens += 5 * requests
        numbers.end([record()])
        kept = numbers.as_json([record()])
        return {**kept, "findings": findings(kept), "urls": [first.url, second.url]}


def test_the_counts_of_replicas_are_added_up_and_each_part_is_kept() -> None:
    kept = numbers_of_two(Counting(requests=7), Counting(), (1, 1))
    assert counted(kept) == {"requests": (2, 2), "output tokens": (10, 10)}
    assert kept["statistics"]["ensemble"]["requests"] == 2
    assert [part["server"] for part in kept["servers"]] == kept["urls"]
    assert [counted(part) for part in kept["servers"]] == [{"requests": (1, 1), "output tokens": (5, 5)}] * 2
    assert kept["findings"] == []


def test_the_replica_that_counts_otherwise_is_named() -> None:
    kept = numbers_of_two(Counting(), Counting(), (2, 0))
    assert counted(kept)["requests"] == (2, 2)
    one, other = kept["urls"]
    assert [finding.split(" (")[0] for finding in kept["findings"]] == [
        f"The client counted 1 requests and the server at {one} 2",
        f"The client counted 5 output tokens and the server at {one} 10",
        f"The client counted 1 requests and the server at {other} 0",
        f"The client counted 5 output tokens and the server at {other} 0",
    ]


def test_a_replica_that_stays_busy_is_named() -> None:
    kept = numbers_of_two(Counting(), Counting(active=lambda _: 1), (1, 1))
    assert kept["idle_before"]["status"] == "failed"
    assert [part["idle_before"] for part in kept["servers"]] == ["verified", "failed"]
    assert kept["findings"][0].startswith(f"The server at {kept['urls'][1]} was still working on earlier requests")


def test_what_one_replica_does_not_count_is_not_known_of_all() -> None:
    kept = numbers_of_two(Counting(), Counting(page=PLAIN), (1, 1))
    assert counted(kept) == {"requests": (2, 2), "output tokens": (10, None)}
    assert [counted(part)["output tokens"] for part in kept["servers"]] == [(5, 5), (5, None)]
    assert "nv_trt_llm_request_metrics" in kept["not_offered"]


@dataclass
class Late(Counting):
    """Counts a round of two requests no earlier than when it was asked for its counts four times after it."""

    looks: int = 0
    due: int = 0

    def serve(self) -> None:
        self.due = self.looks + 4

    def __call__(self, asked: Asked) -> Iterator[Step]:
        if asked.path != "/metrics":
            self.looks += 1
            if self.looks == self.due:
                self.requests, self.tokens = self.requests + 2, self.tokens + 10
        return super().__call__(asked)


def test_counts_that_come_late_are_waited_for() -> None:
    with ScriptedServer(script := Late()) as server:
        numbers = CellNumbers([watch(server)], "ensemble")
        numbers.wait_idle()
        script.serve()
        numbers.begin([replace(record(), warmup=True)])
        script.serve()
        numbers.end([record()])
        kept = numbers.as_json([record()])
    assert counted(kept) == {"requests": (2, 2), "output tokens": (10, 10)}


def test_a_model_that_was_loaded_anew_has_no_counts_and_says_why() -> None:
    with ScriptedServer(script := Counting(requests=9)) as server:
        numbers = CellNumbers([watch(server)], "ensemble")
        numbers.begin()
        script.requests = 1
        numbers.end()
        kept = numbers.as_json([record()])
    assert kept["statistics"] is None
    assert "loaded anew" in kept["statistics_reason"]
    assert counted(kept)["requests"] == (2, None)


def test_another_servers_metrics_page_is_not_taken() -> None:
    with ScriptedServer(Counting(requests=4)) as server:
        assert find_metrics(server.url) is None


def test_pages_of_replicas_are_told_apart_by_the_time_that_requests_took() -> None:
    counts = {"ensemble": ModelCounts(4, 0, 4, 4, 0.0040019, *[0.0] * 4)}

    def readings(took_us: int, requests: int = 4) -> list[Reading]:
        of_model = 'model="ensemble",version="1"'
        counted = f"nv_inference_request_success{{{of_model}}} {requests}"
        return parse(f"{counted}\nnv_inference_request_duration_us{{{of_model}}} {took_us}")

    assert same_server(readings(4000), counts)
    assert not same_server(readings(4100), counts)
    assert not same_server(readings(4000, requests=5), counts)
    assert same_server(readings(4000)[:1], counts), "not every version says how long"
    assert not same_server([], counts)


def test_the_sampler_keeps_what_changes_and_ends_with_its_harness() -> None:
    with ScriptedServer(script := Counting(active=lambda page: page // 4)) as server:
        sampler = ServerSampler(f"{server.url}/metrics", server.url, period_s=0.01)
        while script.pages < 12:
            assert sampler._process.poll() is None
            time.sleep(0.01)
        sampler.stop()
        samples = sampler.samples()
    assert sampler._process.poll() is not None
    table = columns_of(samples)
    used = [v for name, v in zip(table["family"], table["value"], strict=True) if "kv_cache" in name]
    assert used[:3] == [0.0, 1.0, 2.0]  # no value twice in a row, though each was read four times
    assert table["family"].count("nv_inference_pending_request_count") == 1
    assert sorted(table["stamp_ns"]) == table["stamp_ns"]


SCENARIO = """\
description: for the server's numbers
prompts: [写一篇1000字的玄幻小说, Tell me a story]
output_tokens: [12]
batch_sizes: [2]
streaming: [true]
requests: 4
rounds: 2
"""


@needs_triton
def test_a_run_keeps_and_shows_the_servers_numbers(tmp_path: Path) -> None:
    project = BenchProject.make(tmp_path)
    project.write_scenario("numbers", SCENARIO)
    done = project.bench("--scenario", "numbers", "--path", "ensemble")
    assert done.returncode == 0, done.stdout
    run = project.run()
    cell = run.cells["numbers-ensemble-stream-out0012-bs002"]
    server = cell["server"]
    assert counted(server) == {
        "requests": (8, 8),
        "output tokens": (96, 96),
        "answers, each of one event": (96, 96),
    }
    assert cell["findings"] == []
    assert server["idle_before"]["status"] == "verified"
    assert server["not_offered"] == ["nv_gpu_"]
    assert server["gauges"]["values"]["kv_max"]["max"] == 8
    assert server["layers"]["traced"]
    assert server["layers"]["perf_metrics"]
    (session,) = run.data["sessions"]
    assert {check["status"] for check in session["preflight"]} == {"verified"}
    table = read_columns(run.directory / "telemetry" / "server.parquet")
    active = {"request_type": "active"}.items()
    seen = [
        v for labels, v in zip(table["labels"], table["value"], strict=True) if json.loads(labels).items() >= active
    ]
    assert max(seen) >= 1
    assert np.all(np.diff(table["stamp_ns"]) >= 0)
    assert len(run.rounds("numbers-ensemble-stream-out0012-bs002")) == 3, "the observed round is kept nowhere"
    page = (run.directory / "report.html").read_text(encoding="utf-8")
    for words in ("Where the time goes", "What the server says", "waiting for a batch slot", "unexplained"):
        assert words in page
