"""What is known of an engine build, whatever era it is of. Data alone: nothing is read here. Standard library only."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

REFERENCE_VERSION = "reference-1"
"""The ``version`` of a reference build's config.json; TensorRT-LLM's are numbers such as ``0.16.0``."""

BuildKind = Literal["reference", "tensorrt_llm", "pytorch"]
"""Which runtime loads it: the reference engine's, a TensorRT engine's, or TensorRT-LLM's PyTorch backend."""

Layout = Literal["builder_config", "build_config", "checkpoint"]
"""Era of the directory: engines of 0.5 to 0.7, engines of 0.8 and later, or a Hugging Face checkpoint."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine was built for, in requests and tokens; None where its configuration does not say."""

    max_batch_size: int | None
    max_input_len: int | None
    max_seq_len: int | None  # prompt and output together
    max_num_tokens: int | None = None  # in one step, over all requests
    max_beam_width: int | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """The model's size, whole, over all ranks; None where the configuration does not say."""

    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    hidden: int | None = None
    intermediate: int | None = None  # of one expert
    vocabulary: int | None = None
    experts: int | None = None
    kv_latent: int | None = None  # width of the compressed cache of multi-head latent attention
    gated: bool = True  # three matrices in a feed-forward layer, not two
    tied_embeddings: bool = False


@dataclass(frozen=True, slots=True)
class Build:
    """An engine directory that was read, not loaded."""

    name: str
    directory: Path
    kind: BuildKind
    version: str | None  # of TensorRT-LLM; None where the directory does not say
    architecture: str
    dtype: str
    limits: Limits
    fingerprint: str  # "sha256:…" over the configuration and every engine or weight file
    engine_bytes: int  # engine or weight files of all ranks
    python: str = sys.executable  # the interpreter that can load it, inside ``container`` when there is one
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json as it is
    layout: Layout = "build_config"
    quantisation: str | None = None  # TensorRT-LLM's name of the algorithm, e.g. "W8A16"
    kv_dtype: str | None = None
    tp: int = 1
    pp: int = 1
    cp: int = 1
    plugins: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape = field(default_factory=Shape)
    rank_bytes: tuple[int, ...] = ()  # engine file of each rank; empty for a checkpoint
    parameter_bytes: int | None = None  # estimate, over all ranks
    kv_bytes_per_token: int | None = None  # over all ranks
    inflight_off: str | None = None  # why in-flight batching cannot be used; None: it can
    tokenizer: Path | None = None  # a Hugging Face tokenizer's directory
    trust_remote_code: bool = False  # may that tokenizer, or checkpoint, run Python of its own?
    container: tuple[str, ...] = ()  # command that ``python …`` is appended to
    llm_args: Mapping[str, Any] = field(default_factory=dict)  # a checkpoint's arguments to TensorRT-LLM's LLM

    @property
    def world_size(self) -> int:
        """How many ranks, thus GPUs, it runs on."""
        return self.tp * self.pp * self.cp

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU: all do, but reference builds for the host."""
        device = self.config.get("build_config", {}).get("device", "cpu")
        return self.kind != "reference" or str(device).startswith("cuda")

    @property
    def launcher(self) -> tuple[str, ...]:
        """The command that starts the interpreter that can load the build."""
        return (*self.container, self.python)


def batch_exceeded(build: Build, batch_size: int) -> str | None:
    """Say that ``build`` cannot run so many requests at once, or None.

    More than its own are no reason where in-flight batching works: the requests beyond them wait in its queue. An
    engine without it runs whole batches.
    """
    largest = build.limits.max_batch_size
    if build.inflight_off and largest is not None and batch_size > largest:
        return f"batch size {batch_size} exceeds the build's max_batch_size {largest}, and it has no in-flight batching"
    return None


def limit_exceeded(limits: Limits, prompt_tokens: int, output_tokens: int) -> str | None:
    """Say which of ``limits`` one request exceeds, or None."""
    if limits.max_input_len is not None and prompt_tokens > limits.max_input_len:
        return f"prompt {prompt_tokens} tokens exceed the build's max_input_len {limits.max_input_len}"
    if limits.max_seq_len is not None and prompt_tokens + output_tokens > limits.max_seq_len:
        asked = f"prompt {prompt_tokens} + output {output_tokens} tokens"
        return f"{asked} exceed the build's max_seq_len {limits.max_seq_len}"
    return None
