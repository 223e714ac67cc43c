"""A block of a campaign, driven from begin to end without pytest."""

from collections.abc import Sequence

from enginebench.errors import EnginebenchError, RunError
from enginebench.plan.cells import Cell
from enginebench.run.block import Block
from enginebench.run.campaign import Campaign


def drive_block(campaign: Campaign, block: Block, cells: Sequence[Cell], *, stay: bool = False) -> None:
    """Load the engine anew and measure ``cells``. A cell that breaks is kept as such, and the others go on.

    ``stay``: the engine that is loaded is used, and stays loaded.

    Raises:
        EnginebenchError: the run cannot go on at all, e.g. a full disk.
    """
    campaign.begin(block)
    try:
        for cell in cells:
            drive_cell(campaign, cell)
    finally:
        campaign.end(stay=stay)


def drive_cell(campaign: Campaign, cell: Cell) -> None:
    """Warm up, run the rounds, keep the result; a cell that breaks is kept with its reason."""
    try:
        with campaign.open(cell) as cell_run:
            cell_run.warm_up()
            for _ in range(cell_run.rounds):
                cell_run.prepare()
                cell_run.run()
    except RunError:
        raise  # the record of the run itself: nothing that is measured now could be kept
    except EnginebenchError:
        return  # the campaign has kept it
    campaign.result(cell, cell_run)
