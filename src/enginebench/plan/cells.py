"""Cells: what one pytest item measures. Standard library only: workers import this."""

from dataclasses import dataclass

PATHS = ("direct", "core", "ensemble", "bls")
"""Every way that a request can take to a build, in the order of the layers."""

DEFAULT_PATHS = ("direct", "ensemble")


@dataclass(frozen=True, slots=True)
class Cell:
    """Scenario × path × load point × output length."""

    scenario: str
    path: str
    streaming: bool
    output_tokens: int
    batch_size: int

    @property
    def id(self) -> str:
        """The key that joins builds, e.g. ``novel-zh-ensemble-stream-out1024-bs008``; numbers are padded for ``-k``."""
        return f"{self.scenario}-{self.path}-{self.shape}"

    @property
    def shape(self) -> str:
        """What the cell has in common with its siblings on the other paths, e.g. ``stream-out1024-bs008``."""
        mode = "stream" if self.streaming else "nostream"
        return f"{mode}-out{self.output_tokens:04d}-bs{self.batch_size:03d}"
