"""From a run's record to everything that its page says: strings, rows and points, no looks."""

from dataclasses import replace
from pathlib import Path

from enginebench.report.bands import over_time_section
from enginebench.report.cells import Json, cells_of
from enginebench.report.curves import load_section
from enginebench.report.detail import Detail
from enginebench.report.distributions import distributions_section
from enginebench.report.facts import facts, memory_section
from enginebench.report.gpu import gpu_section
from enginebench.report.layers import layers_section
from enginebench.report.ledger import ledger_section
from enginebench.report.pareto import pareto_section
from enginebench.report.profiles import profiles_section
from enginebench.report.repository import repository_section
from enginebench.report.roofline import roofline_section
from enginebench.report.sections import Maker, gather
from enginebench.report.server import server_section
from enginebench.report.shares import shares_section
from enginebench.report.summary import cards, date, subtitle, title, verdict
from enginebench.report.tables import anchors_of, findings, matrix, metric_table, percentiles, requests, rounds
from enginebench.report.timeline import timeline_section
from enginebench.report.view import Page


def sections_of(run: Json, directory: Path | None) -> tuple[Maker, ...]:
    """The parts below the table of cells, top to bottom. Each is left out where it has nothing to say."""
    detail = Detail(run, directory)
    return (
        load_section,
        pareto_section,
        layers_section,
        lambda *_: distributions_section(detail),
        lambda *_: over_time_section(detail),
        lambda *_: timeline_section(detail),
        shares_section,
        server_section,
        gpu_section,
        roofline_section,
        ledger_section,
        memory_section,
        profiles_section,
        repository_section,
    )


def page_of(run: Json, directory: Path | None = None) -> Page:
    """Everything that the page of ``run`` (the content of run.json) shows.

    ``directory``: where its tables are; without it, only what stands in run.json is shown.

    Raises:
        RunError: the plan names something that is not a cell.
    """
    cells = cells_of(run)
    anchors = anchors_of(cells)
    card_title, card_list = cards(cells)
    sections, troubles = gather(run, directory, sections_of(run, directory))
    said = verdict(run, cells)
    return Page(
        title=title(run),
        heading=run["build"]["name"],
        subtitle=subtitle(run),
        run_id=run["id"],
        date=date(run["created"]),
        verdict=replace(said, notes=(*troubles, *said.notes)),
        card_title=card_title,
        cards=card_list,
        matrix=matrix(run, cells, anchors),
        percentiles=percentiles(cells),
        requests=requests(cells),
        sections=sections,
        rounds=rounds(cells, anchors),
        findings=findings(cells, anchors),
        facts=facts(run),
        metrics=metric_table(cells),
    )
