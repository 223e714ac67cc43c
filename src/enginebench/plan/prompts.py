"""Cell → the requests of one round. Pure: the same scenario, seed and round give the same bytes on every machine.

Cells of a scenario share their prompts: request *i* of a round asks the same on every path, with and without streaming.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeAlias

from enginebench.errors import ScenarioError
from enginebench.plan.cells import Cell
from enginebench.plan.expand import requests_per_round
from enginebench.plan.requests import Request, Sampling

if TYPE_CHECKING:
    from enginebench.plan.scenario import Length, Prompts, SamplingKeys, Scenario

Prompt: TypeAlias = "tuple[str, tuple[int, ...]]"
"""Canonical text, and the ids that the build's tokenizer makes of it."""

_FITTING_ATTEMPTS = 16


class PromptTokenizer(Protocol):
    """What prompts need of a build's tokenizer."""

    @property
    def plain_ids(self) -> Sequence[int]:
        """Ids that decode to printable text: what synthetic prompts are drawn from."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids."""


def round_requests(
    scenario: "Scenario", cell: Cell, tokenizer: PromptTokenizer, round_index: int, seed: int
) -> tuple[Request, ...]:
    """The requests of one round, in the order of release; prompts are repeated in turn where there are too few.

    ``seed`` decides the synthetic prompts: their lengths are those of every round, their tokens are new in each.
    Raises ScenarioError for prompts that the tokenizer cannot carry.
    """
    count = requests_per_round(scenario, cell.load)
    source = _Source(scenario.name, tokenizer, round_index, seed)
    pool = tuple(islice(source.prompts(scenario.prompts, count), count))
    return tuple(
        Request(
            index, *pool[index % len(pool)], cell.output_tokens, cell.streaming, _sampling(scenario.sampling, index)
        )
        for index in range(count)
    )


def _sampling(keys: "SamplingKeys", index: int) -> Sampling:
    return Sampling(temperature=float(keys.temperature), top_k=keys.top_k, seed=keys.seed + index)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the prompts of one round come from."""

    scenario: str
    tokenizer: PromptTokenizer
    round_index: int
    seed: int

    def prompts(self, sources: "Sequence[Prompts]", requests: int) -> Iterator[Prompt]:
        """All prompts in the order of the file, made one by one as they are taken."""
        for number, source in enumerate(sources):
            where = f"scenario {self.scenario}, prompts[{number}]"
            for text in source.texts:
                yield self._from_text(text, where)
            for index, ids in enumerate(source.token_ids or ()):
                yield self._from_ids(ids, f"{where}.token_ids[{index}]")
            if source.synthetic:
                for index in range(source.synthetic.count or requests):
                    length = _length(source.synthetic.input_tokens, self._random(number, index, "length"))
                    yield self._drawn(length, self._random(number, index, self.round_index), where)

    def _random(self, *parts: object) -> random.Random:
        """A generator of its own for each use, so that no prompt depends on how many were drawn before it."""
        return random.Random("/".join(map(str, (self.scenario, self.seed, *parts))))

    def _from_text(self, text: str, where: str) -> Prompt:
        ids = tuple(self.tokenizer.encode(text))
        if not ids:
            raise ScenarioError(f"{where}: the build's tokenizer makes no tokens of {text!r}; write another prompt")
        return text, ids

    def _from_ids(self, ids: Sequence[int], where: str) -> Prompt:
        try:
            text = self.tokenizer.decode(ids)
            again = tuple(self.tokenizer.encode(text))
        except (LookupError, ValueError, OverflowError) as error:
            raise ScenarioError(
                f"{where}: the build's tokenizer does not know these ids ({error}); take others"
            ) from error
        if len(again) != len(ids):
            raise ScenarioError(
                f"{where}: {len(ids)} ids become {len(again)} when their text is encoded again, so that text paths "
                "would measure another prompt; choose ids that survive it, or use synthetic"
            )
        return text, again

    def _drawn(self, length: int, generator: random.Random, where: str) -> Prompt:
        """Random text of exactly ``length`` tokens; neighbours that a tokenizer merges are cut or filled up again."""
        ids = _draw(self.tokenizer.plain_ids, length, generator, where)
        for _ in range(_FITTING_ATTEMPTS):
            text = self.tokenizer.decode(ids)
            again = tuple(self.tokenizer.encode(text))
            if len(again) == length:
                return text, again
            missing = max(0, length - len(again))
            ids = again[:length] + _draw(self.tokenizer.plain_ids, missing, generator, where)
        raise ScenarioError(
            f"{where}: no random text of {length} tokens survives the build's tokenizer; use text prompts"
        )


def _draw(plain_ids: Sequence[int], count: int, generator: random.Random, where: str) -> tuple[int, ...]:
    if not plain_ids:
        raise ScenarioError(f"{where}: the build's tokenizer has no printable tokens to draw from; use text prompts")
    return tuple(plain_ids[int(generator.random() * len(plain_ids))] for _ in range(count))


def _length(length: "Length", generator: random.Random) -> int:
    """Box–Muller from ``random()`` alone: the one method whose numbers Python promises to keep."""
    radius = math.sqrt(-2 * math.log(1 - generator.random()))
    normal = radius * math.cos(2 * math.pi * generator.random())
    return max(1, round(length.mean + length.stdev * normal))
