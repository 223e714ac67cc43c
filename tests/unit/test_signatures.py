"""Holding an installed tensorrt_llm against what is known of it."""

from pathlib import Path

import pytest

from enginebench.runtimes.tensorrt_llm.signatures import differences, nearest, release, versions
from tests.support.trtllm.install import installed

ROOT = Path(__file__).parents[2]
KNOWN = versions()


@pytest.mark.parametrize("version", KNOWN)
def test_a_version_does_not_differ_from_itself(version: str) -> None:
    with installed(version, ROOT):
        assert differences(KNOWN[version]) == []


def test_what_is_missing_renamed_or_new_is_said() -> None:
    with installed("0.16.0", ROOT):
        found = differences(KNOWN["0.9.0"])
    assert "tensorrt_llm.bindings.executor.SchedulerPolicy is missing" in found
    assert "tensorrt_llm.bindings.executor.SchedulerConfig lacks policy" in found
    with installed("1.2.0rc2", ROOT):
        found = differences(KNOWN["0.16.0"])
    assert "tensorrt_llm.SamplingParams does not take max_new_tokens" in found
    assert "tensorrt_llm.SamplingParams takes min_p, which is new" in found
    assert "tensorrt_llm.LLM._get_stats is missing" in found
    assert "tensorrt_llm.LLM.generate_async takes cache_salt, which is new" in found


@pytest.mark.parametrize(
    ("version", "held_against"),
    [
        ("0.12.0", "0.11.0"),
        ("0.17.0.post1", "0.17.0.dev2024121700"),
        ("0.20.0", "0.19.0"),
        ("1.0.0", "1.0.0rc4"),
        ("1.2.1", "1.2.0rc2"),
        ("1.3.0rc15", "1.2.0rc2"),
        ("1.3.0rc20", "1.3.0rc20"),
        ("2.0.0", "1.3.0rc20"),
        ("0.1.0", "0.6.1"),
    ],
)
def test_an_unknown_version_is_held_against_the_last_known_before_it(version: str, held_against: str) -> None:
    assert nearest(version, KNOWN) == held_against


def test_releases_are_in_order() -> None:
    order = ["0.16.0", "0.17.0.dev2024121700", "0.17.0", "1.0.0rc4", "1.0.0", "1.2.0rc2", "1.2.1", "1.3.0rc20"]
    assert sorted(sorted(order), key=release) == order


def test_every_version_says_where_it_was_read() -> None:
    for version, known in KNOWN.items():
        assert known["read"], version
        assert all(spec["source"] for spec in known["classes"].values()), version
        assert set(known["names"].values()) <= set(known["classes"]), version
