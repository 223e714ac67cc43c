"""The decoder computes what a plain, cacheless transcription of the formulas computes."""

from dataclasses import replace
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
from numpy.typing import NDArray

from enginebench.reference.engine import Engine
from enginebench.reference.ops import ArrayOps
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.stage import Span
from enginebench.reference.tokenizer import LAST_CHARACTER_ID
from enginebench.reference.weights import random_weights

OPTIONS = ReferenceOptions(
    layers=2,
    hidden=24,
    heads=4,
    kv_heads=2,
    ffn=40,
    vocab_size=300,
    max_batch_size=4,
    max_input_len=64,
    max_seq_len=128,
)
WEIGHTS = random_weights(OPTIONS)
PROMPTS = [tuple(range(260, 271)), (5, 80, 299), (258,), tuple(range(30, 60))]


@pytest.fixture(params=[1, 2], ids=["whole", "pipeline"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == 1:
        return Engine(OPTIONS, WEIGHTS)
    stages = replace(OPTIONS, device="cuda", pp_size=2)  # both on the host here
    return Engine(stages, WEIGHTS, [ArrayOps(array_api_compat.numpy, "float64")] * 2)


def oracle(token_ids: tuple[int, ...]) -> NDArray[Any]:
    """Logits after the last token, head by head and query by query, with complex numbers for the rotary embedding."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in WEIGHTS.items()}
    x = tensors["embedding"][list(token_ids)]
    for layer in range(OPTIONS.layers):
        names = {name.split(".")[-1]: tensor for name, tensor in tensors.items() if name.startswith(f"layers.{layer}.")}
        x = x + _attention(_norm(x), names["qkv"]) @ names["out"]
        gate, up = np.split(_norm(x) @ names["gate_up"], 2, axis=1)
        x = x + (gate * (1 / (1 + np.exp(-gate))) * up) @ names["down"]
    logits = _norm(x)[-1] @ tensors["head"]
    logits[:258] = -np.inf
    return np.asarray(logits)


def _norm(x: NDArray[Any]) -> NDArray[Any]:
    return np.stack([row / np.sqrt(np.mean(row**2) + 1e-6) for row in x])


def _attention(x: NDArray[Any], qkv: NDArray[Any]) -> NDArray[Any]:
    dim, group = OPTIONS.hidden // OPTIONS.heads, OPTIONS.heads // OPTIONS.kv_heads
    vectors = (x @ qkv).reshape(len(x), -1, dim)
    out = np.zeros((len(x), OPTIONS.heads, dim))
    for i in range(len(x)):
        for head in range(OPTIONS.heads):
            key_head = OPTIONS.heads + head // group
            query = _rotate(vectors[i, head], i)
            scores = np.array([query @ _rotate(vectors[j, key_head], j) for j in range(i + 1)]) / np.sqrt(dim)
            weights = np.exp(scores) / np.exp(scores).sum()
            out[i, head] = weights @ vectors[: i + 1, key_head + OPTIONS.kv_heads]
    return out.reshape(len(x), -1)


def _rotate(vector: NDArray[Any], position: int) -> NDArray[Any]:
    half = len(vector) // 2
    turns = np.exp(1j * position * 10_000.0 ** -(np.arange(half) / half))
    turned = (vector[:half] + 1j * vector[half:]) * turns
    return np.concatenate([turned.real, turned.imag])


def test_whole_prompts_together_match_the_oracle(engine: Engine) -> None:
    scores = engine.forward([Span(slot, 0, prompt) for slot, prompt in enumerate(PROMPTS)])
    for index, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(scores.row(index), oracle(prompt), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_chunks_match_the_oracle(engine: Engine, chunk: int) -> None:
    prompt = PROMPTS[3]
    for begin in range(0, len(prompt), chunk):
        scores = engine.forward([Span(2, begin, prompt[begin : begin + chunk])])
    np.testing.assert_allclose(scores.row(0), oracle(prompt), rtol=1e-10, atol=1e-10)


def test_a_prompt_chunk_and_a_decode_share_a_step(engine: Engine) -> None:
    engine.forward([Span(0, 0, PROMPTS[0]), Span(1, 0, PROMPTS[3][:9])])
    scores = engine.forward([Span(0, len(PROMPTS[0]), (290,)), Span(1, 9, PROMPTS[3][9:])])
    np.testing.assert_allclose(scores.row(0), oracle((*PROMPTS[0], 290)), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(scores.row(1), oracle(PROMPTS[3]), rtol=1e-10, atol=1e-10)


def test_a_used_slot_is_as_good_as_new(engine: Engine) -> None:
    engine.forward([Span(0, 0, PROMPTS[3])])
    np.testing.assert_allclose(
        engine.forward([Span(0, 0, PROMPTS[1])]).row(0), oracle(PROMPTS[1]), rtol=1e-10, atol=1e-10
    )


def test_only_characters_can_be_said(engine: Engine) -> None:
    logits = engine.forward([Span(0, 0, PROMPTS[0])]).row(0)
    assert np.all(np.isneginf(logits[:258]))
    assert np.all(np.isfinite(logits[258:]))


def test_float32_computes_in_float32() -> None:
    options = ReferenceOptions(layers=1, hidden=16, heads=2, ffn=16, vocab_size=300, dtype="float32")
    logits = Engine(options, random_weights(options)).forward([Span(0, 0, (258, 259))]).row(0)
    assert logits.dtype == np.float32


def test_a_step_of_fixed_shape_matches_the_oracle_and_leaves_idle_slots_alone(engine: Engine) -> None:
    engine.forward([Span(slot, 0, PROMPTS[slot]) for slot in (0, 1, 3)])  # slot 2 is free, slot 1 waits in its prompt
    ids, positions = np.array([290, 0, 0, 291]), np.array([len(PROMPTS[0]), 128, 128, len(PROMPTS[3])])
    for context in (64, 128):  # reading further than anything reaches changes nothing
        given: Any = ids
        for stage in engine.stages:
            given = stage.decode(given, positions, context)
        best, logits = given
        for slot, said in ((0, 290), (3, 291)):
            expected = oracle((*PROMPTS[slot], said))
            np.testing.assert_allclose(logits[slot], expected, rtol=1e-10, atol=1e-10)
            assert best[slot] == np.argmax(expected)
    chunk = engine.forward([Span(1, len(PROMPTS[1]), (270, 271))])
    np.testing.assert_allclose(chunk.row(0), oracle((*PROMPTS[1], 270, 271)), rtol=1e-10, atol=1e-10)


def test_ids_beyond_the_characters_are_never_said() -> None:
    options = ReferenceOptions(layers=1, hidden=16, heads=2, ffn=16, vocab_size=65_024)
    logits = Engine(options, random_weights(options)).forward([Span(0, 0, (258, 65_023))]).row(0)
    said = np.flatnonzero(np.isfinite(logits))
    assert (said[0], said[-1], len(said)) == (258, LAST_CHARACTER_ID, LAST_CHARACTER_ID - 257)


def test_facts_say_what_is_held(engine: Engine) -> None:
    facts = engine.facts()
    assert facts["weight_bytes"] == 8 * sum(tensor.size for tensor in WEIGHTS.values())
    assert facts["kv_bytes_per_token"] == 2 * 2 * 2 * 6 * 8  # keys and values, layers, heads, head size, float64
    assert facts["kv_pool_tokens"] == 4 * 128
    assert facts["kv_pool_bytes"] == facts["kv_bytes_per_token"] * (4 * 128 + 4)  # and one position more a slot
