"""Cells: what one pytest item measures. Standard library only: workers import this."""

from dataclasses import dataclass

from enginebench.plan.load import Batch, Load

PATHS = ("direct", "core", "ensemble", "bls", "llmapi", "openai-completions", "openai-chat")
"""Every way that a request can take to a build, in the order of the layers."""

ID_PATHS = ("direct", "core")
"""Those that take prompts as token ids; to the others they go as text."""

DEFAULT_PATHS = ("direct", "ensemble")


@dataclass(frozen=True, slots=True)
class Cell:
    """Scenario × path × load point × output length."""

    scenario: str
    path: str
    streaming: bool
    output_tokens: int
    load: Load
    output_stdev: float = 0.0  # 0: every answer has exactly ``output_tokens``, else that is their mean

    @property
    def id(self) -> str:
        """The key that joins builds, e.g. ``novel-zh-ensemble-stream-out1024-bs008``; numbers are padded for ``-k``."""
        return f"{self.scenario}-{self.path}-{self.shape}"

    @property
    def shape(self) -> str:
        """What the cell has in common with its siblings on the other paths, e.g. ``stream-out1024-bs008``."""
        mode = "stream" if self.streaming else "nostream"
        return f"{mode}-out{self.output_tokens:04d}{self._spread}-{self.load.label}"

    @property
    def parameters(self) -> tuple[str, str, bool, int | str, str]:
        """Scenario, path, streaming, output tokens and load as plain values: no two cells share all of them."""
        output = f"{self.output_tokens}{self._spread}" if self._spread else self.output_tokens
        return self.scenario, self.path, self.streaming, output, self.load.label

    @property
    def batch_size(self) -> int | None:
        """How many requests leave at once; None where the load is no batch."""
        return self.load.size if isinstance(self.load, Batch) else None

    @property
    def _spread(self) -> str:
        return f"sd{self.output_stdev:g}" if self.output_stdev else ""
