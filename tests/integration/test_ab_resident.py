"""Two engines side by side on a recorded GPU: one lease for both, and no number of memory that nobody can know."""

from pathlib import Path
from uuid import uuid4

import pytest

from enginebench.builds.build import read_build
from enginebench.errors import SessionError
from enginebench.measure.lease import GpuLease
from enginebench.measure.telemetry import Telemetry
from enginebench.run.ab_plan import Wishes, plan_ab
from enginebench.run.ab_resident import Residence
from enginebench.run.ab_schedule import SIDES
from enginebench.run.block import Block
from enginebench.run.campaign import Campaign
from enginebench.run.drive import drive_block
from enginebench.store import load_run
from tests.support.ab_project import CELL, AbProject
from tests.support.gpu_traces import BUSY, CARD, write_trace


def test_the_pair_holds_the_gpu_until_both_are_gone(tmp_path: Path) -> None:
    root = AbProject.make(tmp_path).root
    card = {**CARD, "uuid": f"GPU-{uuid4()}"}  # a lock of its own, also beside another run of this test
    trace = write_trace(tmp_path / "trace.jsonl", [BUSY] * 3, card)
    builds = {
        side: read_build(side, root / "builds" / name) for side, name in zip(SIDES, ("old", "equal"), strict=True)
    }
    plan = plan_ab(builds, Wishes(scenarios=("tiny",), co_resident=True), root)
    campaigns = [
        Campaign(plan.plans[side], root, ["ab"], plan.attached, telemetry=Telemetry(trace), side_by_side=True)
        for side in SIDES
    ]
    residence = Residence(campaigns, plan.cells[0], Telemetry(trace))
    try:
        for number in range(2):
            for campaign in campaigns:
                residence.settle()
                drive_block(campaign, Block(number, number), plan.cells, stay=True)
        with Telemetry(trace) as telemetry:
            stranger = GpuLease(telemetry, wait_s=0.0)
            with pytest.raises(SessionError, match="Another benchmark holds the GPU"):
                stranger.acquire()
            for campaign in campaigns:
                campaign.close()
            residence.leave()
            with stranger:
                pass
    finally:
        for campaign in campaigns:
            campaign.end()
    for campaign in campaigns:
        run = load_run(campaign.directory)
        (session,) = run.data["sessions"]
        assert session["memory"]["gpu"] is None
        assert {entry["bytes"] for entry in session["ledger"] if entry["owner"] == "extra"} == {None}
        cell = run.cells[CELL]
        assert cell["gpu"]["average_power_w"] == pytest.approx(420.0)
        assert cell["gpu"]["peak_bytes"] is None
        assert cell["memory"]["gpu_peak_bytes"] is None
        page = (run.directory / "report.html").read_text(encoding="utf-8")
        assert "cannot be told from that of the other" in page
