"""The kinds of values that a record is made of, and the sentence for one that is another.

Keys that no part names may hold anything.
"""

import json
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, from_json

from enginebench.errors import RunError
from enginebench.plan.messages import did_you_mean


def _name(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise PydanticCustomError("name", "letters, digits, '.', '_' and '-'")
    return text


def _measured(value: float) -> float:
    """So that ratios of what is measured stay within what a float holds."""
    if 0 < abs(value) < 1e-30:
        raise PydanticCustomError("measured", "0, or at least 1e-30 from it")
    return value


def _moment(text: str) -> str:
    try:
        known = datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise PydanticCustomError("moment", "a time such as 2026-11-22T21:14:47Z")
    return text


def one_of(names: Collection[str]) -> AfterValidator:
    """A text must be one of ``names``."""

    def known(text: str) -> str:
        if text not in names:
            raise PydanticCustomError("name", "{hint}", {"hint": f"a known name ({did_you_mean(text, names)})"})
        return text

    return AfterValidator(known)


Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = Annotated[float, Field(gt=-1e30, lt=1e30)]
Positive = Annotated[float, Field(gt=1e-30, lt=1e30)]
Measured = Annotated[Number, AfterValidator(_measured)]
Share = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, AfterValidator(_name)]
Moment = Annotated[str, AfterValidator(_moment)]
OPTIONAL: Any = Field(default=None)
"""Of a key that may be missing; whether it may be null, its type says."""


class Part(BaseModel):
    """An object of the file."""

    model_config = ConfigDict(strict=True, extra="ignore")


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises OSError, or ValueError for what is no JSON, or no text that can be written."""
    return from_json(file.read_bytes(), allow_inf_nan=False)


def check(data: Any, kind: type[Part], file: Path) -> None:
    """Raise RunError for ``data``, the content of ``file``, unless it is a ``kind``."""
    try:
        kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        where = " ".join("".join(steps).lstrip(".").split())  # in one line, whatever keys are called
        raise RunError(f"{file}: {where} {_wrong(first)}: it is damaged; use an intact copy.") from None


def _wrong(problem: Any) -> str:
    if problem["type"] in ("missing", "extra_forbidden"):
        return "is missing" if problem["type"] == "missing" else "is not known"
    wanted = "an object" if problem["type"] in ("model_type", "dict_type") else problem["msg"]
    found = json.dumps(problem["input"], ensure_ascii=False)
    return f"must be {wanted.removeprefix('Input should be ')}, not {found if len(found) <= 60 else f'{found[:57]}...'}"
