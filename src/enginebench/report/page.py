"""Writes ``report.html``: one offline file, the same bytes for the same record."""

import json
from collections.abc import Mapping
from pathlib import Path

from enginebench.report.model import page_of
from enginebench.report.view import Page
from enginebench.store import load_run, write_text

EMBEDDED_LIMIT_BYTES = 400_000
"""A record larger than this stays beside the page, so that the page keeps below 6 MB."""


def write_report(run_dir: Path) -> Path:
    """Write the page of the run in ``run_dir`` and return its path.

    Raises:
        RunError: there is no readable run, or the page cannot be written.
    """
    run = load_run(run_dir)
    target = run.directory / "report.html"
    write_text(target, render(page_of(run.data)))
    return target


def render(page: Page) -> str:
    """The HTML of ``page``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from enginebench.report.charts import chart_json, plotly_script

    environment = Environment(
        loader=PackageLoader("enginebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("run.html.j2")
    return template.render(
        page=page,
        chart_specs={chart.id: Markup(_inert(chart_json(chart))) for chart in page.charts},  # noqa: S704
        plotly=Markup(plotly_script()) if page.charts else "",  # noqa: S704
        run_json=Markup(_inert(_embedded(page.run_json))),  # noqa: S704
    )


def _embedded(run: Mapping[str, object]) -> str:
    text = json.dumps(run, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text if len(text.encode()) <= EMBEDDED_LIMIT_BYTES else json.dumps({"left_out": "too large; see run.json"})


def _inert(text: str) -> str:
    """JSON that cannot end the script element around it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
