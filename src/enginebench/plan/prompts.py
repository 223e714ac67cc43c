"""Cell → the requests of one round. Pure: the same scenario, seed and round give the same bytes on every machine.

Cells of a scenario share their prompts: request *i* of a round asks the same on every path, with and without streaming.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from enginebench.errors import ScenarioError
from enginebench.plan import draws
from enginebench.plan.arrivals import offsets_ns
from enginebench.plan.cells import ID_PATHS, Cell
from enginebench.plan.expand import requests_per_round
from enginebench.plan.load import Rate
from enginebench.plan.requests import Request, Sampling

if TYPE_CHECKING:
    from enginebench.plan.prompt_file import Given
    from enginebench.plan.prompt_keys import Length, Prompts
    from enginebench.plan.scenario import SamplingKeys, Scenario

_FITTING_ATTEMPTS = 16


class Prompt(NamedTuple):
    """Canonical text, the ids that the build's tokenizer makes of it, and what its line says beside that.

    ``unfit``: why it cannot be asked on the cell's path.
    """

    text: str
    ids: tuple[int, ...]
    output_tokens: int | None = None
    source: str = ""
    unfit: str = ""


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

    ``seed`` decides what is random. Lengths of synthetic prompts and of answers are those of every round; tokens,
    order and arrival times are new in each. An answer whose length the prompt's line says goes with its prompt.
    Ids that the tokenizer or the path cannot carry make a request that is ``unfit``. Raises ScenarioError for other
    prompts that the tokenizer cannot carry.
    """
    offsets = _offsets(scenario, cell, round_index, seed)
    source = _Source(scenario.name, tokenizer, round_index, seed, takes_ids=cell.path in ID_PATHS)
    pool = tuple(islice(source.prompts(scenario.prompts, len(offsets)), len(offsets)))
    prompts = [pool[index % len(pool)] for index in range(len(offsets))]
    if scenario.order == "shuffled":
        prompts = list(draws.shuffled(draws.generator(scenario.name, seed, "order", round_index), prompts))
    return tuple(
        Request(
            index,
            prompt.text,
            prompt.ids,
            _output_tokens(scenario, cell, prompt, index, seed),
            cell.streaming,
            _sampling(scenario.sampling, index),
            offset_ns,
            round_index,
            prompt.source,
            prompt.unfit,
        )
        for index, (prompt, offset_ns) in enumerate(zip(prompts, offsets, strict=True))
    )


def _offsets(scenario: "Scenario", cell: Cell, round_index: int, seed: int) -> tuple[int, ...]:
    """When each request leaves, where the load says so; the same on every path."""
    if not isinstance(cell.load, Rate):
        return (0,) * requests_per_round(scenario, cell.load)
    return offsets_ns(cell.load, draws.generator(scenario.name, seed, "arrivals", cell.load.label, round_index))


def _output_tokens(scenario: "Scenario", cell: Cell, prompt: Prompt, index: int, seed: int) -> int:
    if scenario.own_lengths and prompt.output_tokens is not None:
        return prompt.output_tokens
    if not cell.output_stdev:
        return cell.output_tokens
    source = draws.generator(cell.scenario, seed, "output", cell.output_tokens, index)
    return _length(cell.output_tokens, cell.output_stdev, source)


def _sampling(keys: "SamplingKeys", index: int) -> Sampling:
    return Sampling(temperature=float(keys.temperature), top_k=keys.top_k, seed=keys.seed + index)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the prompts of one round come from."""

    scenario: str
    tokenizer: PromptTokenizer
    round_index: int
    seed: int
    takes_ids: bool  # prompts go to the engine as ids

    def prompts(self, sources: "Sequence[Prompts]", requests: int) -> Iterator[Prompt]:
        """All prompts in the order of the file, made one by one as they are taken."""
        for number, source in enumerate(sources):
            where = f"scenario {self.scenario}, prompts[{number}]"
            for index, line in enumerate(source.lines):
                at = f"{where}, {line.source}" if line.source else where
                made = self._made(line.prompt, at, number, index)
                yield made._replace(output_tokens=line.output_tokens, source=line.source)
            if source.synthetic:
                for index in range(source.synthetic.count or requests):
                    length = _synthetic_length(source.synthetic.input_tokens, self._random(number, index, "length"))
                    yield self._made(length, where, number, index)

    def _random(self, *parts: object) -> random.Random:
        return draws.generator(self.scenario, self.seed, *parts)

    def _made(self, prompt: "Given", where: str, *place: int) -> Prompt:
        if isinstance(prompt, str):
            return self._from_text(prompt, where)
        if isinstance(prompt, int):
            return self._drawn(prompt, self._random(*place, self.round_index), where)
        return self._from_ids(prompt)

    def _from_text(self, text: str, where: str) -> Prompt:
        try:
            ids = tuple(self.tokenizer.encode(text))
        except ValueError as error:
            raise ScenarioError(f"{where}: {text!r:.60} cannot be encoded: {error}") from error
        if not ids:
            raise ScenarioError(f"{where}: the build's tokenizer makes no tokens of {text!r}; write another prompt")
        return Prompt(text, ids)

    def _from_ids(self, ids: tuple[int, ...]) -> Prompt:
        """Ids that their text gives back are the same prompt on every path; others go where ids are taken."""
        try:
            text = self.tokenizer.decode(ids)
            again = tuple(self.tokenizer.encode(text))
        except (LookupError, ValueError, OverflowError) as error:
            return Prompt("", ids, unfit=f"the build's tokenizer does not know these ids ({error})")
        if len(again) == len(ids):
            return Prompt(text, again)
        if self.takes_ids:
            return Prompt(text, ids)
        return Prompt(
            text,
            ids,
            unfit=f"{len(ids)} ids become {len(again)} when their text is encoded again, and this path takes text: "
            f"measure {' and '.join(ID_PATHS)} alone, or use synthetic prompts",
        )

    def _drawn(self, length: int, generator: random.Random, where: str) -> Prompt:
        """Random text of exactly ``length`` tokens; neighbours that a tokenizer merges are cut or filled up again."""
        ids = _draw(self.tokenizer.plain_ids, length, generator, where)
        for _ in range(_FITTING_ATTEMPTS):
            text = self.tokenizer.decode(ids)
            again = tuple(self.tokenizer.encode(text))
            if len(again) == length:
                return Prompt(text, again)
            missing = max(0, length - len(again))
            ids = again[:length] + _draw(self.tokenizer.plain_ids, missing, generator, where)
        raise ScenarioError(
            f"{where}: no random text of {length} tokens survives the build's tokenizer; use text prompts"
        )


def _draw(plain_ids: Sequence[int], count: int, generator: random.Random, where: str) -> tuple[int, ...]:
    if not plain_ids:
        raise ScenarioError(f"{where}: the build's tokenizer has no printable tokens to draw from; use text prompts")
    return tuple(plain_ids[int(generator.random() * len(plain_ids))] for _ in range(count))


def _synthetic_length(length: "Length", generator: random.Random) -> int:
    return _length(length.mean, length.stdev, generator)


def _length(mean: int, stdev: float, generator: random.Random) -> int:
    return max(1, round(mean + stdev * draws.normal(generator)))
