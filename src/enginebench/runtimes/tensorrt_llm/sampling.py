"""Sampling in TensorRT-LLM's words, whose meanings its versions share though some of the names changed.

Greedy is ``top_k`` 1 with nothing else said: a temperature of 0 is refused by some versions. No limit on top-k needs
``top_p`` 1, since 0 and 0 together mean greedy.
"""

from typing import Any

from enginebench.plan.requests import Sampling


def sampling_keywords(sampling: Sampling, known: frozenset[str]) -> dict[str, Any]:
    """Keywords for ``SamplingParams`` or ``SamplingConfig``, whichever of the names ``known`` has."""
    if sampling.temperature == 0:
        return {"top_k": 1}
    seed = "seed" if "seed" in known else "random_seed"
    return {"temperature": sampling.temperature, "top_k": sampling.top_k, "top_p": 1.0, seed: sampling.seed}
