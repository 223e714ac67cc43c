"""Drawing the next token: sampling whose draw depends on the request's seed and the position alone.

The draw is the Gumbel-max trick (argmax of logits / temperature + Gumbel noise) with counter-based noise (Philox), so
neither the batch around a request nor how its prompt was chunked changes what it says.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.plan.requests import Sampling

_SEED_MASK = (1 << 64) - 1


def choose(logits: NDArray[Any], sampling: Sampling, position: int) -> int:
    """Return the id of the token at ``position`` (prompt included) from its ``logits`` (vocab_size,).

    The temperature must be above 0: without one, the token with the highest logit is the answer.
    """
    if 0 < sampling.top_k < len(logits):
        threshold = np.partition(logits, -sampling.top_k)[-sampling.top_k]
        logits = np.where(logits < threshold, -np.inf, logits)
    return int(np.argmax(logits / sampling.temperature + _gumbel(sampling.seed, position, len(logits))))


def _gumbel(seed: int, position: int, size: int) -> NDArray[np.float64]:
    # The position is the high half of the counter: no stream of one position reaches the next one's.
    bits = np.random.Philox(key=seed & _SEED_MASK, counter=position << 128)
    return np.random.Generator(bits).gumbel(size=size)
