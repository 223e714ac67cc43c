"""The tokenizer of a build, here and in another process."""

import json
from pathlib import Path

import pytest

from enginebench.builds.build import Build, Limits, read_build
from enginebench.builds.tokenizer import open_tokenizer, tokenizer_from_spec, tokenizer_spec
from enginebench.errors import BuildError
from enginebench.reference.build import ReferenceOptions, write_build


def test_the_spec_survives_json(tmp_path: Path) -> None:
    write_build(ReferenceOptions(layers=1, hidden=16, heads=2, ffn=16, vocab_size=700), tmp_path / "build")
    build = read_build("a", tmp_path / "build")
    elsewhere = tokenizer_from_spec(json.loads(json.dumps(tokenizer_spec(build))))
    assert elsewhere == open_tokenizer(build)
    assert elsewhere.plain_ids == range(258, 700)
    assert elsewhere.identifies_ids


def test_a_build_without_a_known_tokenizer_says_so() -> None:
    limits = Limits(8, 1024, 2048)
    build = Build(
        "fp16", Path("/x"), "tensorrt_llm", "0.16.0", "LlamaForCausalLM", "float16", limits, "sha256:", 1, "py", {}
    )
    with pytest.raises(BuildError, match=r"fp16.*no known tokenizer"):
        open_tokenizer(build)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(BuildError, match="'sentencepiece'"):
        tokenizer_from_spec({"kind": "sentencepiece"})
