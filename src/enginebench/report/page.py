"""Writes ``report.html``: one offline file, the same bytes for the same record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.files import write_text
from enginebench.report.model import page_of
from enginebench.report.view import Shell
from enginebench.store import load_run

if TYPE_CHECKING:
    from jinja2 import Environment

EMBEDDED_LIMIT_BYTES = 400_000
"""A record larger than this stays beside the page, so that the page keeps below 6 MB."""


def write_report(run_dir: Path, target: Path | None = None) -> Path:
    """Write the page of the run in ``run_dir`` to ``target`` (default: beside its record) and return its path.

    Raises:
        RunError: there is no readable run, or the page cannot be written.
    """
    run = load_run(run_dir)
    target = target or run.directory / "report.html"
    write_text(target, render("run.html.j2", page_of(run.data, run.directory), run.data))
    return target


def render(template: str, page: Shell, record: Mapping[str, object]) -> str:
    """The HTML of ``page``: ``template`` fills the blocks of ``shell.html.j2``.

    ``record`` is embedded, so that the page is its own archive.
    """
    from markupsafe import Markup

    from enginebench.report.charts import plotly_bundle

    return (
        _environment()
        .get_template(template)
        .render(
            page=page,
            plotly=plotly_bundle() if page.draws else "",
            record=Markup(_inert(_embedded(record))),  # noqa: S704
        )
    )


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from enginebench.report.charts import chart_json, heights_px
    from enginebench.report.looks import BUILDS, PATHS, SYMBOLS, legend

    environment = Environment(
        loader=PackageLoader("enginebench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "chart_json": lambda figure: Markup(_inert(chart_json(figure))),  # noqa: S704
        "heights_px": heights_px,
        "legend": legend,
        "outlines": {role: SYMBOLS[look.symbol] for role, look in (PATHS | BUILDS).items()},
        "builds": BUILDS,
        "other_outline": SYMBOLS["hexagon"],
    }
    return environment


def _embedded(record: Mapping[str, object]) -> str:
    text = json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text if len(text.encode()) <= EMBEDDED_LIMIT_BYTES else json.dumps({"left_out": "too large; see run.json"})


def _inert(text: str) -> str:
    """JSON that cannot end the script element around it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
