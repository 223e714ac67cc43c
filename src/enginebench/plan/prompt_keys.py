"""The keys of a scenario file that say what is asked: prompts and lengths.

What they become is in ``prompts.py``.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from enginebench.errors import ScenarioError
from enginebench.plan.keys import Bare, Count, Keys, problem
from enginebench.plan.prompt_file import Line, read_prompts

Text = Annotated[str, Field(min_length=1)]
TokenIds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]


class Length(Keys):
    """How many tokens a prompt or an answer has: a normal distribution, rounded, at least 1."""

    mean: Count
    stdev: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _stay_near_the_mean(self) -> "Length":
        if self.stdev > self.mean / 2:
            raise problem(f"{self.stdev:g} is more than half of the mean {self.mean}; many would have 1 token", "stdev")
        return self

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> Any:
        return handler(self) if self.stdev else self.mean


def mean_and_stdev(lengths: Sequence[int]) -> tuple[int, float]:
    """Of ``lengths``, in whole tokens for ids; a standard deviation of 0 says that they are all alike."""
    stdev = max(1, round(pstdev(lengths))) if len({*lengths}) > 1 else 0
    return round(fmean(lengths)), float(stdev)


class Synthetic(Keys):
    """Prompts of random printable tokens."""

    input_tokens: Annotated[Length, Bare("mean", "integer"), Field(description="A number, or mean and stdev.")]
    count: Count | None = Field(
        default=None, description="Different prompts a round; without it each request has its own."
    )


class Prompts(Keys):
    """One source of prompts: exactly one of its keys is set."""

    text: Text | None = Field(default=None, description="One prompt; a bare text in the list means the same.")
    file: Text | None = Field(
        default=None,
        description="A JSONL file beside the scenario, a prompt a line: a text, or {prompt: text} …",
    )
    synthetic: Synthetic | None = Field(default=None, description="Random prompts of a given length.")
    token_ids: Annotated[tuple[TokenIds, ...], Field(min_length=1, strict=False)] | None = Field(
        default=None, description="Prompts as lists of token ids."
    )
    _lines: tuple[Line, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _one_source(self, info: ValidationInfo) -> "Prompts":
        if len(self.model_dump(exclude_none=True)) != 1:
            raise problem("must hold exactly one of text, file, synthetic, token_ids")
        self._lines = self._read(Path((info.context or {}).get("directory", ".")))
        return self

    def _read(self, directory: Path) -> tuple[Line, ...]:
        if self.text is not None:
            return (Line(self.text),)
        if self.token_ids is not None:
            return tuple(Line(ids, source=f"token_ids[{index}]") for index, ids in enumerate(self.token_ids))
        if self.file is None:
            return ()
        try:
            return read_prompts(directory / self.file)
        except ScenarioError as error:
            raise problem(f"cannot be used: {error}", "file") from None

    @property
    def lines(self) -> tuple[Line, ...]:
        """The prompts, but for synthetic ones."""
        return self._lines

    @property
    def count(self) -> int:
        """How many prompts this is; 1 for synthetic prompts without a count."""
        return (self.synthetic.count or 1) if self.synthetic else len(self._lines)
