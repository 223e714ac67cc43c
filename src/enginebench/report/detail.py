"""The cells that a page shows request by request, and what their tables say of them, read once for all parts.

Every cell has its numbers in the tables of the page; a run of hundreds of cells is shown in depth for some alone.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from enginebench.report.aggregates import CellAggregates, cell_aggregates
from enginebench.report.cells import CellView, Json, cells_of
from enginebench.report.compare import reference_load
from enginebench.store import Run

MAX_GROUPS = 6
"""Of scenario, answer length and mode: more than this make the page slow."""


class Detail:
    """Looks into the tables of a run. Not for several threads."""

    def __init__(self, run: Json, directory: Path | None):
        self.run = run
        self.cells = cells_of(run)
        self._run = None if directory is None else Run(directory, run)
        self._known: dict[str, CellAggregates | None] = {}

    def of(self, cell: CellView) -> CellAggregates | None:
        """What is known of the requests of ``cell``; None where there are no records.

        Raises:
            RunError: the tables cannot be read.
        """
        if self._run is None:
            return None
        if cell.id not in self._known:
            self._known[cell.id] = cell_aggregates(self._run, cell.id)
        return self._known[cell.id]

    def reference(self) -> Iterator[tuple[CellView, CellAggregates]]:
        """The cells of the run's reference load that left records, a path each."""
        return self._with_records(reference_load(self.cells))

    def groups(self) -> Iterator[Sequence[tuple[CellView, CellAggregates]]]:
        """For each scenario, mode and length of answers: the cells of its own reference load that left records."""
        chosen = 0
        for _, members in groupby(self.cells, key=lambda cell: (cell.scenario, cell.streaming, cell.output_words)):
            group = tuple(self._with_records(reference_load(list(members))))
            if group and chosen < MAX_GROUPS:
                chosen += 1
                yield group

    def _with_records(self, cells: Sequence[CellView]) -> Iterator[tuple[CellView, CellAggregates]]:
        for cell in cells:
            if (found := self.of(cell)) is not None:
                yield cell, found
