"""The reference tokenizer inverts itself, and text identifies what the engine emits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.reference.tokenizer import LAST_CHARACTER_ID, MIN_VOCAB_SIZE, ReferenceTokenizer

TOKENIZER = ReferenceTokenizer(vocab_size=4096)
EVERY_CHARACTER = ReferenceTokenizer(vocab_size=65_024)  # that of ChatGLM3-6B


@given(text=st.text() | st.text(alphabet=st.characters(min_codepoint=0x4DF0, max_codepoint=0x5D10)))
@pytest.mark.parametrize("vocab_size", [MIN_VOCAB_SIZE, 4096, LAST_CHARACTER_ID + 1, 65_024])
def test_decoding_inverts_encoding(vocab_size: int, text: str) -> None:
    tokenizer = ReferenceTokenizer(vocab_size)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(2 <= token_id < vocab_size for token_id in ids)


@given(ids=st.lists(st.integers(258, 4095)))
def test_text_identifies_what_the_engine_emits(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert len(text) == len(ids)
    assert list(TOKENIZER.encode(text)) == ids


@given(ids=st.lists(st.integers(-5, 5000)))
def test_any_ids_decode_to_valid_text(ids: list[int]) -> None:
    text = TOKENIZER.decode(ids)
    assert text.encode("utf-8").decode("utf-8") == text


@given(ids=st.lists(st.integers(258, 4095)), cut=st.integers(0, 20))
def test_an_answer_may_be_decoded_piece_by_piece(ids: list[int], cut: int) -> None:
    assert TOKENIZER.decode(ids[:cut]) + TOKENIZER.decode(ids[cut:]) == TOKENIZER.decode(ids)


def test_every_character_of_the_largest_vocabulary_is_printable_and_distinct() -> None:
    characters = EVERY_CHARACTER.decode(EVERY_CHARACTER.plain_ids)
    assert characters.isprintable()
    assert len(set(characters)) == len(EVERY_CHARACTER.plain_ids)


def test_characters_beyond_the_vocabulary_are_bytes() -> None:
    assert TOKENIZER.encode("一a谁") == (258, 2 + ord("a"), *(2 + byte for byte in "谁".encode()))


def test_padding_and_end_vanish_and_what_is_no_text_is_marked() -> None:
    assert TOKENIZER.decode([0, 258, 1, 2 + 0xFF, 259, 9999, 2 + ord("a")]) == "一\ufffd丁\ufffda"


def test_a_lone_surrogate_is_no_text() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b")) == "a?b"
