"""Parts of a request's time: every nanosecond in one layer, none in two, and what nobody explains is said."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.measure.layers import (
    LAYERS,
    ClientTimes,
    EngineTimes,
    Waterfall,
    engine_times,
    from_stamps,
    from_statistics,
    from_traces,
)
from enginebench.server.statistics import ModelCounts
from enginebench.server.tracing import Span, read_spans

MS = 1_000_000
T0 = 5_000_000_000_000
STEPS = {"client": 1, "http_queue": 2, "preprocessing": 3, "slot": 5, "prefill": 7, "decode": 30, "postprocessing": 4}
TOKENS = 4


def trace(steps: Mapping[str, int] = STEPS, model: str = "ensemble", number: int = 1, at_ns: int = T0) -> list[Any]:
    """The entries of one traced request whose layers take so many ms; half of client and of queue on either side."""
    received = at_ns + steps["client"] * MS // 2
    pre = received + steps["http_queue"] * MS // 2
    core = pre + steps["preprocessing"] * MS
    taken = core + steps["http_queue"] * MS // 2
    first = taken + (steps["slot"] + steps["prefill"]) * MS
    posts = [first + steps["decode"] * MS * place // (TOKENS - 1) for place in range(TOKENS)]
    answers = [post + steps["postprocessing"] * MS for post in posts]
    base = number * 100
    children = [
        (base + 1, "preprocessing", {"REQUEST_START": pre, "COMPUTE_START": pre + MS}),
        (base + 2, "tensorrt_llm", {"REQUEST_START": core, "COMPUTE_START": taken}),
        *((base + 3 + place, "postprocessing", {"REQUEST_START": post}) for place, post in enumerate(posts)),
    ]
    entries = [{"id": base, "model_name": model, "model_version": 1}, _stamp(base, "HTTP_RECV_START", received)]
    entries += [_stamp(base, "INFER_RESPONSE_COMPLETE", answer) for answer in answers]
    for span, name, stamps in reversed(children):  # as they end
        entries.append({"id": span, "model_name": name, "model_version": 1, "parent_id": base})
        entries += [_stamp(span, *each) for each in stamps.items()]
    return entries


def _stamp(span: int, name: str, stamp_ns: int) -> dict[str, Any]:
    return {"id": span, "timestamps": [{"name": name, "ns": stamp_ns}]}


def client(steps: Mapping[str, int] = STEPS) -> ClientTimes:
    before_first = sum(steps.values()) - steps["decode"]
    return ClientTimes(float(T0), before_first / 1e3, sum(steps.values()) / 1e3)


def engine(steps: Mapping[str, int] = STEPS) -> EngineTimes:
    return EngineTimes(steps["slot"] / 1e3, steps["prefill"] / 1e3, steps["decode"] / 1e3)


def parts_ms(fall: Waterfall) -> dict[str, float]:
    return {"+".join(part.layers): part.s * 1e3 for part in fall.parts}


def test_a_trace_with_perf_metrics_tells_every_layer_apart() -> None:
    spans = read_spans(trace())
    whole = from_traces(client(), spans, engine(), whole=True, measured_s=None)
    assert parts_ms(whole) == pytest.approx({name: float(ms) for name, ms in STEPS.items()})
    assert whole.residual_s == pytest.approx(0.0, abs=1e-9)


def test_the_first_token_does_not_wait_for_decode() -> None:
    first = from_traces(client(), read_spans(trace()), engine(), whole=False, measured_s=0.03)
    assert "decode" not in parts_ms(first)
    assert parts_ms(first)["postprocessing"] == pytest.approx(4)
    assert first.total_s == pytest.approx(0.022)
    assert first.measured_s == 0.03
    assert first.residual_s == pytest.approx(0.0, abs=1e-9)


def test_without_perf_metrics_waiting_and_prefill_are_one_part() -> None:
    whole = from_traces(client(), read_spans(trace()), None, whole=True, measured_s=None)
    assert parts_ms(whole)["slot+prefill"] == pytest.approx(12)
    assert parts_ms(whole)["decode"] == pytest.approx(30)


def test_a_trace_that_hides_the_steps_says_what_it_cannot_tell_apart() -> None:
    """As of upstream's BLS, which hands its trace on to nobody."""
    hidden = [entry for entry in trace(model="tensorrt_llm_bls") if entry["id"] == 100]
    whole = from_traces(client(), read_spans(hidden), engine(), whole=True, measured_s=None)
    assert parts_ms(whole) == pytest.approx(
        {"client": 1, "http_queue+preprocessing+postprocessing": 9, "slot": 5, "prefill": 7, "decode": 30}
    )
    unknown = from_traces(client(), read_spans(hidden), None, whole=False, measured_s=None)
    assert set(parts_ms(unknown)) == {"client", "http_queue+preprocessing+slot+prefill+postprocessing"}


