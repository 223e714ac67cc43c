"""Of an endpoint that several servers stand for: which server got how much of each path's requests."""

from collections.abc import Sequence
from pathlib import Path

from enginebench.report.cells import Json, cells_of
from enginebench.report.figures import Section
from enginebench.report.units import DASH, scale_for
from enginebench.report.view import Column, Table, Text

LEAD = (
    "Several servers were measured as one endpoint, and took requests in turn: every number of this page is of all of "
    "them together where no server is named. Means are over the requests of all measured rounds of a path."
)
COLUMNS = (Column("Path", numeric=False), Column("Server", numeric=False), Column("Requests"), Column("Share"))


def shares_section(run: Json, _directory: Path | None) -> Section | None:
    """What each server got; None where each path led to one."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for cell in cells_of(run):
        for share in cell.record.get("shares") or ():
            groups.setdefault((cell.path, share["server"]), []).append(share)
    if not groups:
        return None
    means_s = {key: _mean_s(shares) for key, shares in groups.items()}
    scale = scale_for("s", means_s.values())
    rows = []
    for (path, server), shares in groups.items():
        requests = sum(share["requests"] for share in shares)
        of_path = sum(share["requests"] for (other, _), every in groups.items() if other == path for share in every)
        mean_s, tokens = means_s[path, server], [share["output_tokens"] for share in shares]
        rows.append(
            (
                Text(path, path=path),
                Text(server),
                Text(f"{requests:,}"),
                Text(f"{requests / of_path:.1%}", share=requests / of_path),
                Text(DASH, "not told by this server") if None in tokens else Text(f"{sum(tokens):,}"),
                Text(DASH, "it got no request") if mean_s is None else Text(scale.number(mean_s)),
            )
        )
    columns = (*COLUMNS, Column("Output tokens"), Column("Mean E2E latency", scale.symbol))
    return Section("shares", "Server by server", LEAD, tables=(Table("What each server got", columns, tuple(rows)),))


def _mean_s(shares: Sequence[Json]) -> float | None:
    """Over all requests; None without any."""
    known = [(share["requests"], share["mean_e2e_latency_s"]) for share in shares if share["requests"]]
    return sum(requests * mean_s for requests, mean_s in known) / sum(each for each, _ in known) if known else None
