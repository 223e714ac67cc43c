"""Problems found in a file, said in one sentence: where, what, how to fix.

Works on pydantic's error records as plain mappings, so that nothing here imports pydantic.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from enginebench.errors import ScenarioError
from enginebench.plan.yaml_file import Document, Location

_TEMPLATES = {
    "missing": "is missing; add it (scenarios/README.md explains every key)",
    "string_type": "must be text, not {value}; put it in quotes",
    "string_unicode": "must be text without lone surrogates, not {value}",
    "string_too_short": "must not be empty; write some text",
    "int_type": "must be a whole number, not {value}",
    "float_type": "must be a number, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "float_text": "must be a number, not {value}; YAML wants the sign of an exponent, as in 1.0e+3",
    "bool_type": "must be true or false, not {value}",
    "tuple_type": "must be a list such as [1, 8], not {value}",
    "model_type": "must be a mapping of keys to values, not {value}",
    "dict_type": "must be a mapping of keys to values, not {value}",
    "greater_than": "must be more than {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "too_short": "must not be empty; give at least {min_length}",
    "too_long": "holds {actual_length} entries; leave at most {max_length}",
    "problem": "{message}",
}

_UNSIGNED = re.compile(r"[\d.]+[eE]\d+")  # which YAML 1.1 takes for text


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """A hint for a name that nobody knows: the nearest known one, else all of them."""
    names = list(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"choose from {', '.join(names)}" if names else "there is none to choose from"


def shown(value: object) -> str:
    """``value`` as it could stand in the file, cut to a readable length."""
    if value is None:
        return "nothing"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
    except ValueError:
        return "an alias of itself"
    return text if len(text) <= 60 else f"{text[:57]}..."


def first_problem(document: Document, errors: Sequence[Mapping[str, Any]]) -> ScenarioError:
    """The error to show first: misspelt keys (others follow from them), then the order of the file."""
    located = [(_location(error), error) for error in errors]

    def order(entry: tuple[Location, Mapping[str, Any]]) -> tuple[bool, int]:
        return not _misspelt(entry[1]), document.lines[document.known(entry[0])]

    location, error = min(located, key=order)
    return document.error(location, f"{_where(document, location, error)} {_what(error)}")


def _misspelt(error: Mapping[str, Any]) -> bool:
    return "did you mean" in error.get("ctx", {}).get("message", "")


def _location(error: Mapping[str, Any]) -> Location:
    return (*error["loc"], *error.get("ctx", {}).get("below", ()))


def _where(document: Document, location: Location, error: Mapping[str, Any]) -> str:
    at = document.known(location)
    if error["type"] == "missing":
        at = (*at, location[-1])
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in at]
    return "".join(steps).lstrip(".") or "the file"


def _what(error: Mapping[str, Any]) -> str:
    context = {key: _whole(value) for key, value in error.get("ctx", {}).items()} | {"value": shown(error["input"])}
    unsigned = error["type"] == "float_type" and _UNSIGNED.fullmatch(str(error["input"]))
    template = _TEMPLATES.get("float_text" if unsigned else error["type"])
    return template.format_map(context) if template else f"is not usable ({error['msg']}), it is {context['value']}"


def _whole(bound: object) -> object:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound
