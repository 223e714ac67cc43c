"""The text of the model repository, without a server."""

import json
import re
from pathlib import Path

import pytest

from enginebench.builds.build import Build, Limits
from enginebench.errors import ServerError
from enginebench.server import repository
from enginebench.server.repository import MODELS, write_reference_repository

UPSTREAM = Path(__file__).parents[3] / "shared" / "triton_configs" / "v1.x-main"


def make_build(directory: Path, kind: str = "reference") -> Build:
    return Build(
        name="tiny",
        directory=directory,
        kind=kind,  # type: ignore[arg-type]
        version="reference-1",
        architecture="ReferenceForCausalLM",
        dtype="float64",
        limits=Limits(max_batch_size=4, max_input_len=64, max_seq_len=128),
        fingerprint="sha256:0",
        engine_bytes=1,
        python="python",
        config={"pretrained_config": {"vocab_size": 600}},
    )


def config(directory: Path, model: str) -> str:
    return (directory / model / "config.pbtxt").read_text(encoding="utf-8")


def test_holds_the_five_models(tmp_path: Path) -> None:
    write_reference_repository(make_build(tmp_path / "engine"), tmp_path / "repository", bls_instances=8)
    written = sorted(path.relative_to(tmp_path / "repository").as_posix() for path in tmp_path.rglob("*.p*"))
    expected = [f"{model}/config.pbtxt" for model in MODELS]
    expected += [f"{model}/1/model.py" for model in MODELS if model != "ensemble"]
    assert written == sorted(expected)
    assert (tmp_path / "repository" / "ensemble" / "1").is_dir()


def test_every_model_runs_on_the_cpu_and_says_its_batch_size(tmp_path: Path) -> None:
    write_reference_repository(make_build(tmp_path), tmp_path, bls_instances=8)
    for model in MODELS:
        assert "max_batch_size: 4\n" in config(tmp_path, model)
        assert model == "ensemble" or "kind: KIND_CPU" in config(tmp_path, model)
    assert "count: 8 kind: KIND_CPU" in config(tmp_path, "tensorrt_llm_bls")


def test_paths_and_tokenizer_go_in_parameters(tmp_path: Path) -> None:
    engine = tmp_path / 'an "odd" \\ engine 引擎'
    write_reference_repository(make_build(engine), tmp_path / "repository")
    quoted = str(engine).replace("\\", "\\\\").replace('"', '\\"')
    assert f'"gpt_model_path" value {{ string_value: "{quoted}" }}' in config(tmp_path / "repository", "tensorrt_llm")
    for model in ("preprocessing", "postprocessing"):
        found = re.search(
            r'"tokenizer_spec" value \{ string_value: "(.*)" \} \}', config(tmp_path / "repository", model)
        )
        assert found is not None
        assert json.loads(found[1].replace('\\"', '"')) == {"kind": "reference", "vocab_size": 600}


def test_can_be_written_again(tmp_path: Path) -> None:
    write_reference_repository(make_build(tmp_path), tmp_path, bls_instances=2)
    write_reference_repository(make_build(tmp_path), tmp_path, bls_instances=3)
    assert "count: 3" in config(tmp_path, "tensorrt_llm_bls")


def test_refuses_an_engine_of_tensorrt_llm(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="reference builds only and 'tiny'"):
        write_reference_repository(make_build(tmp_path, kind="tensorrt_llm"), tmp_path)


def test_refuses_no_bls_instance(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="bls_instances is 0"):
        write_reference_repository(make_build(tmp_path), tmp_path, bls_instances=0)


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason=f"upstream's configurations are not at {UPSTREAM}")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_tensors_are_upstreams(tmp_path: Path, model: str, kind: str) -> None:
    write_reference_repository(make_build(tmp_path), tmp_path)
    upstream = upstream_tensors((UPSTREAM / model / "config.pbtxt").read_text(), kind)
    ours = our_tensors(config(tmp_path, model), kind)
    assert ours
    for name, (data_type, dims) in ours.items():
        assert upstream[name] == (data_type, dims), name


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason=f"upstream's configurations are not at {UPSTREAM}")
def test_the_ensemble_is_wired_as_upstreams() -> None:
    text = (UPSTREAM / "ensemble" / "config.pbtxt").read_text()
    maps = set(re.findall(r'key: "(\w+)",?\s+value: "(\w+)"', text))
    for _, inputs, outputs in repository.ENSEMBLE_STEPS:
        assert {*inputs.items(), *outputs.items()} <= maps


def our_tensors(text: str, kind: str) -> dict[str, tuple[str, str]]:
    pattern = rf'^{kind} {{ name: "(\w+)" data_type: (\w+) dims: \[ ([-\d, ]+) \]'
    return {name: (data_type, dims) for name, data_type, dims in re.findall(pattern, text, re.MULTILINE)}


def upstream_tensors(text: str, kind: str) -> dict[str, tuple[str, str]]:
    block = re.split(r"^(input|output|parameters|instance_group|ensemble_scheduling)\b", text, flags=re.MULTILINE)
    body = block[block.index(kind) + 1]
    pattern = r'name: "(\w+)",?\s+data_type:\s*([\w${}]+),?\s+dims: \[ ([-\d, ]+) \]'
    return {name: (data_type, dims) for name, data_type, dims in re.findall(pattern, body)}
