"""What a person sees while a run is under way: one live line for the cell at hand, one line for every cell that ended.

Where the output is not a terminal only the lines of ended cells are written.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text


class Progress:
    """Counts cells, rounds and tokens; times are taken from what has been measured so far and the plan's estimate."""

    def __init__(self, total_cells: int, estimate_s: float):
        self._total = total_cells
        self._left_s = estimate_s
        self._console = Console(highlight=False, soft_wrap=True)
        self._done = 0
        self._spent_s = 0.0
        self._expected_s = 0.0
        self._cell = ""
        self._round = ""
        self._round_started_s = 0.0
        self._live: Live | None = None

    @contextmanager
    def cell(self, cell_id: str, estimate_s: float) -> Iterator[None]:
        """Show ``cell_id`` as the cell at hand until the block ends."""
        self._cell, self._round = cell_id, "starting"
        started_s = time.monotonic()
        try:
            with Live("", console=self._console, transient=True, refresh_per_second=4) as self._live:
                self._show()
                yield
        finally:
            self._live = None
            self._done += 1
            self._left_s -= estimate_s
            self._expected_s += estimate_s
            self._spent_s += time.monotonic() - started_s

    def ended(self, text: str) -> None:
        """Write the line of the cell that ended last."""
        number = f"{self._done + (self._live is not None):>{len(str(self._total))}}"
        self._console.print(f"[{number}/{self._total}] {self._cell}  {text}", markup=False)

    def round(self, label: str) -> None:
        """Show that a round began, e.g. ``round 2/5``."""
        self._round, self._round_started_s = label, time.monotonic()
        self._show()
        if self._live is not None:
            self._live.refresh()  # a short round would be over before the next time that it is drawn

    def tokens(self, count: int, finished_requests: int) -> None:
        """Show how the round at hand gets on: about ``count`` tokens so far."""
        elapsed_s = max(time.monotonic() - self._round_started_s, 1e-3)
        self._show(f"{count / elapsed_s:,.0f} tokens/s, {finished_requests} requests done")

    def _show(self, detail: str = "") -> None:
        if self._live is None:
            return
        parts = [f"cell {self._done + 1} of {self._total}", self._cell, self._round, detail, self._time_left()]
        self._live.update(Text("  ".join(part for part in parts if part), style="dim"))

    def _time_left(self) -> str:
        pace = self._spent_s / self._expected_s if self._expected_s else 1.0
        minutes = max(self._left_s, 0) * pace / 60
        return f"about {minutes:.0f} min left" if minutes >= 1 else "under a minute left"
