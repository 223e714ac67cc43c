"""Every era of config.json becomes the same description, and what cannot be run is refused before it is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds import era_old
from enginebench.builds.build import Limits, Shape, batch_exceeded, read_build
from enginebench.builds.sizes import kv_bytes_per_token, parameter_bytes, weight_bits
from enginebench.errors import BuildError
from tests.support import engine_dirs as made

CHATGLM3_KV_BYTES = 2 * 28 * 2 * 128 * 2
CHATGLM3_PARAMETERS = 6.24e9


@pytest.mark.parametrize("version", ["0.8.0", "0.10.0", "0.11.0", "0.13.0", "0.17.0.post1", "1.0.0rc4", "1.3.0rc15"])
def test_engines_of_0_8_and_later(tmp_path: Path, version: str) -> None:
    build = read_build("fp16", made.write_current(tmp_path, made.current_config(version)))
    assert (build.kind, build.layout, build.version) == ("tensorrt_llm", "build_config", version)
    assert (build.architecture, build.dtype, build.quantisation) == ("ChatGLMForCausalLM", "float16", None)
    assert build.limits == Limits(8, 1024, 2048, 8192, 1)
    assert (build.tp, build.pp, build.cp, build.world_size) == (1, 1, 1, 1)
    assert build.kv_bytes_per_token == CHATGLM3_KV_BYTES
    assert build.parameter_bytes == pytest.approx(2 * CHATGLM3_PARAMETERS, rel=0.01)
    assert build.inflight_off is None
    assert (build.rank_bytes, build.engine_bytes) == ((7,), 7)
    assert build.shape.vocabulary == 65024


def test_engines_of_0_5_to_0_7(tmp_path: Path) -> None:
    build = read_build("fp16", made.write_old(tmp_path))
    assert (build.kind, build.layout, build.version) == ("tensorrt_llm", "builder_config", None)
    assert (build.architecture, build.dtype, build.quantisation) == ("chatglm3_6b", "float16", None)
    assert build.limits == Limits(8, 1024, 2048, 2048, 1)
    assert build.kv_bytes_per_token == CHATGLM3_KV_BYTES
    assert build.parameter_bytes == build.engine_bytes == 3
    assert build.inflight_off is None


def test_0_5_says_less(tmp_path: Path) -> None:
    config = made.old_config(quant_mode=None, weight_only_quant_matmul_plugin="float16")
    build = read_build("int8", made.write_old(tmp_path, config, stem="chatglm2-6b_float16_tp1"))
    assert build.limits == Limits(8, 1024, 2048, None, None)
    assert build.quantisation == "weight-only, width not recorded"
    assert build.shape.kv_heads == 32
    config["builder_config"]["int8"] = True
    assert read_build("int8", made.write_old(tmp_path / "again", config)).quantisation == "W8A16"


def test_the_old_file_name_gives_what_the_config_leaves_out(tmp_path: Path) -> None:
    config = made.old_config()
    del config["builder_config"]["pipeline_parallel"]
    del config["builder_config"]["tensor_parallel"]
    build = read_build("a", made.write_old(tmp_path, config, ranks=4, stem="llama_float16_tp2_pp2"))
    assert (build.tp, build.pp, build.rank_bytes) == (2, 2, (3, 6, 9, 12))


def test_the_tp_of_an_old_file_name_may_be_the_world_size(tmp_path: Path) -> None:
    config = made.old_config(tp=2, pp=2)
    build = read_build("a", made.write_old(tmp_path, config, ranks=4, stem="chatglm3_6b_float16_tp4_pp2"))
    assert (build.tp, build.pp, build.world_size) == (2, 2, 4)


@pytest.mark.parametrize(
    ("mode", "name", "kv"),
    [
        (0, None, "float16"),
        (2, "W8A16", "float16"),
        (2 | 64, "W8A16", "int8"),
        (1, "W4A16", "float16"),
        (1 | 32, "W4A16_GROUPWISE", "float16"),
        (2 | 4, "W8A8_SQ_PER_TENSOR", "float16"),
        (2 | 4 | 8 | 16, "W8A8_SQ_PER_CHANNEL_PER_TOKEN", "float16"),
        (256 | 128, "FP8", "fp8"),
        (128, None, "fp8"),
    ],
)
def test_the_bits_of_quant_mode(tmp_path: Path, mode: int, name: str | None, kv: str) -> None:
    build = read_build("a", made.write_old(tmp_path, made.old_config(quant_mode=mode)))
    assert (build.quantisation, build.kv_dtype) == (name, kv)


@given(st.integers(0, 511))
def test_every_quant_mode_has_a_name_of_known_width(mode: int) -> None:
    name = era_old.algorithm(mode)
    assert (name is None) == (mode & 0b100000011 == 0)
    assert weight_bits(name, "float16") in (4, 8, 16)


def test_checkpoints_for_the_pytorch_backend(tmp_path: Path) -> None:
    arguments = "tensor_parallel_size: 2\nmax_batch_size: 64\nkv_cache_config: {dtype: fp8}\n"
    build = read_build("bf16", made.write_checkpoint(tmp_path, llm_args=arguments))
    assert (build.kind, build.layout, build.architecture) == ("pytorch", "checkpoint", "LlamaForCausalLM")
    assert (build.dtype, build.kv_dtype, build.tp, build.rank_bytes) == ("bfloat16", "fp8", 2, ())
    assert build.limits == Limits(64, None, 131072, None, None)
    assert build.parameter_bytes == build.engine_bytes == 16
    assert build.kv_bytes_per_token == 2 * 32 * 8 * 128
    assert build.llm_args["kv_cache_config"] == {"dtype": "fp8"}
    (tmp_path / "llm_args.yaml").write_text("max_batch_size: 32\n")
    other = read_build("bf16", tmp_path)
    assert (other.limits.max_batch_size, other.tp) == (32, 1)
    assert other.fingerprint != build.fingerprint


def test_the_arguments_of_a_checkpoint_may_lie_elsewhere(tmp_path: Path) -> None:
    arguments = tmp_path / "other.yaml"
    arguments.write_text("max_seq_len: 4096\n")
    build = read_build("a", made.write_checkpoint(tmp_path / "model"), llm_args=arguments)
    assert build.limits.max_seq_len == 4096
    with pytest.raises(BuildError, match=r"missing\.yaml cannot be read"):
        read_build("a", tmp_path / "model", llm_args=tmp_path / "missing.yaml")


def test_a_quantised_checkpoint(tmp_path: Path) -> None:
    made.write_checkpoint(tmp_path)
    quantisation = {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(quantisation))
    build = read_build("a", tmp_path)
    assert (build.quantisation, build.kv_dtype) == ("NVFP4", "fp8")


def test_latent_attention_has_a_small_cache(tmp_path: Path) -> None:
    config = made.checkpoint_config(kv_lora_rank=512, qk_rope_head_dim=64)
    assert read_build("a", made.write_checkpoint(tmp_path, config)).kv_bytes_per_token == 32 * 576 * 2


def test_ranks_and_quantisation_of_0_8_and_later(tmp_path: Path) -> None:
    config = made.parallel(made.quantised(made.current_config(), "W8A16", "INT8"), tp=2, pp=2)
    build = read_build("a", made.write_current(tmp_path, config, ranks=4))
    assert (build.tp, build.pp, build.world_size, build.rank_bytes) == (2, 2, 4, (7, 14, 21, 28))
    assert (build.quantisation, build.kv_dtype) == ("W8A16", "int8")
    assert build.kv_bytes_per_token == CHATGLM3_KV_BYTES // 2
    assert build.parameter_bytes == pytest.approx(CHATGLM3_PARAMETERS + 65024 * 4096 * 2, rel=0.01)


def test_mixed_precision_names_its_parts_and_managed_weights_count(tmp_path: Path) -> None:
    made.write_current(tmp_path, made.quantised(made.current_config(), "MIXED_PRECISION"))
    layers = {"a": {"quant_algo": "FP8"}, "b": {"quant_algo": "W4A16_AWQ"}, "c": {"quant_algo": "FP8"}}
    before = read_build("a", tmp_path).fingerprint
    (tmp_path / "quant_cfg.json").write_text(json.dumps({"quantized_layers": layers}))
    build = read_build("a", tmp_path)
    assert build.quantisation == "MIXED_PRECISION (FP8, W4A16_AWQ)"
    assert build.parameter_bytes == build.engine_bytes
    (tmp_path / "rank0_managed_weights.safetensors").write_bytes(b"weights")
    assert len({before, build.fingerprint, read_build("a", tmp_path).fingerprint}) == 3


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (made.old_config(paged_kv_cache=False), "built without paged_kv_cache"),
        (
            made.old_config(remove_input_padding=False, gpt_attention_plugin=False),
            "built without remove_input_padding, gpt_attention_plugin",
        ),
        (made.current_config(kv_cache_type="CONTINUOUS"), "built with kv_cache_type CONTINUOUS"),
        (made.current_config(plugin_config={"gpt_attention_plugin": None}), "built with gpt_attention_plugin off"),
        (made.current_config("0.9.0", plugin_config={"paged_kv_cache": False}), "built with paged_kv_cache off"),
        (made.current_config(kv_cache_type="paged"), None),
        (made.current_config(kv_cache_type=None, plugin_config={"paged_kv_cache": True}), None),
    ],
)
def test_an_engine_without_inflight_batching_says_why(tmp_path: Path, config: Any, reason: str | None) -> None:
    write = made.write_old if "builder_config" in config else made.write_current
    build = read_build("a", write(tmp_path, config))
    assert build.inflight_off == reason
    beyond = batch_exceeded(build, 64)
    assert beyond is None if reason is None else "max_batch_size 8" in str(beyond)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"architecture": "LlamaForCausalLM", "mapping": {}}, "no engine yet", id="checkpoint to build"),
        pytest.param({"hello": 1}, "has no version", id="something else"),
        pytest.param(
            {"version": "0.16.0", "pretrained_config": {"architecture": "WhisperEncoder"}}, "decoder-only", id="encoder"
        ),
        pytest.param({"builder_config": {"name": "decoder", "cross_attention": True}}, "decoder-only", id="half of T5"),
        pytest.param(made.checkpoint_config(is_encoder_decoder=True), "encoder-decoder", id="T5 itself"),
        pytest.param(made.checkpoint_config(), r"has no \*\.safetensors", id="checkpoint without weights"),
        pytest.param(made.old_config(tp=2), "no engine file of rank 0", id="no engines at all"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        read_build("a", made.write_engine(tmp_path, config, {}))
    assert str(tmp_path) in str(caught.value)


def test_a_missing_old_rank_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"no engine file of rank 1 .*2 x 1 ranks"):
        read_build("a", made.write_old(tmp_path, made.old_config(tp=2), ranks=1))


def test_two_models_in_one_old_directory(tmp_path: Path) -> None:
    made.write_old(tmp_path)
    made.write_old(tmp_path, stem="llama_float16_tp1")
    with pytest.raises(BuildError, match="engines of chatglm3_6b_float16 and llama_float16"):
        read_build("a", tmp_path)


def test_encoder_and_decoder_folders(tmp_path: Path) -> None:
    for half in ("encoder", "decoder"):
        made.write_current(tmp_path / half)
    with pytest.raises(BuildError, match="encoder-decoder models are not measured"):
        read_build("a", tmp_path)


def test_who_loads_it_is_told_from_outside(tmp_path: Path) -> None:
    made.write_current(tmp_path)
    assert read_build("a", tmp_path).tokenizer is None
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert read_build("a", tmp_path).tokenizer == tmp_path
    build = read_build("a", tmp_path, tokenizer=Path("/t"), container=["docker", "run", "-i", "image"])
    assert build.tokenizer == Path("/t")
    assert build.launcher == ("docker", "run", "-i", "image", "python3")


SIZES = st.integers(1, 256)


@given(SIZES, SIZES, SIZES, st.sampled_from([1, 2, 4, 8]))
def test_ranks_never_make_the_cache_smaller(layers: int, kv_heads: int, head_size: int, tp: int) -> None:
    shape = Shape(layers=layers, kv_heads=kv_heads, head_size=head_size)
    alone, spread = kv_bytes_per_token(shape, "float16", 1), kv_bytes_per_token(shape, "float16", tp)
    assert alone == 4 * layers * kv_heads * head_size
    assert spread is not None
    assert alone <= spread <= alone * tp
    assert (spread == alone) == (kv_heads % tp == 0)


@given(SIZES, SIZES, st.sampled_from([None, "W8A16", "W4A16_AWQ", "FP8"]))
def test_fewer_bits_are_fewer_bytes(layers: int, hidden: int, algorithm: str | None) -> None:
    shape = Shape(layers, 1, 1, hidden, hidden, 4 * hidden, 100)
    plain, packed = parameter_bytes(shape, "float16", None), parameter_bytes(shape, "float16", algorithm)
    assert plain is not None
    assert packed is not None
    assert packed < plain if algorithm else packed == plain


def test_no_shape_no_estimate() -> None:
    assert parameter_bytes(Shape(), "float16", None) is None
    assert kv_bytes_per_token(Shape(), "float16") is None
    assert kv_bytes_per_token(Shape(1, 1, 1, 1), "float13") is None
