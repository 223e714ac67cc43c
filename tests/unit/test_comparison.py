"""Two runs → one comparison: what is compared, what is refused, and that nothing missing ever passes."""

import copy
import json
from typing import Any

import pytest

from enginebench.decide.model import Noise, Variance
from enginebench.errors import RunError
from enginebench.report.comparison import comparison_from_json
from enginebench.run.comparison import Terms, compare, discarded_pairs
from enginebench.run.endpoints import endpoint, read_gates, samples_of, watched
from tests.support.ab_runs import CELL, block, run, sides, stored, with_memory

MIB = 2**20
KNOWN = Noise({}, {"tpot_p50": Variance(0.01**2, 9), "output_tokens_per_s": Variance(0.01**2, 9)})


def judged(old: Any, new: Any, **terms: Any) -> int:
    return compare(old, new, Terms(**terms)).gate.exit_code


@pytest.mark.parametrize(("slower", "code"), [(0.0, 0), (0.2, 10), (-0.2, 0), (0.05, 11)])
def test_blocks_in_turns_decide(slower: float, code: int) -> None:
    found = compare(*sides(slower), Terms())
    assert found.design.paired
    assert found.design.pairs == 8
    assert found.gate.exit_code == code
    assert [each.endpoint.key for each in found.gated] == [f"{CELL}/tpot_p50"]
    assert found.gated[0].change == pytest.approx(slower, abs=0.01)


def test_only_a_strict_policy_stops_at_doubts() -> None:
    assert judged(*sides(0.05), policy="pr") == 0
    assert compare(*sides(0.05), Terms(policy="pr")).gate.warnings


def test_the_sides_are_named_in_their_order() -> None:
    old, new = sides()
    with pytest.raises(RunError, match=r"new-run is the new side .* name old-run first"):
        compare(new, old, Terms())
    with pytest.raises(RunError, match="cannot be compared with itself"):
        compare(old, old, Terms())


def test_stored_runs_decide_nothing_without_this_machines_noise() -> None:
    old, new = stored(0.01), stored(0.02, "new")
    found = compare(old, new, Terms())
    assert not found.design.paired
    assert found.gate.exit_code == 11
    assert "enginebench noise" in found.gated[0].reasons[0]
    assert judged(old, new, noise=KNOWN) == 10
    assert judged(old, stored(0.01, "same"), noise=KNOWN) == 0


@pytest.mark.parametrize("status", ["failed", "skipped", "not_applicable", None])
def test_a_cell_that_is_missing_is_never_a_pass(status: str | None) -> None:
    old, new = sides()
    if status is None:
        del new["cells"][CELL]
    else:
        new["cells"][CELL].update(status=status, reason="why not")
    assert judged(old, new) == 12
    assert judged(old, new, policy="pr") == 12


def test_a_renamed_cell_is_never_a_pass() -> None:
    old, new = sides()
    new["cells"]["tiny-direct-stream-out0016-bs004"] = new["cells"].pop(CELL)
    assert judged(old, new) == 12


def test_a_gated_cell_that_the_old_run_lacks_is_no_pass() -> None:
    old, new = sides()
    old["cells"][CELL].update(status="failed", reason="it broke")
    found = compare(old, new, Terms())
    assert found.gate.exit_code == 12
    assert any("in the old run it is failed (it broke)" in reason for reason in found.gate.reasons)


def test_other_hardware_is_refused_unless_it_is_allowed() -> None:
    old, new = sides(0.2)
    new["environment"] = copy.deepcopy(new["environment"])
    new["environment"]["cpu"]["model"] = "another"
    refused = compare(old, new, Terms())
    assert refused.gate.exit_code == 12
    assert not refused.verdicts
    assert "AMD EPYC 7B13" in refused.gate.reasons[0]
    assert "another" in refused.gate.reasons[0]
    allowed = compare(old, new, Terms(allow=("hardware",)))
    assert allowed.gate.exit_code == 10
    assert [each.allowed for each in allowed.problems] == [True]


def test_late_requests_and_a_set_clock_discard_a_pair_for_both() -> None:
    old, new = sides(pairs=8)
    new["cells"][CELL]["per_block"][2]["metrics"]["slip"].update(p50=0.5, max=0.5)
    old["cells"][CELL]["per_block"][5].update(broken="The system clock was set", metrics={})
    assert [(each.pair, each.side) for each in discarded_pairs(old, new)] == [(5, "old"), (2, "new")]
    found = compare(old, new, Terms())
    assert {each.pairs for each in found.gated} == {6}
    assert "late" in found.design.discarded[1].reason


def test_a_machine_that_was_not_fit_discards_a_pair_and_the_clients_error_does_not() -> None:
    old, new = sides(pairs=8)
    blocks = new["cells"][CELL]["per_block"]
    blocks[1]["validity"] = {
        "level": "invalid",
        "reasons": ["throttled"],
        "endpoints": {"tpot_p50": {"level": "valid"}},
    }
    blocks[3]["validity"] = {"level": "invalid", "reasons": ["client"], "endpoints": {"ttft_p50": {"level": "invalid"}}}
    assert [(each.pair, each.reason) for each in discarded_pairs(old, new)] == [(1, "throttled")]


def test_a_build_that_breaks_or_fails_requests_is_no_pass() -> None:
    old, new = sides(pairs=8)
    for entry in new["cells"][CELL]["per_block"][:4]:
        entry.update(broken="The engine died.", metrics={}, requests=0, rounds=0)
    assert judged(old, new) != 0
    failing = run([block(pair, 0.01, pair=pair, failed=5) for pair in range(8)], "new-run", name="new")
    found = compare(old, failing | {"ab": new["ab"]}, Terms())
    assert found.gate.exit_code == 10
    assert "failed 40 of 64 requests" in found.gate.reasons[0]


def test_a_percentile_without_bound_is_the_worst_and_one_without_requests_is_none() -> None:
    failing = run([block(0, 0.01, failed=5)])
    values = [samples_of(failing, endpoint(CELL, name, 0.05))[0].value for name in ("tpot_p50", "tpot_p99")]
    assert values == [float("inf"), None]


def test_memory_outside_the_pool_is_gated_by_tolerance() -> None:
    old, new = (with_memory(each, [500 * MIB] * 8) for each in sides())
    assert judged(old, new) == 0
    with_memory(new, [600 * MIB] * 8)
    found = compare(old, new, Terms())
    assert found.gate.exit_code == 10
    assert found.gated[1].endpoint.key == "direct/gpu_memory"
    assert found.gated[1].change == pytest.approx(0.2)
    del new["sessions"][0]["kv_pool"]
    assert len(samples_of(new, endpoint("direct", "gpu_memory", 0.02))) == 7


def test_a_scenario_gates_the_memory_of_a_path() -> None:
    """Without a number of it the gate is invalid, and says why."""
    old, new = sides()
    for each in (old, new):
        each["plan"]["scenarios"]["tiny"]["gate"] = [{"cell": "direct", "metric": "gpu_memory", "margin": 0.02}]
        del each["ab"]["gated"]
    (unknown,) = compare(old, new, Terms()).gated
    assert (unknown.outcome, unknown.reasons) == ("invalid", ("The old run has no value: no GPU.",))
    with_memory(old, [2e9] * 8)
    with_memory(new, [2.1e9] * 8)
    (known,) = compare(old, new, Terms()).gated
    assert (known.outcome, known.endpoint.key) == ("regression", "direct/gpu_memory")
    new["sessions"][0]["kv_pool"]["bytes"] = None
    del new["sessions"][1:]
    (hidden,) = compare(old, new, Terms()).gated
    assert "the size of its KV pool is not known" in hidden.reasons[0]


def test_energy_and_mbu_are_watched_where_they_are_known() -> None:
    old, new = sides()
    for each in (old, new):
        for entry in each["cells"][CELL]["per_block"]:
            entry["metrics"] |= {"energy_per_output_token": {"value": 0.4}, "mbu": {"value": 0.5}}
    names = {each.name for each in watched((), (old, new))}
    assert names >= {"energy_per_output_token", "mbu"}
    for entry in new["cells"][CELL]["per_block"]:
        del entry["metrics"]["mbu"]
    assert "mbu" not in {each.name for each in watched((), (old, new))}


def test_what_the_client_cannot_resolve_is_invalid() -> None:
    old, new = sides(0.2)
    new["cells"][CELL]["validity"] = {"level": "invalid", "endpoints": {"tpot_p50": {"relative": -0.08}}}
    found = compare(old, new, Terms())
    assert found.gated[0].outcome == "invalid"
    assert found.gate.exit_code == 12


