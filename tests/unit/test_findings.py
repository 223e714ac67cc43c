"""What is said about requests that went wrong."""

from enginebench.measure.findings import failure, findings
from tests.support.rounds import Row, round_of

GOOD = Row([(10, 1), (20, 1)])


def test_nothing_is_said_when_all_is_well() -> None:
    assert findings([round_of(GOOD), round_of(GOOD, warmup=True)]) == []
    assert failure(round_of(GOOD)) is None


def test_short_and_long_answers() -> None:
    record = round_of(
        Row([(1, 5)], asked=8, outcome="short"), Row([(1, 6)], asked=8, outcome="short"), GOOD, round_index=1
    )
    assert findings([record]) == ["In round 2, 2 of 3 requests gave 5 to 6 tokens instead of 8."]
    long = round_of(Row([(1, 9)], asked=8, outcome="long"))
    assert findings([long]) == ["In round 1, 1 of 1 request gave 9 tokens instead of 8."]


def test_a_wrong_input_length_names_both_lengths() -> None:
    record = round_of(Row([(1, 1)], prompt=10, reported=12, outcome="wrong_input"))
    (sentence,) = findings([record])
    assert "with 12 input tokens instead of 10" in sentence


def test_stalls_and_errors_say_why() -> None:
    record = round_of(
        Row([], asked=2, outcome="stall", error="nothing arrived for 30 s"),
        Row([], asked=2, outcome="error", error="CUDA out of memory."),
        warmup=True,
    )
    assert findings([record]) == [
        "In a warm-up round, 1 of 2 requests stalled (nothing arrived for 30 s).",
        "In a warm-up round, 1 of 2 requests failed (CUDA out of memory).",
    ]
    assert failure(record) == findings([record])[0]


def test_answers_whose_length_nobody_tells_are_told_of_once() -> None:
    untold, told = Row([(1, -1), (2, -1)], asked=8), Row([(1, -1)], asked=8, told=8)
    sentence = "Nobody told how many tokens 2 of 4 answers had: that they are as long as asked is not verified."
    assert findings([round_of(untold, told), round_of(untold, told)]) == [sentence]


def test_a_clock_step_is_told_and_no_failure_of_a_request() -> None:
    record = round_of(GOOD, clock_stepped=True, stamp_kind="kernel")
    assert "clock was set" in findings([record])[0]
    assert failure(record) is None
