"""The stand-in for tensorrt_llm is strict: otherwise passing with it would mean nothing."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.trtllm.install import installed

ROOT = Path(__file__).parents[2]


def positional(tensorrt_llm: Any) -> None:
    tensorrt_llm.SamplingParams(-1)


def unknown_keyword(tensorrt_llm: Any) -> None:
    tensorrt_llm.SamplingParams(end_id=-1, min_p=0.1)  # came after 0.16


def absent_attribute(tensorrt_llm: Any) -> None:
    tensorrt_llm.SamplingParams(end_id=-1).prompt_logprobs  # noqa: B018


def absent_method(tensorrt_llm: Any) -> None:
    tensorrt_llm.LLM.get_stats  # noqa: B018


def absent_name(tensorrt_llm: Any) -> None:
    tensorrt_llm.KvCacheConfig  # noqa: B018


def setting_what_is_absent(tensorrt_llm: Any) -> None:
    tensorrt_llm.SamplingParams(end_id=-1).min_p = 0.1


def argument_of_the_other_backend(tensorrt_llm: Any) -> None:
    tensorrt_llm.LLM(model=".", skip_tokenizer_init=True, cuda_graph_config=None)


@pytest.mark.parametrize(
    "mistake",
    [
        positional,
        unknown_keyword,
        absent_attribute,
        absent_method,
        absent_name,
        setting_what_is_absent,
        argument_of_the_other_backend,
    ],
)
def test_a_mistake_fails_the_test_even_when_it_is_swallowed(mistake: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError):
        swallow(mistake)


def swallow(mistake: Callable[[Any], None]) -> None:
    with installed("0.16.0", ROOT), suppress(Exception):
        import tensorrt_llm  # type: ignore[import-not-found,unused-ignore]

        mistake(tensorrt_llm)


def test_looking_without_touching_is_no_mistake() -> None:
    with installed("0.16.0", ROOT):
        import tensorrt_llm  # type: ignore[import-not-found,unused-ignore]

        assert "KvCacheConfig" not in dir(tensorrt_llm)
        assert "get_stats" not in dir(tensorrt_llm.LLM)