def test_runs_without_blocks_are_one_block() -> None:
    old, new = stored(0.01), stored(0.02, "new")
    del old["cells"][CELL]["per_block"]
    assert judged(old, new, noise=KNOWN) == 10


def test_every_other_number_is_watched_but_those_of_the_client() -> None:
    names = [each.name for each in watched((), sides())]
    assert names == ["ttft_p50", "tpot_p50", "e2e_latency_p50", "output_tokens_per_s"]


@pytest.mark.parametrize("policy", ["pr", "release"])
@pytest.mark.parametrize("paired", [True, False])
def test_a_gate_on_the_gpu_without_one_is_invalid_and_never_a_pass(policy: Any, paired: bool) -> None:
    old, new = sides() if paired else (stored(), stored(0.01, "new"))
    gates = (f"{CELL}:energy_per_output_token:5%", f"{CELL}:tpot_p50:5%")
    found = compare(old, new, Terms(policy=policy, gates=gates, noise=KNOWN))
    assert found.gate.exit_code == 12
    energy, tpot = found.gated
    assert (energy.outcome, energy.reasons) == ("invalid", ("The old run has no value: no GPU.",))
    assert tpot.outcome == "equivalent"


def test_a_number_of_the_gpu_is_gated_where_both_runs_have_it() -> None:
    old, new = sides()
    for each, joules in ((old, 0.4), (new, 0.5)):
        cell = each["cells"][CELL]
        cell["gpu"] = {"mbu": None}
        for number, entry in enumerate(cell["per_block"]):
            entry["metrics"]["energy_per_output_token"] = {"value": joules * (1 + number / 1000)}
    terms = Terms(gates=(f"{CELL}:energy_per_output_token:5%", f"{CELL}:mbu:5%"))
    energy, mbu = compare(old, new, terms).gated
    assert energy.outcome == "regression"
    assert (mbu.outcome, mbu.reasons) == (
        "invalid",
        ("The old run has no value: its GPU does not tell what it is made of.",),
    )


def test_gates_are_read_with_and_without_the_scenarios_name() -> None:
    cells = stored()["cells"]
    (found,) = read_gates([f"{CELL}:tpot_p50:3%"], cells)
    assert (found.cell_id, found.metric, found.statistic, found.kind) == (CELL, "tpot", "p50", "gated")
    assert found.margin == pytest.approx(0.03)
    assert read_gates(["direct-stream-out0016-bs002:goodput:5%"], cells)[0].better == "higher"
    assert read_gates(["direct:gpu_memory:2%"], cells)[0].exact


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nonsense", "names no cell"),
        ("direct-stream-out0016-bs01:tpot_p50:5%", "did you mean 'direct-stream-out0016-bs002'"),
        (f"{CELL}:tpot_50:5%", "did you mean 'tpot_p50'"),
        (f"{CELL}:tpot_p50", "no margin"),
        (f"{CELL}:tpot_p50:5", "no margin"),
        (f"{CELL}:tpot_p50:-1%", "no margin"),
        (f"{CELL}:tpot_p50:nan%", "no margin"),
    ],
)
def test_a_gate_that_is_none_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        read_gates([text], stored()["cells"])


def test_five_gates_are_too_many() -> None:
    texts = [f"{CELL}:{name}:5%" for name in ("tpot_p50", "ttft_p50", "itl_p50", "e2e_latency_p50", "goodput")]
    with pytest.raises(RunError, match="4 can be"):
        read_gates(texts, stored()["cells"])
    assert len(read_gates([texts[0]] * 9, stored()["cells"])) == 1


def test_two_margins_of_one_number_are_refused() -> None:
    short = CELL.removeprefix("tiny-")
    with pytest.raises(RunError, match=r"tpot_p50 is gated at 5% and at 10%: keep one of them"):
        read_gates([f"{CELL}:tpot_p50:5%", f"{short}:tpot_p50:10%"], stored()["cells"])


def test_the_file_holds_everything() -> None:
    found = compare(*sides(0.2), Terms())
    assert comparison_from_json(json.loads(json.dumps(found.as_json()))) == found
    with pytest.raises(RunError, match="no comparison"):
        comparison_from_json({"schema": "enginebench/run/1"})
