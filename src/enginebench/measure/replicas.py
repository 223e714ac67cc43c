"""What each of several servers got of a round: replicas are measured as one endpoint, and each has its share. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.measure.records import RequestTable, RoundRecord, columns, int_array
from enginebench.plan.requests import server_of


def parts_of(record: RoundRecord, servers: int) -> list[RoundRecord]:
    """The round divided by server, without token ids; window and load stay those of the whole round."""
    return [_part(record, place, servers) for place in range(servers)]


def shares(urls: Sequence[str], rounds: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """The ``shares`` of a cell in run.json: what the servers at ``urls`` got of its measured ``rounds``."""
    divided = [parts_of(record, len(urls)) for record in rounds]
    return [{"server": url, **_share([parts[place].requests for parts in divided])} for place, url in enumerate(urls)]


def _share(tables: Sequence[RequestTable]) -> dict[str, Any]:
    """``output_tokens`` None: nobody tells."""
    tokens = np.concatenate([table.tokens for table in tables])
    latencies_ns = np.concatenate([table.last_ns - table.intended_ns for table in tables])
    return {
        "requests": len(tokens),
        "output_tokens": int(tokens.sum()) if (tokens >= 0).all() else None,
        "mean_e2e_latency_s": float(latencies_ns.mean()) / 1e9 if len(tokens) else None,
    }


def _part(record: RoundRecord, place: int, servers: int) -> RoundRecord:
    def rows(index: NDArray[np.int32]) -> NDArray[np.bool_]:
        mine: NDArray[np.bool_] = server_of(index, record.round_index, servers) == place
        return mine

    chunks = {name: values for name, values in columns(record.chunks).items() if name != "token_ids"}
    mine = rows(record.chunks.request)
    return replace(
        record,
        requests=RequestTable(**_chosen(columns(record.requests), rows(record.requests.index))),
        chunks=replace(record.chunks, **_chosen(chunks, mine), token_ids=int_array([])),
    )


def _chosen(table: dict[str, Any], rows: NDArray[np.bool_]) -> dict[str, Any]:
    places = np.flatnonzero(rows)
    return {
        name: tuple(values[place] for place in places) if isinstance(values, tuple) else values[rows]
        for name, values in table.items()
    }
