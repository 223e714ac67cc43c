"""The reference engine: a small decoder-only transformer in one stage, or in several that follow each other.

Schedules nothing and samples nothing. What it computes: ``reference.stage``; numpy by default.

BLAS must run on one thread for speeds to be comparable: whoever starts the process sets ``OMP_NUM_THREADS=1`` and
``OPENBLAS_NUM_THREADS=1`` before numpy is imported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.builds.build import Limits, read_config
from enginebench.reference.ops import ArrayOps
from enginebench.reference.options import ReferenceOptions, options_from_config
from enginebench.reference.stage import Span, Stage
from enginebench.reference.weights import read_weights, stage_of


@dataclass(frozen=True, slots=True)
class Scores:
    """What a step says of the token after each span: valid until the next step."""

    best: Sequence[int]  # the likeliest id, by span
    logits: Sequence[Any]  # (vocab_size,) by span, where the engine computes
    on_host: Callable[[Any], Any]

    def row(self, index: int) -> NDArray[Any]:
        """Return the logits after the span ``index``."""
        return np.asarray(self.on_host(self.logits[index]))


def load_engine(directory: Path) -> "Engine":
    """Load a reference build. Raises BuildError when ``directory`` is none, is damaged, or cannot run here."""
    options = options_from_config(read_config(directory))
    if options.device == "cuda":
        from enginebench.reference.cuda import open_cuda_engine

        return open_cuda_engine(options)
    return Engine(options, read_weights(directory / "rank0.engine", options))


class Engine:
    """Weights and KV cache; used by one thread. ``ops``: of each of the build's stages."""

    def __init__(
        self, options: ReferenceOptions, weights: Mapping[str, Any], ops: Sequence[ArrayOps] | None = None
    ) -> None:
        self.options = options
        self.limits = Limits(options.max_batch_size, options.max_input_len, options.max_seq_len)
        by_stage: list[dict[str, Any]] = [{} for _ in options.stages]
        for name, tensor in weights.items():
            by_stage[stage_of(name, options.stages)][name] = tensor
        parts = zip(options.stages, by_stage, ops or [_numpy_ops(options.dtype)], strict=True)
        self.stages = [Stage(options, *part) for part in parts]

    def facts(self) -> dict[str, Any]:
        """Where and in what it computes, and the bytes that it holds: of weights, and of the KV pool, filled or not."""
        options = self.options
        pool = sum(stage.pool_bytes for stage in self.stages)
        return {
            "device": options.device,
            "dtype": options.dtype,
            "weight_bytes": sum(stage.weight_bytes for stage in self.stages),
            "kv_pool_bytes": pool,
            "kv_pool_tokens": options.max_batch_size * options.max_seq_len,
            "kv_bytes_per_token": pool // (options.max_batch_size * (options.max_seq_len + 1)),
        }

    def forward(self, spans: Sequence[Span]) -> Scores:
        """Compute ``spans``, fill their KV, and score the token after each span's last."""
        given: Any = [token_id for span in spans for token_id in span.token_ids]
        for stage in self.stages:
            given = stage.forward(given, spans)
        best, logits = given
        return Scores(best.tolist(), logits, self.stages[-1].ops.on_host)


def _numpy_ops(dtype: str) -> ArrayOps:
    import array_api_compat.numpy

    return ArrayOps(array_api_compat.numpy, dtype)
