"""The kinds of values that a scenario file is made of: strict mappings, one-or-many lists, percentages.

Knows no key of a scenario.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from enginebench.plan.messages import did_you_mean, shown

MOST = 10_000_000
"""Of whatever is counted: more is a slip, and would be planned for until memory ends."""
Count = Annotated[int, Field(gt=0, le=MOST)]


def problem(message: str, *below: str | int) -> PydanticCustomError:
    """A sentence's end (it follows the key's name), at ``below`` the value that is being checked."""
    return PydanticCustomError("problem", "{message}", {"message": message, "below": below})


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """Marks a tuple that may be written as a list or as its only entry."""

    distinct: bool = False

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        listed = core_schema.no_info_before_validator_function(self._listed, handler(source))
        return core_schema.no_info_after_validator_function(self._checked, listed)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = {**handler(schema), "uniqueItems": True} if self.distinct else handler(schema)
        return {"anyOf": [many["items"], many]}

    def _listed(self, value: object) -> object:
        return tuple(value) if isinstance(value, list) else (value,)

    def _checked(self, values: tuple[object, ...]) -> tuple[object, ...]:
        for index, value in enumerate(values):
            if self.distinct and value in values[:index]:
                raise problem(f"gives {shown(value)} twice; remove one of them", index)
        return values


@dataclass(frozen=True, slots=True)
class Bare:
    """Marks a mapping for which the bare value of one of its keys may stand."""

    key: str
    json_type: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": self.json_type}, handler(schema)]}

    def _mapping(self, value: object) -> object:
        return value if isinstance(value, dict) else {self.key: value}


@dataclass(frozen=True, slots=True)
class OrWord:
    """Marks a union of a value with a word that may stand for it; anything else is checked as the value."""

    word: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        value = handler.generate_schema(get_args(source)[0])
        serialised = core_schema.wrap_serializer_function_ser_schema(self._passed, schema=value)
        return core_schema.no_info_wrap_validator_function(self._passed, value, serialization=serialised)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": [self.word, [self.word]]}, *handler(schema)["anyOf"]]}

    def _passed(self, value: Any, handler: Any) -> Any:
        if value in (self.word, [self.word]):
            return self.word
        if isinstance(value, str):
            raise problem(f"must be {self.word}, a whole number or a list of them, not {shown(value)}")
        return handler(value)


def fraction(value: object) -> object:
    """``5%`` as 0.05. Numbers pass when they are fractions: a bare 5 would be five hundred per cent or five."""
    percent = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value) if isinstance(value, str) else None
    fraction = float(percent[1]) / 100 if percent else value
    if isinstance(fraction, float) and 0 < fraction < 1:
        return fraction
    raise problem(f"must be a percentage between 0% and 100%, such as 5%, not {shown(value)}")


class Keys(BaseModel):
    """A mapping in the file: fixed keys, exact types, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, data: object) -> object:
        for key in data if isinstance(data, dict) else ():
            if type(key) not in (str, int, float):  # yes, null and dates: YAML does not say how they were written
                raise problem(f"has the key {shown(key)}, which is no text; put it in quotes, or remove it")
            if key not in cls.model_fields:
                raise problem(f"is not a known key; {did_you_mean(key, cls.model_fields)}", str(key))
        return data