def serial_trace(post_ms: int) -> list[Any]:
    """As of a BLS model: it takes a millisecond a token from the core, and postprocesses one token after the other."""
    core, first = T0 + 2 * MS, T0 + 6 * MS
    starts = [first + place * post_ms * MS for place in range(TOKENS)]
    entries = [{"id": 100, "model_name": "tensorrt_llm_bls"}, _stamp(100, "HTTP_RECV_START", T0 + MS)]
    entries.append(_stamp(100, "COMPUTE_START", T0 + MS))
    entries += [_stamp(100, "INFER_RESPONSE_COMPLETE", start + post_ms * MS) for start in starts]
    entries.append(_stamp(100, "INFER_RESPONSE_COMPLETE", starts[-1] + 2 * post_ms * MS))  # the flag alone
    entries += [{"id": 101, "model_name": "tensorrt_llm", "parent_id": 100}, _stamp(101, "COMPUTE_START", core)]
    for place, start in enumerate(starts):
        entries += [{"id": 102 + place, "model_name": "postprocessing", "parent_id": 100}]
        entries += [_stamp(102 + place, "REQUEST_START", start)]
    return entries


@pytest.mark.parametrize("post_ms", [2, 50])
def test_tokens_that_wait_for_the_postprocessing_of_others_wait_in_postprocessing(post_ms: int) -> None:
    last_s = (6 + TOKENS * post_ms) / 1e3
    times = ClientTimes(float(T0), None, last_s)
    spans = read_spans(serial_trace(post_ms))
    perf = EngineTimes(0.001, 0.003, 0.003, float(T0 + 2 * MS))
    expected = {"client": 1, "http_queue": 1, "slot": 1, "prefill": 3, "decode": 3}
    whole = from_traces(times, spans, perf, whole=True, measured_s=None)
    assert parts_ms(whole) == pytest.approx({**expected, "postprocessing": TOKENS * post_ms - 3})
    elsewhere = EngineTimes(0.001, 0.003, 0.003, 17.0)  # a clock that is not the trace's
    assert parts_ms(from_traces(times, spans, elsewhere, whole=True, measured_s=None)) == pytest.approx(parts_ms(whole))
    unknown = parts_ms(from_traces(times, spans, None, whole=True, measured_s=None))
    assert unknown["decode+postprocessing"] == pytest.approx(TOKENS * post_ms)


def test_the_core_alone_has_neither_pre_nor_postprocessing() -> None:
    entries = [
        {"id": 1, "model_name": "tensorrt_llm"},
        _stamp(1, "HTTP_RECV_START", T0 + MS),
        _stamp(1, "REQUEST_START", T0 + 2 * MS),
        _stamp(1, "COMPUTE_START", T0 + 3 * MS),
        _stamp(1, "INFER_RESPONSE_COMPLETE", T0 + 10 * MS),
        _stamp(1, "INFER_RESPONSE_COMPLETE", T0 + 20 * MS),
    ]
    whole = from_traces(ClientTimes(float(T0), 0.011, 0.021), read_spans(entries), None, whole=True, measured_s=None)
    assert parts_ms(whole) == pytest.approx({"client": 2, "http_queue": 2, "slot+prefill": 7, "decode": 10})


@given(st.fixed_dictionaries({name: st.integers(2, 500) for name in LAYERS}), st.integers(-40, 400))
def test_parts_and_residual_are_always_the_whole(steps: dict[str, int], late_ms: int) -> None:
    times = client(steps)
    later = ClientTimes(times.intended_ns, (times.first_s or 0) + late_ms / 1e3, times.last_s + late_ms / 1e3)
    for known in (engine(steps), None):
        for whole in (True, False):
            fall = from_traces(later, read_spans(trace(steps)), known, whole=whole, measured_s=None)
            total_s = later.last_s if whole else later.first_s
            assert sum(part.s for part in fall.parts) + fall.residual_s == pytest.approx(total_s)
            assert fall.as_json()["residual_s"] == fall.residual_s


@pytest.mark.parametrize("slow", LAYERS)
def test_what_a_layer_takes_more_appears_in_that_layer_and_nowhere_else(slow: str) -> None:
    steps = {**STEPS, slow: STEPS[slow] + 100}
    before = from_traces(client(), read_spans(trace()), engine(), whole=True, measured_s=None)
    after = from_traces(client(steps), read_spans(trace(steps)), engine(steps), whole=True, measured_s=None)
    grown = {name: ms - parts_ms(before)[name] for name, ms in parts_ms(after).items()}
    assert grown == pytest.approx({name: 100.0 if name == slow else 0.0 for name in LAYERS}, abs=1e-6)


