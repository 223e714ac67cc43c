"""Requests: one prompt each, with what is asked of the engine. Standard library only: workers import this."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Index = TypeVar("_Index", int, "NDArray[np.int32]")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 is greedy; ``seed`` is used otherwise."""

    temperature: float = 0.0
    top_k: int = 0  # 0: no limit
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, as text and as the token ids that the build's tokenizer makes of it."""

    index: int  # unique within a round, from 0, in the order of release
    prompt_text: str
    prompt_ids: tuple[int, ...]
    output_tokens: int  # exact: end-of-sequence is ignored
    streaming: bool
    sampling: Sampling
    offset_ns: int = 0  # open loops: when it is to leave, after the start of the round
    round_index: int = 0
    source: str = ""  # where the prompt is written, e.g. ``questions.jsonl:3``; empty where that needs no words
    unfit: str = ""  # why it cannot be asked on its path: its cell is not run


def server_of(index: _Index, round_index: int, servers: int) -> _Index:
    """Which of several ``servers`` takes a request, or an array of indices: the next one for each, in turn.

    A round begins one further than the one before, so that rounds of a single request go round, too.
    """
    return (index + round_index) % servers
