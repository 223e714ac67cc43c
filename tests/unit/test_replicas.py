"""Several servers measured as one endpoint: who takes which request, what each got, and how it is said."""

from dataclasses import replace
from typing import Any

import pytest

from enginebench.errors import EnginebenchError
from enginebench.measure.findings import failure
from enginebench.measure.replicas import parts_of, shares
from enginebench.plan.requests import server_of
from enginebench.report.cells import cells_of
from enginebench.report.facts import facts
from enginebench.report.gauges import gauge_figure
from enginebench.report.server import server_section
from enginebench.report.shares import shares_section
from enginebench.report.summary import verdict
from enginebench.run.attached import Attached, read_urls
from enginebench.run.gpu import why_unseen
from tests.support.rounds import Row, round_of
from tests.support.sample_run import full_run

URLS = ("http://10.0.0.1:8000", "http://10.0.0.2:8000")
OPTION = "--triton-url"


def test_requests_go_round_and_each_round_begins_one_further() -> None:
    assert [server_of(index, 0, 3) for index in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert [server_of(0, round_index, 3) for round_index in range(4)] == [0, 1, 2, 0]
    assert [server_of(index, -1001, 2) for index in range(3)] == [1, 0, 1]
    assert {server_of(index, 5, 1) for index in range(9)} == {0}


def test_a_round_is_divided_by_server_with_its_arrivals() -> None:
    rows = [Row([(10, 1), (20 + index, 2)], asked=3) for index in range(5)]
    first, second = parts_of(round_of(*rows, round_index=1), 2)
    assert (first.requests.index.tolist(), second.requests.index.tolist()) == ([1, 3], [0, 2, 4])
    assert set(first.chunks.request.tolist()) == {1, 3}
    assert (len(first.chunks), len(second.chunks)) == (4, 6)
    assert first.requests.outcome == ("ok", "ok")


def test_shares_tell_what_each_server_got() -> None:
    rounds = [round_of(*[Row([(10, 1), (30, 2)], asked=3)] * 3, round_index=index) for index in range(2)]
    assert shares(URLS, rounds) == [
        {"server": url, "requests": 3, "output_tokens": 9, "mean_e2e_latency_s": pytest.approx(0.03)} for url in URLS
    ]
    unknown = round_of(Row([(10, -1)]), Row([(10, 1)]))
    assert [share["output_tokens"] for share in shares(URLS, [unknown])] == [None, 1]
    idle = shares((*URLS, "http://10.0.0.3:8000"), [unknown])[2]
    assert (idle["requests"], idle["output_tokens"], idle["mean_e2e_latency_s"]) == (0, 0, None)


def test_a_failure_names_the_server() -> None:
    good, bad = Row([(10, 1)]), Row([], asked=1, outcome="stall", error="nothing arrived for 30 s")
    record = round_of(good, bad, good, bad)
    assert failure(record, URLS) == (f"In round 1, 2 of 4 requests stalled (nothing arrived for 30 s), at {URLS[1]}.")
    everywhere = failure(round_of(bad, bad, bad), URLS)
    assert everywhere is not None
    assert everywhere.endswith(f", 2 at {URLS[0]} and 1 at {URLS[1]}.")
    assert failure(record, URLS[:1]) == failure(record)


def test_every_server_is_named_once() -> None:
    assert read_urls(OPTION, []) == ()
    assert read_urls(OPTION, ["http://127.0.0.1:8000/"]) == ("http://127.0.0.1:8000",)
    assert read_urls(OPTION, URLS) == URLS


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (
            ["http://a:1,http://b:2"],
            "'http://a:1,http://b:2' is not one URL: for several servers, give --triton-url once",
        ),
        (
            ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:1/"],
            "http://127.0.0.1:1 and http://127.0.0.1:1 are",
        ),
        (["http://127.0.0.1:8000", "http://localhost:8000"], "http://localhost:8000 are the same server"),
    ],
)
def test_urls_that_name_no_server_of_their_own_are_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(EnginebenchError) as refused:
        read_urls(OPTION, texts)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ((), None),
        (("http://127.0.0.1:8000",), None),
        (("http://10.0.0.1:8000",), "the server runs on another machine"),
        (("http://127.0.0.1:8000", "http://127.0.0.1:8010"), "which GPUs each of the 2 servers uses is not known"),
        (("http://127.0.0.1:8000", "http://10.0.0.1:8000"), "not every server runs on this machine"),
    ],
)
def test_the_gpus_of_several_servers_are_not_known(urls: tuple[str, ...], why: str | None) -> None:
    assert why_unseen(Attached(urls), "ensemble") == why
    assert why_unseen(Attached(urls), "direct") is None


