"""Requests of a round: the same on every path, pure functions of scenario, seed and round."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.errors import ScenarioError
from enginebench.plan.cells import ID_PATHS, PATHS, Cell
from enginebench.plan.load import Batch
from enginebench.plan.prompts import round_requests
from enginebench.plan.requests import Request
from enginebench.plan.scenario import ORDERS, Scenario


@dataclass(frozen=True)
class Characters:
    """One id a character, from U+4E00 on."""

    plain_ids: Sequence[int] = range(1000)

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(ord(character) - 0x4E00 for character in text)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(0x4E00 + each) for each in ids)


class Merging(Characters):
    """Encodes two equal characters that stand together as one, as subword tokenizers do."""

    def encode(self, text: str) -> tuple[int, ...]:
        ids = super().encode(text)
        return tuple(each for index, each in enumerate(ids) if index == 0 or each != ids[index - 1])


class Latin(Characters):
    """Knows no Chinese."""

    def encode(self, text: str) -> tuple[int, ...]:
        return tuple(text.encode("ascii"))


def make(prompts: object, **keys: object) -> Scenario:
    return Scenario.model_validate({"prompts": prompts, "output_tokens": [8], **keys}, context={"name": "example"})


def requests(scenario: Scenario, size: int = 1, round_index: int = 0, seed: int = 0) -> tuple[Request, ...]:
    return round_requests(scenario, Cell("example", "direct", True, 8, Batch(size)), Characters(), round_index, seed)


def synthetic(**keys: object) -> list[object]:
    return [{"synthetic": {"input_tokens": {"mean": 50, "stdev": 10}, **keys}}]


@given(seed=st.integers(), round_index=st.integers(0, 100), size=st.integers(1, 8))
def test_same_seed_same_requests(seed: int, round_index: int, size: int) -> None:
    scenario = make(["你好", *synthetic(count=3)])
    assert requests(scenario, size, round_index, seed) == requests(scenario, size, round_index, seed)


def test_the_bytes_never_change() -> None:
    """Pinned: a change of these numbers makes stored runs incomparable."""
    made = requests(make(synthetic(count=2)), size=2, round_index=3, seed=5)
    assert [(len(each.prompt_ids), each.prompt_ids[:4]) for each in made] == [
        (42, (929, 115, 4, 98)),
        (49, (211, 162, 923, 792)),
    ]


@given(seed=st.integers(0, 2**32))
def test_rounds_keep_lengths_and_renew_tokens(seed: int) -> None:
    scenario = make(synthetic(), requests=4)
    first, second = requests(scenario, round_index=0, seed=seed), requests(scenario, round_index=1, seed=seed)
    assert [len(each.prompt_ids) for each in first] == [len(each.prompt_ids) for each in second]
    assert {each.prompt_text for each in first}.isdisjoint(each.prompt_text for each in second)


@given(size=st.integers(1, 8), streaming=st.booleans(), path=st.sampled_from(["direct", "core", "ensemble"]))
def test_cells_of_a_scenario_share_their_prompts(size: int, streaming: bool, path: str) -> None:
    scenario = make(["你好", *synthetic(count=3)], requests=4)
    cell = Cell("example", path, streaming, 99, Batch(size))
    made = round_requests(scenario, cell, Characters(), 0, 1)
    alone = requests(scenario, seed=1)
    assert [each.prompt_ids for each in made[:4]] == [each.prompt_ids for each in alone]
    assert {(each.output_tokens, each.streaming) for each in made} == {(99, streaming)}


@given(
    texts=st.lists(
        st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x5000), min_size=1), min_size=1, max_size=9
    ),
    size=st.integers(1, 5),
)
def test_text_prompts_come_in_turn(texts: list[str], size: int) -> None:
    made = requests(make(texts), size)
    assert [each.index for each in made] == list(range(len(made)))
    assert [each.prompt_text for each in made] == [texts[index % len(texts)] for index in range(len(made))]
    assert all(each.prompt_ids == Characters().encode(each.prompt_text) for each in made)


def test_synthetic_prompts_without_a_count_are_all_different() -> None:
    assert len({each.prompt_text for each in requests(make(synthetic(), requests=20), size=4)}) == 20


def test_synthetic_prompts_with_a_count_are_repeated() -> None:
    made = requests(make(synthetic(count=2)), size=8)
    assert len(made) == 8
    assert len({each.prompt_text for each in made}) == 2


@given(mean=st.integers(1, 300))
def test_lengths_without_deviation_are_exact(mean: int) -> None:
    made = requests(make([{"synthetic": {"input_tokens": mean}}]), size=2)
    assert [len(each.prompt_ids) for each in made] == [mean, mean]


def test_lengths_are_normal_and_never_below_one() -> None:
    lengths = [len(each.prompt_ids) for each in requests(make(synthetic(count=400)))]
    assert abs(sum(lengths) / 400 - 50) < 2
    assert 80 < sum(abs(length - 50) > 10 for length in lengths) < 175  # 32 % of 400 is 127
    wide = make([{"synthetic": {"input_tokens": {"mean": 2, "stdev": 1}, "count": 100}}])
    assert min(len(each.prompt_ids) for each in requests(wide)) == 1


def test_only_the_prompts_of_the_round_are_read() -> None:
    assert [each.prompt_text for each in requests(make(["你", "好", "吗"], requests=2))] == ["你", "好"]


def of_file(directory: Path, lines: Sequence[object], **keys: object) -> Scenario:
    rows = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "asked.jsonl").write_text(rows, encoding="utf-8")
    given = {"prompts": {"file": "asked.jsonl"}, "output_tokens": 8, **keys}
    return Scenario.model_validate(given, context={"name": "example", "directory": directory})


def test_prompt_files_are_read(tmp_path: Path) -> None:
    lines = ["你好", {"prompt": "谁", "output_tokens": 9}, {"text": "吗"}, {"text_input": "你"}]
    made = requests(of_file(tmp_path, lines))
    assert [each.prompt_text for each in made] == ["你好", "谁", "吗", "你"]
    assert {each.output_tokens for each in made} == {8}
    assert [each.source for each in made] == [f"asked.jsonl:{number}" for number in (1, 2, 3, 4)]


@given(
    lines=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 4000)), min_size=1, max_size=9),
    keys=st.fixed_dictionaries(
        {"batch_sizes": st.integers(1, 20), "order": st.sampled_from(ORDERS)}, optional={"requests": st.integers(1, 30)}
    ),
    round_index=st.integers(-1, 9),
    seed=st.integers(0, 2**32),
    path=st.sampled_from(PATHS),
)
def test_an_answer_is_as_long_as_the_line_of_its_prompt_says(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[tuple[int, int]],
    keys: Mapping[str, object],
    round_index: int,
    seed: int,
    path: str,
) -> None:
    written = [{"input_length": prompt, "output_length": answer, "timestamp": 0} for prompt, answer in lines]
    scenario = of_file(tmp_path_factory.mktemp("lines"), written, output_tokens="from_file", **keys)
    (cell,) = scenario.cells_on((path,))
    made = round_requests(scenario, cell, Characters(), round_index, seed)
    assert made == round_requests(scenario, cell, Characters(), round_index, seed)
    for each in made:
        number = int(each.source.removeprefix("asked.jsonl:"))
        assert (len(each.prompt_ids), each.output_tokens) == lines[number - 1]
    in_turn = [f"asked.jsonl:{index % len(lines) + 1}" for index in range(len(made))]
    assert Counter(each.source for each in made) == Counter(in_turn)
    if keys["order"] == "file":
        assert [each.source for each in made] == in_turn


def test_ids_that_a_text_does_not_give_back_go_where_ids_are_taken(tmp_path: Path) -> None:
    for name in ("input_ids", "logits"):
        scenario = of_file(tmp_path, [{"task_id": 0, name: [5, 5], "output_tokens": 3}], output_tokens="from_file")
        for path in ID_PATHS:
            (cell,) = scenario.cells_on((path,))
            (made,) = round_requests(scenario, cell, Merging(), 0, 0)
            assert (made.prompt_ids, made.output_tokens, made.unfit) == ((5, 5), 3, "")
        (cell,) = scenario.cells_on(("ensemble",))
        (made,) = round_requests(scenario, cell, Merging(), 0, 0)
        assert (made.prompt_ids, made.source) == ((5, 5), "asked.jsonl:1")
        assert made.unfit.startswith("2 ids become 1 when their text is encoded again, and this path takes text: ")


def test_ids_that_no_text_stands_for_fit_no_path() -> None:
    scenario = make([{"token_ids": [[1], [2**31]]}])
    for path in ("direct", "ensemble"):
        fits, made = round_requests(scenario, Cell("example", path, True, 8, Batch(2)), Characters(), 0, 0)
        assert (fits.unfit, made.source) == ("", "token_ids[1]")
        assert made.unfit.startswith("the build's tokenizer does not know these ids (")


def test_token_ids_become_text_and_stay_ids() -> None:
    made = requests(make([{"token_ids": [[1, 2, 3], [4]]}]))
    assert [each.prompt_ids for each in made] == [(1, 2, 3), (4,)]
    assert made[0].prompt_text == Characters().decode((1, 2, 3))


def test_sampling_is_passed_on_with_a_seed_for_each_request() -> None:
    made = requests(make(["你"], sampling={"temperature": 1, "top_k": 5, "seed": 7}), size=3)
    assert [(each.sampling.temperature, each.sampling.top_k, each.sampling.seed) for each in made] == [
        (1.0, 5, 7),
        (1.0, 5, 8),
        (1.0, 5, 9),
    ]


def test_synthetic_text_is_fitted_to_a_tokenizer_that_merges() -> None:
    tokenizer = Merging(plain_ids=range(4))
    scenario = make([{"synthetic": {"input_tokens": 40, "count": 20}}])
    made = round_requests(scenario, Cell("example", "direct", True, 8, Batch(1)), tokenizer, 0, 0)
    assert {len(each.prompt_ids) for each in made} == {40}
    assert all(tokenizer.encode(each.prompt_text) == each.prompt_ids for each in made)


@pytest.mark.parametrize(
    ("prompts", "tokenizer", "said"),
    [
        (["你是谁？"], Latin(), r"prompts\[0\]: '你是谁？' cannot be encoded: 'ascii'"),
        (synthetic(), Characters(plain_ids=()), "no printable tokens to draw from"),
        (synthetic(), Merging(plain_ids=range(1)), "no random text of .* tokens survives"),
    ],
)
def test_prompts_that_a_tokenizer_cannot_carry(prompts: object, tokenizer: Characters, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        round_requests(make(prompts), Cell("example", "ensemble", True, 8, Batch(1)), tokenizer, 0, 0)
