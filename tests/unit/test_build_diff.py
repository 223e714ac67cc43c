"""Two builds are told apart in words, and by nothing that makes no other engine."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.build import read_build
from enginebench.builds.diff import diff_builds, diff_json, diff_text, rows
from enginebench.builds.facts import build_facts, build_json, concerns, size_text
from enginebench.cli import main
from enginebench.decide.causes import causes
from enginebench.reference.build import ReferenceOptions, write_build
from tests.support import engine_dirs as made
from tests.support.ab_project import SMALL
from tests.support.ab_runs import stored

LIMITS = st.dictionaries(st.sampled_from(["max_batch_size", "max_input_len", "opt_num_tokens"]), st.integers(1, 9))


def words(tmp_path: Path, old: dict[str, Any], new: dict[str, Any], ranks: tuple[int, int] = (1, 1)) -> list[str]:
    builds = []
    for name, config, count in (("old", old, ranks[0]), ("new", new, ranks[1])):
        write = made.write_old if "builder_config" in config else made.write_current
        builds.append(read_build(name, write(tmp_path / name, config, ranks=count)))
    return [each.words for each in diff_builds(*builds)]


def test_a_limit_in_words(tmp_path: Path) -> None:
    assert words(tmp_path, made.current_config(), made.current_config(max_batch_size=64)) == ["max_batch_size 8 → 64"]


def test_quantisation_and_what_follows_from_it(tmp_path: Path) -> None:
    found = words(tmp_path, made.current_config(), made.quantised(made.current_config(), "W8A16", "INT8"))
    assert found == [
        "quantisation none → W8A16",
        "kv_dtype float16 → int8",
        "parameter_bytes 11.63 GiB → 6.311 GiB",
        "kv_bytes_per_token 28 KiB → 14 KiB",
    ]


def test_ranks_and_plugins(tmp_path: Path) -> None:
    new = made.parallel(made.current_config(), tp=2)
    new["build_config"]["plugin_config"]["use_paged_context_fmha"] = True
    found = words(tmp_path, made.current_config(), new, ranks=(1, 2))
    assert found == ["tp 1 → 2", "engine_bytes 7 B → 21 B", "use_paged_context_fmha off → on"]


def test_a_key_that_no_fact_knows(tmp_path: Path) -> None:
    found = words(tmp_path, made.current_config(), made.current_config(profiling_verbosity="detailed"))
    assert found == ["build_config.profiling_verbosity none → detailed"]


def test_reference_builds_differ_in_what_slows_them(tmp_path: Path) -> None:
    """Said once by the diff, and named first among the causes of a regression."""
    builds = []
    for name, step_ms in (("old", 10.0), ("new", 40.0)):
        write_build(ReferenceOptions(min_step_ms=step_ms, **SMALL), tmp_path / name)  # type: ignore[arg-type]
        builds.append(read_build(name, tmp_path / name))
    assert [each.words for each in diff_builds(*builds)] == ["min_step_ms 10.0 → 40.0"]
    runs = [stored(run_id=build.name) for build in builds]
    for run, build in zip(runs, builds, strict=True):
        run["build"] |= {"fingerprint": build.fingerprint, "facts": build_facts(build)}
    assert [cause.sentence for cause in causes(runs[0], runs[1])] == ["Builds differ: min_step_ms 10.0 → 40.0."]


def test_the_machine_that_built_it_is_no_difference(tmp_path: Path) -> None:
    elsewhere = made.current_config(auto_parallel_config={"cluster_key": "L4"}, output_timing_cache="other.cache")
    (found,) = words(tmp_path, made.current_config(), elsewhere)
    assert found.startswith("fingerprint sha256:")


def test_two_eras_are_compared_by_what_both_say(tmp_path: Path) -> None:
    found = words(tmp_path, made.old_config(), made.current_config())
    assert "layout builder_config → build_config" in found
    assert "version none → 0.16.0" in found
    assert not any(each.startswith("max_seq_len") for each in found)


@given(LIMITS, LIMITS)
def test_a_diff_is_empty_for_equals_and_turns_round(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        old, new = (
            read_build("a", made.write_current(Path(place) / name, made.current_config(**changes)))
            for name, changes in (("a", ours), ("b", theirs))
        )
    there, back = diff_builds(old, new), diff_builds(new, old)
    assert diff_builds(old, old) == ()
    assert bool(there) == (old.fingerprint != new.fingerprint)
    assert {(each.key, each.old, each.new) for each in there} == {(each.key, each.new, each.old) for each in back}


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made.write_current(tmp_path / "a")
    made.write_current(tmp_path / "b", made.current_config(max_batch_size=64))
    assert main(["build", "diff", str(tmp_path / "a"), f"big={tmp_path / 'b'}"]) == 0
    assert capsys.readouterr().out == "a → big\nlimits:\n  max_batch_size 8 → 64\n"
    assert main(["build", "diff", "--json", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert found == [
        {"section": "limits", "key": "max_batch_size", "old": 8, "new": 64, "words": "max_batch_size 8 → 64"}
    ]
    assert main(["build", "show", str(tmp_path / "a")]) == 0
    assert "\n  max_seq_len 2048\n" in capsys.readouterr().out
    assert main(["build", "show", "--json", str(tmp_path / "a")]) == 0
    assert json.loads(capsys.readouterr().out)["limits"]["max_batch_size"] == 8
    assert main(["build", "show", "--check", f"a={tmp_path / 'a'},python={sys.executable}"]) == 0
    assert f"    python {platform.python_version()}\n" in capsys.readouterr().out
    assert main(["build", "show", str(tmp_path / "c")]) == 1
    assert "is no directory" in capsys.readouterr().err


def test_equal_builds_say_so(tmp_path: Path) -> None:
    build = read_build("a", made.write_current(tmp_path))
    assert "No difference" in diff_text(build, build)
    assert diff_json(build, build)["differences"] == []
    assert rows(diff_builds(build, build)) == []


def test_rows_are_text(tmp_path: Path) -> None:
    old = read_build("a", made.write_current(tmp_path / "a"))
    new = read_build("b", made.write_current(tmp_path / "b", made.current_config(max_num_tokens=None)))
    assert rows(diff_builds(old, new)) == [("limits", "max_num_tokens", "8192", "none")]


def test_concerns_are_said_before_anything_is_loaded(tmp_path: Path) -> None:
    build = read_build("a", made.write_current(tmp_path, made.current_config(kv_cache_type="CONTINUOUS")))
    (static,) = concerns(build)
    assert "kv_cache_type CONTINUOUS" in static
    _, foreign = concerns(build, {"tensorrt_llm": "0.12.0"})
    assert "built by TensorRT-LLM 0.16.0" in foreign
    assert "has 0.12.0" in foreign
    assert concerns(build, {"tensorrt_llm": "0.16.0"}) == (static,)
    assert "has no tensorrt_llm" in concerns(build, {"python": "3.12.3"})[1]
    assert build_json(build)["concerns"] == [static]


@given(st.integers(0, 1 << 50))
def test_sizes_keep_their_order_of_magnitude(size: int) -> None:
    number, unit = size_text(size).split()
    factor = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]
    assert float(number) * factor == pytest.approx(size, rel=1e-3)