def part(url: str, requests: int, served: int, batch: float) -> dict[str, Any]:
    values = {"scheduled": batch, "kv_used": batch, "kv_max": 8.0}
    return {
        "server": url,
        "idle_before": "verified",
        "statistics": None,
        "statistics_reason": None,
        "gauges": {
            "pages": 5,
            "missed": 0,
            "values": {name: {"min": 0.0, "max": most} for name, most in values.items()},
        },
        "counted": [
            {"what": "requests", "client": requests, "server": served, "source": "statistics", "matters": True}
        ],
    }


def run_of_two() -> dict[str, Any]:
    """A run whose ensemble cells went to two servers, the second of which counted one request more."""
    run = full_run()
    run["plan"]["servers"] = {"triton": list(URLS)}
    run["attached_url"] = URLS[0]
    parts = [part(URLS[0], 5, 5, 2.0), part(URLS[1], 5, 6, 3.0)]
    server: dict[str, Any] = {
        "model": "ensemble",
        "idle_before": {"status": "verified"},
        "statistics": {},
        "not_offered": [],
    }
    server |= {
        "started_ns": 0,
        "ended_ns": 2_000_000_000,
        "gauges": parts[0]["gauges"],
        "counted": [],
        "servers": parts,
    }
    took = [{"server": url, "requests": 5, "output_tokens": 50, "mean_e2e_latency_s": mean_s}
            for url, mean_s in zip(URLS, (0.2, 0.3), strict=True)]  # fmt: skip
    for cell in run["cells"].values():
        if cell["path"] == "ensemble" and cell["status"] == "measured":
            cell |= {"server": server, "shares": took}
    checks = [{"name": "order", "status": "verified", "detail": "In order.", "server": url} for url in URLS]
    alike = {"name": "replicas", "status": "failed", "detail": "Triton differs.", "server": ""}
    run["sessions"][0]["preflight"] = [*checks, alike]
    return run


def test_the_page_says_what_each_server_got() -> None:
    run = run_of_two()
    section = shares_section(run, None)
    assert section is not None
    (table,) = section.tables
    assert [[text.text for text in row][1] for row in table.rows] == list(URLS)
    assert {row[3].text for row in table.rows} == {"50.0%"}
    assert [row[5].text for row in table.rows] == ["0.200", "0.300"]
    assert shares_section(full_run(), None) is None
    (listed,) = (value for one in facts(run) for name, value in one.rows if name == "Server")
    assert listed == ", ".join(URLS)
    assert any(" and ".join(URLS) in note for note in verdict(run, cells_of(run)).notes)


def test_what_servers_say_is_said_of_each() -> None:
    found = server_section(run_of_two(), None)
    assert found is not None
    checks, counted = found.tables[:2]
    assert [column.title for column in checks.columns] == ["Path", "Server", "In order", "Replicas alike"]
    assert [[text.text for text in row][1:] for row in checks.rows] == [[url, "yes", "NO"] for url in URLS]
    assert [column.title for column in counted.columns][:5] == ["Path", "URL", "What", "Client", "Server"]
    assert [(row[1].text, row[-2].text == "0") for row in counted.rows] == [(URLS[0], True), (URLS[1], False)]


def test_gauges_are_drawn_server_by_server() -> None:
    run = run_of_two()
    cell = next(cell for cell in cells_of(run) if cell.record.get("server"))
    rows = [(1_000_000_000, URLS[0], 2.0), (1_100_000_000, URLS[1], 3.0), (1_500_000_000, URLS[0], 1.0)]
    pages = {
        "stamp_ns": [stamp for stamp, _, _ in rows],
        "family": ["nv_trt_llm_request_metrics"] * 3,
        "labels": [{"request_type": "scheduled", "instance": url} for _, url, _ in rows],
        "value": [value for _, _, value in rows],
    }
    figure = gauge_figure(1, cell, pages, run, None)
    assert figure is not None
    (plot,) = figure.plots
    assert [(marks.name, marks.x, marks.y) for marks in plot.marks] == [
        (URLS[0], (1.0, 1.5, 2.0), (2.0, 1.0, 1.0)),
        (URLS[1], (1.1, 2.0), (3.0, 3.0)),
    ]
    assert f"{URLS[1]} had the largest batch, of up to 3 requests, and its KV cache held up to 3 of 8" in figure.finding
    assert [row[1].text for row in figure.table.rows] == [url for url in URLS for _ in range(3)]
    assert (
        gauge_figure(
            1, replace(cell, record=full_run()["cells"][cell.id] | {"server": cell.record["server"]}), {}, run, None
        )
        is None
    )
