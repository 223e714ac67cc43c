"""Why a server with TensorRT-LLM did not start or died, told from what it wrote, and what to do about it. Pure.

Triton buries the one line that matters under a hundred others and ends with "failed to load all models". The patterns
are those of TensorRT-LLM 0.5 to 1.x and of Triton 2.39 and later, as users have posted them; the order matters, since
one fault often causes the next.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """A known fault: its short name, and a sentence that says what is wrong and what helps."""

    name: str
    sentence: str


# Name, what the log says, what it means. {0}, {1}: what the pattern caught. The first that matches counts.
_REASONS: tuple[tuple[str, str, str], ...] = (
    (
        "port in use",
        r"Socket '([^']*)' already in use|(Address (?:already )?in use)|(failed to start HTTP service)",
        "another program has the port ({0}); stop it, or leave the choice of a port to enginebench",
    ),
    (
        "tokenizer class missing",
        r"Tokenizer class (\w+) does not exist or is not currently imported",
        (
            "the tokenizer is of class {0}, which is Python of the checkpoint's own, and these templates do not load "
            "that; use templates of 0.7.0 or later, which do, with the checkpoint's *.py files beside "
            "tokenizer_config.json"
        ),
    ),
    (
        "remote code refused",
        r"requires you to execute the \w+ file in that repo|set the option `trust_remote_code=True`",
        "the tokenizer brings Python of its own, and these templates do not allow it; use templates of 0.7.0 or later",
    ),
    (
        "pad_token cannot be set",
        (
            r"property '(?:pad_token|eos_token)' of '(?:[\w.<>]+\.)?(\w+)' object has no setter"
            r"|can't set attribute '?pad_token"
        ),
        (
            "the templates set the tokenizer's pad_token, which {0} computes; use templates of 0.12 or later, which "
            "leave one alone, or put `if not self.tokenizer.pad_token:` before that line of preprocessing/1/model.py "
            "and postprocessing/1/model.py in a copy, and name the copy with --templates"
        ),
    ),
    (
        "tokenizer older than transformers",
        r"'(\w*Tokenizer\w*)' object has no attribute '\w+'|got an unexpected keyword argument 'padding_side'",
        (
            "the tokenizer's own Python is older than the image's transformers; install the release that the "
            "checkpoint's config.json names as transformers_version in the image"
        ),
    ),
    (
        "sentencepiece missing",
        (
            r"requires the SentencePiece library|No module named 'sentencepiece'|You need to install (?i:sentencepiece)"
            r"|not found in your environment: sentencepiece"
        ),
        "the image lacks sentencepiece, which the tokenizer needs; pip install sentencepiece there",
    ),
    (
        "Python package missing",
        r"ModuleNotFoundError: No module named '([\w.]+)'|not found in your environment: ([\w, -]+)\. Run",
        (
            "the image lacks the Python package {0}; install it for the Python that Triton's stubs run (that of the "
            "build, python=, else the first python3 on PATH)"
        ),
    ),
    (
        "unfilled template",
        r"Error parsing text-format inference\.ModelConfig: *([\d:]*\d)?|Expected \w+, (?:found|got):? \"?\$",
        (
            "a config.pbtxt is no model configuration (line and column {0}), as when a ${{variable}} was left in it; "
            "see the log for the file, and fill the variable with --set MODEL.VARIABLE=VALUE"
        ),
    ),
    (
        "backend missing",
        r"unable to find (?:backend library for backend|') ?'?(?:lib\w*_)?(tensorrtllm|python)",
        "this tritonserver has no backend {0}; use an image whose name ends in -trtllm-python-py3",
    ),
    (
        "shared memory",
        (
            r"Unable to initialize shared memory key|shared memory.*No space left on device|--shm-size"
            r"|Error while creating shared memory segment|\(Bus error\b"
        ),
        (
            "there is no room for shared memory; start the container with --shm-size=2g or more, and remove what "
            "killed servers left in /dev/shm"
        ),
    ),
    (
        "engine of another TensorRT",
        r"Current Version: (\d+), Serialized Engine Version: (\d+)",
        (
            "the engine was serialised by another TensorRT (format {1}, and this one reads {0}); build it with the "
            "TensorRT-LLM of this image, or use the image of the release that built it"
        ),
    ),
    (
        "engine of another TensorRT",
        r"expecting library version ([\d.]+\d) got ([\d.]+\d)",
        (
            "the engine was built with TensorRT {0} or {1}, and the image has the other; build it with the "
            "TensorRT-LLM of this image, or use the image of the release that built it"
        ),
    ),
    (
        "engine of another TensorRT",
        r"Version tag does not match|engine plan file is not compatible with this version of TensorRT",
        (
            "the engine was built with another TensorRT than the image's; build it with the TensorRT-LLM of this "
            "image, or use the image of the release that built it"
        ),
    ),
    (
        "engine of another TensorRT-LLM",
        r"modelInstanceState: \[json\.exception\.[\w.]+\] key '(\w+)' not found",
        (
            "the engine's config.json has no {0}, which this TensorRT-LLM looks for; build the engine with the "
            "TensorRT-LLM of this image, or use the image of the release that built it"
        ),
    ),
    (
        "engine of another GPU",
        r"incompatible device, expecting compute ([\d.]+\d) got compute ([\d.]+\d)",
        "the engine and the GPU are of different kinds (compute {0} and {1}); build the engine on this GPU",
    ),
    (
        "MPI world size",
        r"mpiSize == tp ?\* ?pp|MPI world ?[sS]ize is expected|MPI size \d+ != TP size|world size of \d+",
        (
            "TensorRT-LLM wants as many MPI ranks as the engine has, tp × pp; check that mpirun starts them all on "
            "this host, and that the engine's config.json tells the truth"
        ),
    ),
    (
        "mpirun refused",
        r"not enough slots available|mpirun has detected an attempt to run as root|PMIX ERROR|ORTE_ERROR_LOG",
        "mpirun could not start the ranks; see its own words in the log (in a container PMIX_MCA_gds=hash may help)",
    ),
    (
        "out of memory",
        r"out of memory|OutOfMemory(?:Error| \()|CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|std::bad_alloc",
        (
            "memory ran out; free the GPU of other processes (nvidia-smi), or take less with a smaller max_batch_size, "
            "--engine kv_cache_tokens=N or --engine kv_cache_fraction=F"
        ),
    ),
    (
        "engine file missing",
        r"(?i:error opening|could not open) engine file:? *(\S+)|(\S*rank\d+\.engine)\b.*(?i:no such file|not exist)",
        "the server cannot read the engine {0}; check that the path is the same in its container, and readable",
    ),
)


def reason_of(log: str) -> Reason | None:
    """The first known fault that the text of a log shows; None: nothing that is known here."""
    for name, pattern, meaning in _REASONS:
        if match := re.search(pattern, log):
            found = [group for group in match.groups() if group]
            return Reason(name, meaning.format(*found, *["?"] * 2))
    return None