def test_means_over_requests_are_those_of_each() -> None:
    """Two requests of different length, in either order."""
    other = {name: 3 * ms for name, ms in STEPS.items()}
    entries = [*trace(other, number=2, at_ns=T0 + 7 * MS), *trace(number=1)]
    both = ClientTimes(T0 + 3.5 * MS, 2 * 0.022, 2 * 0.052)
    perf = EngineTimes(0.010, 0.014, 0.060)
    fall = from_traces(both, read_spans(entries), perf, whole=True, measured_s=None)
    assert parts_ms(fall) == pytest.approx({name: 2.0 * ms for name, ms in STEPS.items()})


def test_engine_times_are_differences_and_need_every_stamp() -> None:
    one = {
        "arrival_time_ns": 7 * MS,
        "first_scheduled_time_ns": 9 * MS,
        "first_token_time_ns": 12 * MS,
        "last_token_time_ns": 32 * MS,
    }
    found = engine_times([one, {name: stamp + 2 * MS for name, stamp in one.items()}])
    assert found is not None
    assert (found.slot_s, found.prefill_s, found.decode_s) == pytest.approx((0.002, 0.003, 0.020))
    assert found.token_ns(last=False) == pytest.approx(13 * MS)
    assert found.token_ns(last=True) == pytest.approx(33 * MS)
    assert engine_times([one, {**one, "first_scheduled_time_ns": 0}]) is None
    assert engine_times([]) is None


def counts(requests: int, queue_s: float, compute_s: float) -> ModelCounts:
    return ModelCounts(requests, 0, requests, requests, queue_s + compute_s, queue_s, 0.0, compute_s, 0.0)


STATISTICS = {
    "preprocessing": counts(10, 0.010, 0.030),
    "tensorrt_llm": counts(10, 0.020, 0.001),
    "postprocessing": counts(40, 0.040, 0.080),
}


def test_statistics_tell_what_they_can_and_name_what_stays_with_the_residual() -> None:
    times = ClientTimes(0.0, 0.050, 0.150)
    fall = from_statistics(times, STATISTICS, engine(), core="tensorrt_llm", whole=True, measured_s=0.2)
    assert parts_ms(fall) == pytest.approx(
        {"http_queue": 2, "preprocessing": 4, "slot": 5, "prefill": 7, "decode": 30, "postprocessing": 3}
    )
    assert fall.with_residual == ("client", "http_queue")
    assert fall.residual_s == pytest.approx(0.150 - 0.051)
    assert (fall.total_s, fall.measured_s) == (0.150, 0.2)


def test_statistics_without_the_engines_record_leave_waiting_and_prefill_unexplained() -> None:
    times = ClientTimes(0.0, 0.050, 0.150)
    whole = from_statistics(times, STATISTICS, None, core="tensorrt_llm", whole=True, measured_s=0.2)
    assert parts_ms(whole)["decode"] == pytest.approx(100)
    assert whole.with_residual == ("client", "http_queue", "slot", "prefill")
    first = from_statistics(times, {}, None, core="tensorrt_llm", whole=False, measured_s=0.2)
    assert first.parts == ()
    assert first.residual_s == first.total_s == 0.050
    assert "decode" not in first.with_residual


def test_the_core_alone_leaves_no_other_model_unexplained() -> None:
    times = ClientTimes(0.0, 0.050, 0.150)
    fall = from_statistics(times, {}, engine(), core="tensorrt_llm", alone=True, whole=True, measured_s=0.2)
    assert fall.with_residual == ("client", "http_queue")


def test_an_engine_in_process_is_told_by_the_clients_stamps() -> None:
    assert parts_ms(from_stamps(0.02, 0.1, whole=True)) == pytest.approx({"slot+prefill": 20, "decode": 80})
    assert parts_ms(from_stamps(0.02, 0.1, whole=False)) == pytest.approx({"slot+prefill": 20})
    assert parts_ms(from_stamps(None, 0.1, whole=True)) == pytest.approx({"slot+prefill+decode": 100})


def test_spans_are_a_tree_in_the_order_of_their_arrival() -> None:
    late, early = trace(number=2, at_ns=T0 + MS), trace(number=1)
    for entries, starts in ((late, T0 + MS), (early, T0)):
        entries.append(_stamp(entries[0]["id"], "REQUEST_START", starts))
    spans = read_spans([*late, *early])
    assert [span.id for span in spans] == [100, 200]
    assert [type(child) for child in spans[0].children] == [Span] * (TOKENS + 2)
    posts = spans[0].all_of("postprocessing")
    assert [post.id for post in posts] == [103, 104, 105, 106]
