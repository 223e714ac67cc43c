"""Writing reference builds: whole, reproducible, and never over something else."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enginebench.builds.build import Limits, read_build, read_config
from enginebench.errors import BuildError
from enginebench.reference.build import ReferenceOptions, write_build
from enginebench.reference.options import options_from_config
from enginebench.reference.weights import random_weights, read_weights

SMALL = ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=24, vocab_size=300)


def test_a_build_reads_as_tensorrt_llms_do(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path / "new" / "build")
    build = read_build("small", tmp_path / "new" / "build")
    assert (build.kind, build.architecture, build.dtype) == ("reference", "ReferenceForCausalLM", "float64")
    limits = Limits(SMALL.max_batch_size, SMALL.max_input_len, SMALL.max_seq_len, SMALL.max_num_tokens, 1)
    assert build.limits == limits
    assert build.config["pretrained_config"]["mapping"]["world_size"] == 1
    assert build.config["build_config"]["plugin_config"] == {"paged_kv_cache": True, "remove_input_padding": True}


def test_config_gives_back_the_options(tmp_path: Path) -> None:
    options = replace(SMALL, min_step_ms=3.5, seed=9, dtype="float32", max_num_tokens=99)
    write_build(options, tmp_path / "build")
    assert options_from_config(read_config(tmp_path / "build")) == options


def test_the_same_options_make_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    prints = []
    for name, options in {"a": SMALL, "b": SMALL, "c": replace(SMALL, seed=1)}.items():
        write_build(options, tmp_path / name)
        prints.append(read_build(name, tmp_path / name).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_weights_survive_the_file(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path / "build")
    stored = read_weights(tmp_path / "build" / "rank0.engine", SMALL)
    for name, tensor in random_weights(SMALL).items():
        np.testing.assert_array_equal(stored[name], tensor)


def test_nothing_but_the_build_is_left_behind(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path / "build")
    assert [path.name for path in tmp_path.iterdir()] == ["build"]
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["config.json", "rank0.engine"]


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path)
    before = (tmp_path / "rank0.engine").stat().st_mtime_ns
    write_build(SMALL, tmp_path)
    assert (tmp_path / "rank0.engine").stat().st_mtime_ns == before


def test_another_build_is_not_overwritten(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path / "build")
    with pytest.raises(BuildError, match="holds something other"):
        write_build(replace(SMALL, layers=2), tmp_path / "build")


def test_other_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(BuildError, match="holds something other"):
        write_build(SMALL, tmp_path)


def test_a_build_that_lost_its_weights_is_not_taken_for_whole(tmp_path: Path) -> None:
    write_build(SMALL, tmp_path / "build")
    (tmp_path / "build" / "rank0.engine").unlink()
    with pytest.raises(BuildError, match="holds something other"):
        write_build(SMALL, tmp_path / "build")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildError, match="cannot be written"):
        write_build(SMALL, tmp_path / "file" / "build")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda data: data[:-4], id="cut off"),
        pytest.param(lambda _: b"\xff" * 64, id="noise"),
        pytest.param(lambda data: data.replace(b"embedding", b"emptiness"), id="a tensor missing"),
    ],
)
def test_damaged_weights_are_named(tmp_path: Path, damage: Any) -> None:
    write_build(SMALL, tmp_path / "build")
    file = tmp_path / "build" / "rank0.engine"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BuildError, match=r"rank0\.engine holds no weights that fit"):
        read_weights(file, SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers 0"),
        ({"hidden": 18, "heads": 2}, "hidden 18 with heads 2"),
        ({"heads": 4, "kv_heads": 3, "hidden": 32}, "heads 4 with kv_heads 3"),
        ({"vocab_size": 258}, "vocab_size 258"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"dtype": "float16"}, "dtype 'float16' on cpu"),
        ({"pp_size": 2}, "pp_size 2 on cpu: use 1, or the device cuda"),
        ({"pp_size": 2, "device": "cuda"}, "pp_size 2 with 1 layers"),
        ({"max_seq_len": 1024}, "max_seq_len 1024 with max_input_len 1024"),
        ({"max_num_tokens": 4}, "max_num_tokens 4 with max_batch_size 8"),
        ({"min_step_ms": -1.0}, "min_step_ms -1.0"),
        ({"min_step_ms": float("nan")}, "min_step_ms nan"),
        ({"dtype": "int8"}, "dtype 'int8'"),
        ({"seed": -1}, "seed -1"),
        ({"layers": 10_001}, "10,001 layers: use at most 10,000"),
        ({"ffn": 10**20}, "parameters on cpu: use at most 2,000,000,000"),
    ],
)
def test_options_that_cannot_be_are_refused_with_the_fix(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        replace(SMALL, **change)


@pytest.mark.parametrize("change", [{"version": "0.16.0"}, {"build_config": {}}])
def test_what_is_no_reference_build_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    write_build(SMALL, tmp_path / "build")
    config = json.loads((tmp_path / "build" / "config.json").read_text())
    with pytest.raises(BuildError, match="reference build"):
        options_from_config(config | change)


def test_every_option_explains_itself() -> None:
    assert all(item.metadata["help"] for item in fields(ReferenceOptions))


def test_the_default_build_is_small() -> None:
    assert sum(tensor.nbytes for tensor in random_weights(ReferenceOptions()).values()) < 64 << 20


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("pretrained_config", "num_hidden_layers", "two"),
        ("build_config", "min_step_ms", "12"),
        ("build_config", "max_batch_size", True),
    ],
)
def test_a_wrong_type_in_the_config_is_named(tmp_path: Path, section: str, key: str, value: object) -> None:
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, kv_heads=1, ffn=32), tmp_path / "build")
    config = json.loads((tmp_path / "build" / "config.json").read_text())
    config[section][key] = value
    with pytest.raises(BuildError, match=rf"{section}\.{key} = {value!r}"):
        options_from_config(config)
