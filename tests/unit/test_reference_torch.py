"""The engine in torch computes what it computes in numpy: on the CPU here, where torch is installed."""

from dataclasses import replace

import numpy as np
import pytest

from enginebench.reference.engine import Engine
from enginebench.reference.options import ReferenceOptions
from enginebench.reference.stage import Span
from enginebench.reference.weights import random_weights

pytest.importorskip("torch")
from enginebench.reference.torch_ops import TorchOps

OPTIONS = ReferenceOptions(
    layers=2,
    hidden=64,
    heads=8,
    kv_heads=2,
    ffn=96,
    vocab_size=2048,
    max_batch_size=3,
    max_input_len=64,
    max_seq_len=96,
)
PROMPTS = [(300,), tuple(range(300, 340)), tuple(range(400, 409))]


def both(stages: int = 1) -> tuple[Engine, Engine]:
    weights, options = random_weights(OPTIONS), replace(OPTIONS, device="cuda", pp_size=stages)
    return Engine(OPTIONS, weights), Engine(options, weights, [TorchOps("float64", "cpu")] * stages)


@pytest.mark.parametrize("stages", [1, 2])
def test_prompts_chunks_and_steps_give_the_same_tokens(stages: int) -> None:
    numpy, torch = both(stages)
    spans = [Span(slot, 0, prompt) for slot, prompt in enumerate(PROMPTS)]
    for step in range(20):
        expected, found = numpy.forward(spans), torch.forward(spans)
        assert list(found.best) == list(expected.best)
        for row in range(3):
            np.testing.assert_allclose(found.row(row), expected.row(row), rtol=1e-9, atol=1e-9)
        chunk = tuple(range(500, 502 + step % 3))
        starts = [span.start + len(span.token_ids) for span in spans]
        spans = [
            Span(0, starts[0], (expected.best[0],)),
            Span(1, starts[1], chunk),
            Span(2, starts[2], (expected.best[2],)),
        ]
        if starts[1] + 8 > OPTIONS.max_seq_len:
            break


def test_a_step_of_fixed_shape_gives_the_same_tokens() -> None:
    numpy, torch = both()
    for engine in (numpy, torch):
        engine.forward([Span(slot, 0, prompt) for slot, prompt in enumerate(PROMPTS)])
    expected = numpy.forward([Span(0, 1, (700,)), Span(2, 9, (701,))])
    ids, positions = [700, 0, 701], [1, OPTIONS.max_seq_len, 9]
    as_ids = TorchOps("float64", "cpu").ids
    (stage,) = torch.stages
    best, logits = stage.decode(as_ids(ids), as_ids(positions), 64)
    assert [int(best[0]), int(best[2])] == list(expected.best)
    np.testing.assert_allclose(np.asarray(logits)[[0, 2]], [expected.row(0), expected.row(1)], rtol=1e-9, atol=1e-9)
