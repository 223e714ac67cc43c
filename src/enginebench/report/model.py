"""From a run's record to everything that its page says: strings and rows, no looks."""

from enginebench.report.cells import Json, cells_of, paths_of
from enginebench.report.curves import MAX_CHARTS, charts
from enginebench.report.facts import facts, memory
from enginebench.report.summary import PATH_WORDS, cards, date, subtitle, title, verdict
from enginebench.report.tables import anchors_of, findings, matrix, metric_table, percentiles, rounds
from enginebench.report.view import Page


def page_of(run: Json) -> Page:
    """Everything that the page of ``run`` (the content of run.json) shows.

    Raises:
        RunError: the plan names something that is not a cell.
    """
    cells = cells_of(run)
    anchors = anchors_of(cells)
    card_title, card_list = cards(cells)
    drawn = charts(cells)
    return Page(
        title=title(run),
        heading=run["build"]["name"],
        subtitle=subtitle(run),
        run_id=run["id"],
        date=date(run["created"]),
        verdict=verdict(run, cells),
        card_title=card_title,
        cards=card_list,
        matrix=matrix(run, cells, anchors),
        percentiles=percentiles(cells),
        charts=drawn[:MAX_CHARTS],
        charts_left_out=max(0, len(drawn) - MAX_CHARTS),
        legend=tuple((path, PATH_WORDS.get(path, "")) for path in paths_of(cells)),
        dashed=any(not series.streaming for chart in drawn for panel in chart.panels for series in panel.series),
        rounds=rounds(cells, anchors),
        memory=memory(run),
        findings=findings(cells, anchors),
        facts=facts(run),
        metrics=metric_table(cells),
        run_json=run,
    )
