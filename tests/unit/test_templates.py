"""Filling upstream's templates: every version, every variable, and what is refused or warned of. Starts nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from enginebench.builds.build import Build, read_build
from enginebench.errors import ServerError
from enginebench.report.repository import repository_section, repository_text
from enginebench.server.filled import FilledRepository, fill_repository
from enginebench.server.filling import Demand, read_overrides
from enginebench.server.llmapi import with_policy
from enginebench.server.templates import PLACES, fill_text, find_templates
from tests.support.engine_dirs import current_config, write_current
from tests.support.templates import UPSTREAM, VERSIONS, checkout

needs_upstream = pytest.mark.skipif(not VERSIONS, reason=f"upstream's configurations are not at {UPSTREAM}")
DEMAND = Demand(bls_concurrency=16, kv_cache_fraction=0.9)


@pytest.fixture
def build(tmp_path: Path) -> Build:
    engine = write_current(tmp_path / "engine", current_config("0.19.0"))
    (tmp_path / "tokenizer").mkdir()
    return read_build("fp16", engine, tokenizer=tmp_path / "tokenizer")


def fill(build: Build, tmp_path: Path, version: str, demand: Demand = DEMAND) -> FilledRepository:
    return fill_repository(build, demand, checkout(version, tmp_path / "checkout"))


def value_of(filled: FilledRepository, model: str, variable: str) -> str:
    return next(one.value for one in filled.filled if (one.model, one.variable) == (model, variable))


# --- Text -----------------------------------------------------------------------------------------------------------


def test_strings_are_escaped_bare_values_are_not_and_comments_are_left_alone() -> None:
    done = fill_text('a: "${x}/b" # ${x}\nc: ${y} d: "${z}"\ne: ${w}', {"x": 'say "hi"\\', "y": "8"})
    assert done.text == 'a: "say \\"hi\\"\\\\/b" # ${x}\nc: 8 d: "${z}"\ne: ${w}'
    assert (done.filled, done.left, done.missing) == (("x", "y"), ("z",), ("w",))


def test_a_bare_value_must_be_one_word() -> None:
    for value in ('8"', "8 ]", "", "8\n"):
        with pytest.raises(ServerError, match="stands outside quotes"):
            fill_text("n: ${n}", {"n": value})


@given(st.text(max_size=40))
def test_any_value_comes_back_out_of_a_string(value: str) -> None:
    text = fill_text('p: "${x}"', {"x": value}).text
    assert text.startswith('p: "')
    assert text.endswith('"')
    inside = text[4:-1]
    assert not re.search(r'(?<!\\)(?:\\\\)*"', inside)
    read = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], inside, flags=re.DOTALL)
    assert read == value


@given(st.text(alphabet='ab"#\\${}x \n', max_size=60))
def test_without_values_a_text_stays_as_it_is(text: str) -> None:
    assert fill_text(text, {}).text == text


# --- Every version --------------------------------------------------------------------------------------------------


@needs_upstream
@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_outside_quotes_is_left_and_every_value_has_a_source(
    build: Build, tmp_path: Path, version: str
) -> None:
    filled = fill(build, tmp_path, version)
    for name, text in filled.files.items():
        bare = re.sub(r'"(?:[^"\\]|\\.)*"|#.*', "", text)
        assert "${" not in bare, name
    assert all(one.value and one.source for one in filled.filled)
    assert value_of(filled, "tensorrt_llm", "engine_dir") == str(build.directory.resolve())
    assert value_of(filled, "tensorrt_llm", "decoupled_mode") == "true"
    assert value_of(filled, "tensorrt_llm", "kv_cache_free_gpu_mem_fraction") == "0.9"


@needs_upstream
@pytest.mark.parametrize("version", ["v0.7.2", "v0.12.0", "v0.19.0", "v1.x-late"])
def test_what_a_fair_benchmark_needs_is_filled(build: Build, tmp_path: Path, version: str) -> None:
    filled = fill(build, tmp_path, version)
    assert value_of(filled, "tensorrt_llm_bls", "bls_instance_count") == "16"
    assert value_of(filled, "postprocessing", "postprocessing_instance_count") == "1"
    assert value_of(filled, "tensorrt_llm", "triton_max_batch_size") == "8"
    assert value_of(filled, "tensorrt_llm", "enable_kv_cache_reuse") == "false"
    assert value_of(filled, "tensorrt_llm", "max_queue_delay_microseconds") == "0"
    assert filled.warnings == ()


@needs_upstream
def test_a_policy_is_told_to_0_5_in_its_own_words(build: Build, tmp_path: Path) -> None:
    filled = fill(build, tmp_path, "v0.5.0")
    assert value_of(filled, "tensorrt_llm", "batch_scheduler_policy") == "guaranteed_completion"
    assert any("special tokens" in warning for warning in filled.warnings)


@needs_upstream
def test_a_pool_of_tokens_a_policy_and_chunks_are_told(build: Build, tmp_path: Path) -> None:
    demand = Demand(4, kv_cache_tokens=4096, scheduler_policy="max_utilization", chunked_context=True)
    filled = fill(build, tmp_path, "v0.19.0", demand)
    assert value_of(filled, "tensorrt_llm", "max_tokens_in_paged_kv_cache") == "4096"
    assert "kv_cache_free_gpu_mem_fraction" in filled.left["tensorrt_llm"]
    assert value_of(filled, "tensorrt_llm", "batch_scheduler_policy") == "max_utilization"
    assert value_of(filled, "tensorrt_llm", "enable_chunked_context") == "true"


@needs_upstream
def test_data_types_come_from_the_build(tmp_path: Path) -> None:
    config = current_config("0.19.0")
    config["pretrained_config"] |= {"dtype": "bfloat16", "logits_dtype": "float16"}
    (tmp_path / "tokenizer").mkdir()
    build = read_build("b", write_current(tmp_path / "engine", config), tokenizer=tmp_path / "tokenizer")
    filled = fill(build, tmp_path, "v1.x-main")
    assert value_of(filled, "ensemble", "logits_datatype") == "TYPE_FP16"
    assert value_of(filled, "tensorrt_llm", "prompt_embedding_table_data_type") == "TYPE_BF16"


# --- Where templates are, and what a person sets ---------------------------------------------------------------------


@needs_upstream
@pytest.mark.parametrize("inside", ["", "all_models", "all_models/inflight_batcher_llm"])
def test_a_set_is_found_in_whatever_is_named(tmp_path: Path, inside: str) -> None:
    root = checkout("v0.19.0", tmp_path / "checkout")
    found = find_templates("inflight_batcher_llm", root / inside)
    assert found.directory == (root / "all_models" / "inflight_batcher_llm").resolve()


@needs_upstream
def test_a_set_is_found_in_known_places(tmp_path: Path) -> None:
    root = checkout("v0.19.0", tmp_path / "app")
    found = find_templates("inflight_batcher_llm", places=[tmp_path / "nowhere", root / "all_models"])
    assert found.directory.parent.parent == root.resolve()
    assert Path("/app/all_models") in PLACES


def test_no_templates_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"no templates of inflight_batcher_llm in .*nowhere.*git clone.*--templates"):
        find_templates("inflight_batcher_llm", places=[tmp_path / "nowhere"])
    with pytest.raises(ServerError, match="is no directory"):
        find_templates("inflight_batcher_llm", tmp_path / "nowhere")
    with pytest.raises(ServerError, match=r"holds no inflight_batcher_llm"):
        find_templates("inflight_batcher_llm", tmp_path)


@needs_upstream
def test_templates_that_are_not_complete_are_refused(tmp_path: Path) -> None:
    root = checkout("v0.19.0", tmp_path / "checkout") / "all_models" / "inflight_batcher_llm"
    (root / "postprocessing" / "1" / "model.py").unlink()
    with pytest.raises(ServerError, match=r"lack postprocessing/1/model\.py"):
        find_templates("inflight_batcher_llm", root)
    (root / "ensemble" / "config.pbtxt").unlink()
    with pytest.raises(ServerError, match=r"lack ensemble/config\.pbtxt"):
        find_templates("inflight_batcher_llm", root)


@needs_upstream
def test_a_persons_value_goes_before_ours_and_is_warned_of(build: Build, tmp_path: Path) -> None:
    sets = [
        "postprocessing.postprocessing_instance_count=4",
        "tensorrt_llm_bls.bls_instance_count=2",
        "tensorrt_llm.enable_kv_cache_reuse=true",
        "tensorrt_llm.max_queue_delay_microseconds=1000",
        'tensorrt_llm.medusa_choices={"a": [0]}',
    ]
    filled = fill(build, tmp_path, "v0.19.0", replace(DEMAND, overrides=read_overrides(sets)))
    assert value_of(filled, "tensorrt_llm", "medusa_choices") == '{"a": [0]}'
    assert '"{\\"a\\": [0]}"' in filled.files["tensorrt_llm/config.pbtxt"]
    warned = "\n".join(filled.warnings)
    assert len(filled.warnings) == 4
    for words in ("4 instances", "of 16 at once", "skips its prefill", "wait in Triton"):
        assert words in warned
    assert [one.source for one in filled.filled if one.variable == "medusa_choices"] == ["--set"]


@needs_upstream
def test_a_variable_that_no_template_has_is_refused_with_a_guess(build: Build, tmp_path: Path) -> None:
    demand = replace(DEMAND, overrides=read_overrides(["tensorrt_llm.max_beam_with=1"]))
    with pytest.raises(ServerError, match=r"did you mean tensorrt_llm\.max_beam_width\?"):
        fill(build, tmp_path, "v0.19.0", demand)


@pytest.mark.parametrize("text", ["x", "x=1", "tensorrt_llm.=1", ".x=1", "tensorrt_llm.x"])
def test_a_setting_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ServerError, match=r"MODEL\.VARIABLE=VALUE"):
        read_overrides([text])


@needs_upstream
def test_a_variable_that_is_new_to_us_must_be_given_a_value(build: Build, tmp_path: Path) -> None:
    root = checkout("v0.19.0", tmp_path / "checkout")
    config = root / "all_models" / "inflight_batcher_llm" / "tensorrt_llm" / "config.pbtxt"
    config.write_text(config.read_text() + "\nversion_policy: ${brand_new}\n")
    with pytest.raises(ServerError, match=r"--set tensorrt_llm\.brand_new=VALUE"):
        fill_repository(build, DEMAND, root)
    given_one = replace(DEMAND, overrides={("tensorrt_llm", "brand_new"): "all"})
    assert "version_policy: all" in fill_repository(build, given_one, root).files["tensorrt_llm/config.pbtxt"]


# --- What cannot work, and what distorts -----------------------------------------------------------------------------


@needs_upstream
def test_builds_that_cannot_be_served_are_refused(build: Build, tmp_path: Path) -> None:
    root = checkout("v0.19.0", tmp_path / "checkout")
    for changed, words in (
        (replace(build, tokenizer=None), "--tokenizer DIR"),
        (replace(build, tokenizer=tmp_path / "nowhere"), "is no directory"),
        (replace(build, container=("docker", "run")), "lives in a container"),
        (replace(build, inflight_off="no paged KV cache"), "cannot be batched in flight"),
    ):
        with pytest.raises(ServerError, match=words):
            fill_repository(changed, DEMAND, root)


@needs_upstream
def test_python_of_a_tokenizer_must_be_allowed_and_old_templates_do_not_run_it(build: Build, tmp_path: Path) -> None:
    assert build.tokenizer is not None
    auto_map = {"auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}}
    (build.tokenizer / "tokenizer_config.json").write_text(json.dumps(auto_map))
    root = checkout("v0.6.1", tmp_path / "checkout")
    with pytest.raises(ServerError, match="--trust-remote-code"):
        fill_repository(build, DEMAND, root)
    code = root / "all_models" / "inflight_batcher_llm" / "preprocessing" / "1" / "model.py"
    trusted = replace(build, trust_remote_code=True)
    code.write_text("AutoTokenizer.from_pretrained(d, padding_side='left')\n")
    assert any("does not trust the Python" in one for one in fill_repository(trusted, DEMAND, root).warnings)
    load = "tokenizer = AutoTokenizer.from_pretrained(d, trust_remote_code=True)\n"
    code.write_text(load + "self.tokenizer.pad_token = self.tokenizer.eos_token\n")
    assert any("sets pad_token whether or not" in one for one in fill_repository(trusted, DEMAND, root).warnings)
    code.write_text(
        load + "if not self.tokenizer.pad_token:\n    self.tokenizer.pad_token = self.tokenizer.eos_token\n"
    )
    warned = [one for one in fill_repository(trusted, DEMAND, root).warnings if one.startswith("preprocessing")]
    assert warned == []


@needs_upstream
def test_the_slow_postprocessing_of_0_13_is_warned_of(build: Build, tmp_path: Path) -> None:
    root = checkout("v0.13.0", tmp_path / "checkout")
    assert fill_repository(build, DEMAND, root).warnings == ()
    code = root / "all_models" / "inflight_batcher_llm" / "postprocessing" / "1" / "model.py"
    code.write_text("        vocab_size = len(self.tokenizer.vocab)\n")
    (warning,) = fill_repository(build, DEMAND, root).warnings
    assert "40 ms a token" in warning


# --- Files, record and page ------------------------------------------------------------------------------------------


@needs_upstream
def test_files_are_copied_and_the_engine_is_not(build: Build, tmp_path: Path) -> None:
    filled = fill(build, tmp_path, "v0.19.0")
    (tmp_path / "repository" / "ensemble" / "9").mkdir(parents=True)  # of a run before
    filled.write(tmp_path / "repository")
    found = {path.relative_to(tmp_path / "repository").as_posix() for path in (tmp_path / "repository").rglob("*")}
    assert {"ensemble/1", "ensemble/config.pbtxt", "preprocessing/1/model.py", "tensorrt_llm_bls/1/model.py"} <= found
    assert not any("engine" in Path(name).name or "/9" in name for name in found)


@needs_upstream
def test_the_checkpoints_model_is_told_as_the_path_direct(build: Build, tmp_path: Path) -> None:
    checkpoint = replace(build, kind="pytorch", tp=2, llm_args={"moe_backend": "CUTLASS", "kv_cache_config": {"x": 1}})
    root = checkout("v1.x-main", tmp_path / "checkout", "llmapi")
    demand = Demand(8, kv_cache_tokens=4096, overrides=read_overrides(["tensorrt_llm.max_num_tokens=256"]))
    filled = fill_repository(checkpoint, demand, root)
    told = yaml.safe_load(filled.files["tensorrt_llm/1/model.yaml"])
    assert told["model"] == str(build.directory.resolve())
    assert (told["backend"], told["tensor_parallel_size"], told["moe_backend"]) == ("pytorch", 2, "CUTLASS")
    assert told["kv_cache_config"] == {"x": 1, "max_tokens": 4096, "enable_block_reuse": False}
    assert told["triton_config"] == {"max_batch_size": 0, "decoupled": True}
    assert told["max_num_tokens"] == 256
    assert "model_transaction_policy { decoupled: true }" in filled.files["tensorrt_llm/config.pbtxt"]
    assert filled.as_json()["kind"] == "llmapi"


def test_a_policy_that_is_there_is_left() -> None:
    config = "name: x\nmodel_transaction_policy {\n  decoupled: true\n}\n"
    assert with_policy(config) == (config, False)


@needs_upstream
def test_record_page_and_terminal_say_what_was_filled_and_what_is_wrong(build: Build, tmp_path: Path) -> None:
    demand = replace(DEMAND, overrides=read_overrides(["postprocessing.postprocessing_instance_count=4"]))
    record = json.loads(json.dumps(fill(build, tmp_path, "v0.19.0", demand).as_json()))
    sessions = [{"path": "direct"}, {"repository": record}, {"repository": record}]
    section = repository_section({"sessions": sessions}, None)
    assert section is not None
    (table,) = section.tables
    rows = {row[0].text: [text.text for text in row] for row in table.rows}
    assert rows["postprocessing_instance_count"][1:3] == ["4", "--set"]
    assert rows["triton_max_batch_size"][3].count(",") == 4
    assert any(note.startswith("Warning: postprocessing has 4 instances") for note in section.notes)
    assert any("max_attention_window_size" in note for note in section.notes)
    lines = repository_text(record).splitlines()
    assert lines[-1].startswith("! postprocessing has 4 instances")
    assert any(line.split()[:2] == ["bls_instance_count", "16"] for line in lines)
    assert repository_section({"sessions": [{"path": "direct"}]}, None) is None
