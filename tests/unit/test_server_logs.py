"""What failures of TensorRT-LLM in Triton look like in a log, and what is made of them. Lines as users posted them."""

from pathlib import Path

import pytest

from enginebench.server.logs import explain_ending, last_lines, reason_in
from enginebench.server.reasons import reason_of

LINES = {
    "tokenizer class missing": (
        ('I0104 pb_stub.cc] "Failed to initialize Python stub: ValueError: Tokenizer class ChatGLMTokenizer does not '
        'exist or is not currently imported.\\n\\nAt:\\n  /usr/lib/python3/transformers/models"'),
        ["ChatGLMTokenizer", "templates of 0.7.0 or later"],
    ),
    "pad_token cannot be set": (
        ("E1207 model_lifecycle.cc:621] failed to load 'preprocessing' version 1: Internal: AttributeError: property "
        "'pad_token' of 'ChatGLMTokenizer' object has no setter"),
        ["ChatGLMTokenizer computes", "0.12 or later", "--templates"],
    ),
    "tokenizer older than transformers": (
        "AttributeError: 'ChatGLMTokenizer' object has no attribute 'tokenizer'",
        ["transformers_version"],
    ),
    "sentencepiece missing": (
        ("Internal: ImportError: LlamaTokenizer requires the SentencePiece library but it was not found in your "
        "environment."),
        ["pip install sentencepiece"],
    ),
    "Python package missing": (
        "Internal: ModuleNotFoundError: No module named 'transformers'",
        ["package transformers"],
    ),
    "engine of another TensorRT": (
        ("[TensorRT-LLM][ERROR] 6: The engine plan file is not compatible with this version of TensorRT, expecting "
        "library version 9.2.0.5 got 9.3.0.1, please rebuild."),
        ["9.2.0.5 or 9.3.0.1", "TensorRT-LLM of this image"],
    ),
    "engine of another GPU": (
        ("[TRT] [E] 6: The engine plan file is generated on an incompatible device, expecting compute 8.0 got compute "
        "8.9, please rebuild."),
        ["compute 8.0 and 8.9", "on this GPU"],
    ),
    "MPI world size": (
        ("Internal: unexpected error when creating modelInstanceState: [TensorRT-LLM][ERROR] Assertion failed: mpiSize "
        "== tp * pp (/app/tensorrt_llm/cpp/tensorrt_llm/runtime/worldConfig.cpp:80)"),
        ["tp × pp", "mpirun"],
    ),
    "shared memory": (
        ("Internal: Unable to initialize shared memory key 'triton_python_backend_shm_region_3' to requested size "
        "(67108864 bytes). If you are running Triton inside docker, use '--shm-size' flag to control the shared memory "
        "region size. Each Python backend model instance requires at least 64MBs of shared memory. Error: No space "
        "left on device"),
        ["--shm-size=2g"],
    ),
    "port in use": (
        "E1122 http_server.cc:4914] Socket '127.0.0.1:9101' already in use",
        ["127.0.0.1:9101"],
    ),
    "out of memory": (
        ("E1103 backend_model.cc:553] ERROR: Failed to create instance: unexpected error when creating "
        "modelInstanceState: [TensorRT-LLM][ERROR] CUDA runtime error in ::cudaMallocAsync(ptr, n, "
        "mCudaStream->get()): "
        "out of memory (/app/tensorrt_llm/cpp/tensorrt_llm/runtime/tllmBuffers.h:112)"),
        ["kv_cache_fraction", "nvidia-smi"],
    ),
    "unfilled template": (
        ('[libprotobuf ERROR text_format.cc:337] Error parsing text-format inference.ModelConfig: 29:17: Expected '
        'integer, got: $'),
        ["(line and column 29:17)", "--set MODEL.VARIABLE=VALUE"],
    ),
    "backend missing": (
        ("E1122 model_lifecycle.cc:654] failed to load 'tensorrt_llm' version 1: Invalid argument: unable to find "
        "backend library for backend 'tensorrtllm', try specifying runtime on the model configuration."),
        ["no backend tensorrtllm", "trtllm-python-py3"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LINES)
def test_the_reason_is_told_with_its_fix(name: str) -> None:
    line, words = LINES[name]
    log = f"I1122 model_lifecycle.cc:472] loading: tensorrt_llm:1\n{line}\nerror: creating server: Internal - failed\n"
    reason = reason_of(log)
    assert reason is not None
    assert reason.name == name
    assert all(word in reason.sentence for word in words)
    assert "{" not in reason.sentence.replace("${variable}", "")


@pytest.mark.parametrize(
    ("line", "name", "words"),
    [
        (("Serialization assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match. Note: "
         "Current Version: 228, Serialized Engine Version: 237"), "engine of another TensorRT", "format 237"),
        ("AttributeError: can't set attribute 'pad_token'", "pad_token cannot be set", "0.12 or later"),
        (("[TensorRT-LLM][ERROR] Assertion failed: With communicationMode kLEADER, MPI worldSize is expected to be "
         "equal to tp*pp when participantIds are not specified"), "MPI world size", "tp × pp"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out of memory", "nvidia-smi"),
        ("Loading /m requires you to execute the configuration file in that repo on your local machine.",
         "remote code refused", "0.7.0"),
        ("[TensorRT-LLM][ERROR] Error opening engine file: /engines/rank0.engine", "engine file missing",
         "/engines/rank0.engine"),
        ("There are not enough slots available in the system to satisfy the 4", "mpirun refused", "mpirun"),
        (("ImportError: This modeling file requires the following packages that were not found in your environment: "
          "sentencepiece. Run `pip install sentencepiece`"), "sentencepiece missing", "pip install sentencepiece"),
        (("ImportError: This modeling file requires the following packages that were not found in your environment: "
          "tiktoken, einops. Run `pip install tiktoken einops`"), "Python package missing", "tiktoken, einops"),
        (("E0618 model_lifecycle.cc:641] \"failed to load 'tensorrt_llm' version 1: Internal: unexpected error when "
          "creating modelInstanceState: [json.exception.out_of_range.403] key 'builder_config' not found\""),
         "engine of another TensorRT-LLM", "has no builder_config"),
        ("misc/shmutils.cc:113 NCCL WARN Error while creating shared memory segment /dev/shm/nccl-Y4 (size 9637888)",
         "shared memory", "--shm-size=2g"),
        ("[box:18080:0:18080] Caught signal 7 (Bus error: nonexistent address)", "shared memory", "--shm-size"),
        ("[TensorRT-LLM][ERROR] [deserialize.cpp::load::572] Error Code 2: OutOfMemory (Requested size was 69 bytes.)",
         "out of memory", "nvidia-smi"),
    ],
)  # fmt: skip
def test_other_words_for_the_same(line: str, name: str, words: str) -> None:
    reason = reason_of(line)
    assert reason is not None
    assert reason.name == name
    assert words in reason.sentence


def test_what_tensorrt_llm_says_of_a_sound_engine_is_no_reason() -> None:
    assert reason_of("[TensorRT-LLM][INFO] [json.exception.out_of_range.403] key 'layer_types' not found") is None


def test_nothing_known_is_no_reason() -> None:
    assert (
        reason_of("I1122 server.cc:604] all is well\nerror: creating server: Internal - failed to load all models")
        is None
    )


def test_the_first_fault_counts_not_what_followed_it(tmp_path: Path) -> None:
    log = tmp_path / "tritonserver.log"
    log.write_text(f"{LINES['tokenizer class missing'][0]}\n{LINES['out of memory'][0]}\n")
    reason = reason_in([log])
    assert reason is not None
    assert reason.name == "tokenizer class missing"


def test_an_ending_names_reason_logs_and_last_lines(tmp_path: Path) -> None:
    logs = [tmp_path / "tritonserver.log", tmp_path / "tritonserver-rank1.log", tmp_path / "never-written.log"]
    logs[0].write_text("mpirun: ended\n")
    logs[1].write_text(LINES["out of memory"][0] + "\n")
    sentence = explain_ending(logs)
    assert sentence.startswith(": memory ran out; ")
    assert f"{logs[0]}, {logs[1]} ends with:\n  E1103 backend_model.cc:553] ERROR" in sentence
    assert "never-written" not in sentence


def test_cuda_out_of_memory_is_not_taken_for_noise(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("[TensorRT-LLM][ERROR] CUDA runtime error: out of memory\n")
    assert last_lines(tmp_path / "log") == ["[TensorRT-LLM][ERROR] CUDA runtime error: out of memory"]
