"""The parquet files of a run: a row per request, a row per arrival, read back whole, in part, or a part at a time.

The one place that knows pyarrow. Nothing is computed here.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from enginebench.errors import RunError
from enginebench.files import sync, write_aside
from enginebench.measure.records import (
    ChunkTable,
    Ints,
    RequestTable,
    RoundRecord,
    Stamps,
    columns,
    head,
    int_array,
)

ROWS_AT_A_TIME = 1_000_000
"""Rows of a row group, and of a part that is read at once: some 20 MB."""

_TEXTS = ("outcome", "error")


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Some arrivals of one round, in their order; columns of shape (arrivals,), as in ``ChunkTable``."""

    place: int  # of the round among the cell's rounds
    request: Ints
    stamp_ns: Stamps
    tokens: Ints


def write_rounds(directory: Path, rounds: Sequence[RoundRecord]) -> None:
    """Write both files of a cell at once: ``directory`` is filled aside and renamed."""
    aside = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        write_table(_request_rows(rounds), aside / "requests.parquet")
        write_table(_chunk_rows(rounds), aside / "chunks.parquet")
        if directory.exists():
            shutil.rmtree(directory)
        aside.rename(directory)
        sync(directory.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _request_rows(rounds: Sequence[RoundRecord]) -> Any:
    """A row per request; what is said of the rounds as a whole stands in the file's metadata."""
    heads = json.dumps([head(record) for record in rounds])
    return _rows(rounds, [columns(record.requests) for record in rounds]).replace_schema_metadata({"rounds": heads})


def _chunk_rows(rounds: Sequence[RoundRecord]) -> Any:
    return _rows(rounds, [columns(record.chunks) | {"token_ids": _ids(record.chunks)} for record in rounds])


def _ids(chunks: ChunkTable) -> Any:
    """The ids as a list per chunk."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(np.concatenate([[0], chunks.id_ends()]).astype(np.int32), chunks.token_ids)


def _rows(rounds: Sequence[RoundRecord], tables: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa

    lengths = [len(table["request" if "request" in table else "index"]) for table in tables]
    place = pa.array(np.repeat(np.arange(len(rounds), dtype=np.int32), lengths))
    joined = {name: pa.chunked_array([_arrow(name, table[name]) for table in tables]) for name in tables[0]}
    return pa.table({"round": place, **joined})


def _arrow(name: str, values: Any) -> Any:
    import pyarrow as pa

    types = {"outcome": pa.string(), "error": pa.string()}
    return values if isinstance(values, pa.Array) else pa.array(values, type=types.get(name))


def read_rounds(directory: Path) -> list[RoundRecord]:
    """The records of the cell in ``directory``, whole."""
    import pyarrow.parquet as pq

    requests, chunks = (pq.read_table(directory / name) for name in ("requests.parquet", "chunks.parquet"))
    heads = _heads(requests)
    return [
        RoundRecord(requests=_request_table(rows), chunks=_chunk_table(arrivals), **each)
        for rows, arrivals, each in zip(_parts(requests, len(heads)), _parts(chunks, len(heads)), heads, strict=True)
    ]


def read_requests(directory: Path) -> list[RoundRecord]:
    """The records of the cell in ``directory`` without their arrivals."""
    import pyarrow.parquet as pq

    table = pq.read_table(directory / "requests.parquet")
    nothing = np.array([], dtype=np.int64)
    none = ChunkTable(int_array([]), nothing, nothing, int_array([]), int_array([]))
    heads = _heads(table)
    return [
        RoundRecord(requests=_request_table(rows), chunks=none, **each)
        for rows, each in zip(_parts(table, len(heads)), heads, strict=True)
    ]


def read_arrivals(directory: Path) -> Iterator[Arrivals]:
    """The arrivals of the cell in ``directory``, at most a row group at a time, never of two rounds at once."""
    import pyarrow.parquet as pq

    names = ["round", "request", "stamp_ns", "tokens"]
    with pq.ParquetFile(directory / "chunks.parquet") as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_A_TIME, columns=names, use_threads=True):
            places, request, stamp_ns, tokens = (batch.column(name).to_numpy() for name in names)
            ends = [*(np.flatnonzero(np.diff(places)) + 1), len(places)]
            for start, end in zip([0, *ends[:-1]], ends, strict=True):
                if start < end:
                    yield Arrivals(int(places[start]), request[start:end], stamp_ns[start:end], tokens[start:end])


def write_columns(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as the parquet file ``path``; its directory is made."""
    import pyarrow as pa

    write_table(pa.table({name: list(values) for name, values in table.items()}), path)


def read_columns(path: Path) -> dict[str, Any]:
    """The columns of the parquet file ``path``: arrays of numbers, lists of texts; empty when there is no such file.

    Raises:
        RunError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are among these
        raise RunError(f"{path} cannot be read ({error}); it is damaged.") from error
    return {
        name: table[name].to_pylist() if pa.types.is_string(table[name].type) else table[name].to_numpy()
        for name in table.column_names
    }


def _heads(requests: Any) -> list[dict[str, Any]]:
    heads: list[dict[str, Any]] = json.loads(requests.schema.metadata[b"rounds"])
    return heads


def _parts(table: Any, rounds: int) -> list[Any]:
    """The rows of each round, which lie together and in order; not copied."""
    ends = np.searchsorted(table["round"].to_numpy(), np.arange(rounds), side="right")
    rows = table.drop_columns(["round"])
    return [rows.slice(start, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _request_table(rows: Any) -> RequestTable:
    values: dict[str, Any] = {name: rows[name].to_numpy() for name in rows.column_names if name not in _TEXTS}
    values |= {name: _texts(rows[name]) for name in _TEXTS}
    return RequestTable(**values)


def _texts(column: Any) -> tuple[str, ...]:
    """The texts of a column; equal ones are one object, since a million outcomes are of seven kinds."""
    words = column.combine_chunks().dictionary_encode()
    return tuple(np.array(words.dictionary.to_pylist(), dtype=object)[words.indices.to_numpy()])


def _chunk_table(rows: Any) -> ChunkTable:
    ids = rows["token_ids"].combine_chunks().flatten().to_numpy()
    arrays = {name: rows[name].to_numpy() for name in ("request", "stamp_ns", "read_ns", "tokens")}
    return ChunkTable(**arrays, token_ids=int_array(ids))


def write_table(table: Any, path: Path) -> None:
    """Write the arrow ``table`` to ``path``, aside first."""
    write_parts([table], table.schema, path)


def write_parts(tables: Iterable[Any], schema: Any, path: Path) -> None:
    """Write arrow ``tables`` of one ``schema`` below each other, in row groups that can be read one by one."""
    import pyarrow.parquet as pq

    # Neighbouring stamps differ by microseconds: their differences take a quarter of the space.
    stamps = {name: "DELTA_BINARY_PACKED" for name in schema.names if name.endswith("_ns")}
    others = [name for name in schema.names if name not in stamps]

    def write(aside: Path) -> None:
        with pq.ParquetWriter(
            aside, schema, compression="zstd", use_dictionary=others, column_encoding=stamps or None
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=ROWS_AT_A_TIME)

    write_aside(path, write)
