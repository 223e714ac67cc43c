"""Two engines loaded side by side for a whole A/B measurement, under one GPU lease."""

from collections.abc import Sequence

from enginebench.measure.lease import GpuLease
from enginebench.measure.telemetry import Telemetry
from enginebench.plan.cells import Cell
from enginebench.run.campaign import Campaign


class Residence:
    """Loads the engines of two campaigns before the first block, and gives the lease back when both are gone."""

    def __init__(self, campaigns: Sequence[Campaign], cell: Cell, telemetry: Telemetry | None = None):
        self._campaigns = campaigns
        self._cell = cell  # any one: all want the engine alike
        self._telemetry = telemetry or Telemetry()
        self._lease = GpuLease(self._telemetry)
        self._held = False  # the lease
        self._loaded = False

    def settle(self) -> None:
        """Both engines are loaded, and each side knows the processes of the other. Call it before every block.

        Raises:
            EnginebenchError: somebody else holds the GPU, or the engines cannot both be loaded.
        """
        if not self._loaded:
            with self._telemetry:
                self._lease.acquire()
            self._held = True
            for campaign in self._campaigns:
                campaign.load(self._cell)
            self._loaded = True
        for campaign, other in (self._campaigns, self._campaigns[::-1]):
            campaign.tolerate(other)

    def leave(self) -> None:
        """Give the lease back, after both campaigns were closed. Raises SessionError when memory is still held."""
        if self._held:
            with self._telemetry:
                self._lease.release()
