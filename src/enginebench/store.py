"""Runs on disk: what one invocation measured, written so that an interruption loses at most the cell in flight.

A run is a directory with ``run.json`` (small: everything that tables and pages need), and a parquet file per cell for
requests and one for arrivals. Every file is written aside, synced and renamed. Nothing is computed here.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from enginebench.errors import RunError
from enginebench.measure.records import ChunkTable, RequestTable, RoundRecord, columns, head, int_array

if TYPE_CHECKING:
    from enginebench.measure.telemetry import Sample

SCHEMA = "enginebench/run/1"
"""Version of run.json and of the parquet files beside it. 1: the first."""

STATUSES = ("measured", "failed", "not_applicable", "skipped")

_HEADER_KEYS = ("command", "build", "attached_url", "environment", "calibration", "plan")
_KEYS = ("schema", "id", "created", "finished", "interrupted", *_HEADER_KEYS, "sessions", "cells")
_CELL_KEYS = ("scenario", "path", "streaming", "output_tokens", "load", "status", "reason")


class RunStore:
    """Writes one run. Used by one thread of one process."""

    def __init__(self, directory: Path, data: dict[str, Any]):
        self.directory = directory
        self._data = data

    @classmethod
    def create(cls, root: Path, header: Mapping[str, Any]) -> "RunStore":
        """Start a run in ``root``/reports/runs/<id>.

        ``header``: command, build, attached_url, environment, calibration and plan, as they stand in run.json.

        Raises:
            RunError: the directory cannot be written.
        """
        now = datetime.now(timezone.utc)
        run_id = f"{now:%Y-%m-%dT%H-%M-%S}-{secrets.token_hex(2)}"
        directory = root / "reports" / "runs" / run_id
        data = {"schema": SCHEMA, "id": run_id, "created": _utc(now), "finished": None, "interrupted": False}
        data |= {key: header[key] for key in _HEADER_KEYS} | {"sessions": [], "cells": {}}
        with _writing(directory):
            directory.mkdir(parents=True)
        store = cls(directory, data)
        store._rewrite()
        return store

    def write_cell(self, cell_id: str, result: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> None:
        """Keep a cell that ended: its rounds as parquet, then its ``result`` in run.json.

        Raises:
            RunError: nothing of this cell was kept, and everything before it still stands.
        """
        if rounds:
            with _writing(self.directory / "cells" / cell_id):
                _write_rounds(self.directory / "cells" / cell_id, rounds)
        self._update(cells=self._data["cells"] | {cell_id: dict(result)})

    @property
    def cells(self) -> Mapping[str, Any]:
        """The results so far, by cell id."""
        cells: Mapping[str, Any] = self._data["cells"]
        return cells

    def write_calibration(self, calibration: Mapping[str, Any] | None) -> None:
        """Keep the client's errors that are known so far."""
        self._update(calibration=calibration)

    def write_telemetry(self, samples: Sequence["Sample"]) -> None:
        """Keep the samples of memory: a row per sample and owner (a role on the host, or a GPU)."""
        import pyarrow as pa

        rows = [
            (sample.stamp_ns, kind, owner, used_bytes)
            for sample in samples
            for kind, owner, used_bytes in sample.rows()
        ]
        names = ("stamp_ns", "kind", "owner", "used_bytes")
        table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})
        with _writing(self.directory / "telemetry"):
            (self.directory / "telemetry").mkdir(exist_ok=True)
            _write_table(table, self.directory / "telemetry" / "memory.parquet")

    def finish(self, *, sessions: Sequence[Mapping[str, Any]], interrupted: bool) -> None:
        """Close the run: when it ended, whether it was cut short, and its sessions."""
        self._update(
            finished=_utc(datetime.now(timezone.utc)),
            interrupted=interrupted,
            sessions=[dict(session) for session in sessions],
        )

    def _update(self, **changes: Any) -> None:
        before = self._data
        self._data = before | changes
        try:
            self._rewrite()
        except RunError:
            self._data = before
            raise

    def _rewrite(self) -> None:
        path = self.directory / "run.json"
        write_text(path, json.dumps(self._data, ensure_ascii=False, indent=1, allow_nan=False))


@dataclass(frozen=True, slots=True)
class Run:
    """A run read back. ``data`` is run.json as it stands."""

    directory: Path
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The run's id, and its directory's name when it was written."""
        return str(self.data["id"])

    @property
    def cells(self) -> Mapping[str, Mapping[str, Any]]:
        """The results by cell id."""
        cells: Mapping[str, Mapping[str, Any]] = self.data["cells"]
        return cells

    @property
    def missing_cells(self) -> list[str]:
        """Planned cells that the run never reached."""
        return [cell_id for cell_id in self.data["plan"]["cells"] if cell_id not in self.cells]

    def rounds(self, cell_id: str) -> list[RoundRecord]:
        """The records of a cell, warm-ups included; empty for a cell that left none.

        Raises:
            RunError: the parquet files cannot be read.
        """
        directory = self.directory / "cells" / cell_id
        if not directory.is_dir():
            return []
        try:
            return _read_rounds(directory)
        except (OSError, KeyError, ValueError) as error:  # pyarrow's own errors are among these
            raise RunError(f"The records in {directory} cannot be read ({error}); measure the cell again.") from error


def load_run(path: Path) -> Run:
    """Read the run in the directory ``path``, or the one that the file ``path`` (its run.json) belongs to.

    Raises:
        RunError: there is no run, it is damaged, or another version of enginebench wrote it.
    """
    directory = path.parent if path.name == "run.json" else path
    file = directory / "run.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{directory} holds no run.json; name the directory of a run, e.g. reports/runs/<id>.") from None
    except (OSError, ValueError) as error:
        raise RunError(
            f"{file} cannot be read ({error}); it was not written by enginebench, or was damaged."
        ) from error
    _check(data, file)
    return Run(directory, data)


def _check(data: Any, file: Path) -> None:
    if not isinstance(data, dict) or not str(data.get("schema", "")).startswith("enginebench/run/"):
        raise RunError(f"{file} is not the record of a run: it lacks the schema {SCHEMA!r}.")
    if data["schema"] != SCHEMA:
        raise RunError(
            f"{file} has the schema {data['schema']!r}, and this enginebench reads {SCHEMA!r}; use one that wrote it."
        )
    _check_keys(data, _KEYS, str(file))
    if not (isinstance(data["cells"], dict) and isinstance(data["plan"], dict) and "cells" in data["plan"]):
        raise RunError(f"{file} is damaged: 'cells' and 'plan' are not what they should be; use an intact copy.")
    for cell_id, cell in data["cells"].items():
        _check_keys(cell, _CELL_KEYS, f"{file}, cell {cell_id}")
        if cell["status"] not in STATUSES:
            raise RunError(f"{file}, cell {cell_id}: the status {cell['status']!r} is none of {', '.join(STATUSES)}.")


def _check_keys(data: Any, keys: Sequence[str], where: str) -> None:
    missing = [key for key in keys if key not in data]
    if missing:
        raise RunError(f"{where} lacks {', '.join(map(repr, missing))}: it is damaged; use an intact copy.")


def _write_rounds(directory: Path, rounds: Sequence[RoundRecord]) -> None:
    """Both files of a cell at once: the directory is filled aside and renamed."""
    aside = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write_table(_request_rows(rounds), aside / "requests.parquet")
        _write_table(_chunk_rows(rounds), aside / "chunks.parquet")
        if directory.exists():
            shutil.rmtree(directory)
        aside.rename(directory)
        _sync(directory.parent)
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
    joined = {name: pa.concat_arrays([_arrow(name, table[name]) for table in tables]) for name in tables[0]}
    return pa.table({"round": place, **joined})


def _arrow(name: str, values: Any) -> Any:
    import pyarrow as pa

    types = {"outcome": pa.string(), "error": pa.string()}
    return values if isinstance(values, pa.Array) else pa.array(values, type=types.get(name))


def _read_rounds(directory: Path) -> list[RoundRecord]:
    import pyarrow.parquet as pq

    requests, chunks = (pq.read_table(directory / name) for name in ("requests.parquet", "chunks.parquet"))
    heads = json.loads(requests.schema.metadata[b"rounds"])
    return [
        RoundRecord(requests=_request_table(requests, place), chunks=_chunk_table(chunks, place), **each)
        for place, each in enumerate(heads)
    ]


def _of_round(table: Any, place: int) -> Any:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["round"], place)).drop_columns(["round"])


def _request_table(table: Any, place: int) -> RequestTable:
    rows = _of_round(table, place)
    texts = ("outcome", "error")
    values: dict[str, Any] = {name: rows[name].to_numpy() for name in rows.column_names if name not in texts}
    values |= {name: tuple(rows[name].to_pylist()) for name in texts}
    return RequestTable(**values)


def _chunk_table(table: Any, place: int) -> ChunkTable:
    rows = _of_round(table, place)
    ids = rows["token_ids"].combine_chunks().flatten().to_numpy()
    arrays = {name: rows[name].to_numpy() for name in ("request", "stamp_ns", "read_ns", "tokens")}
    return ChunkTable(**arrays, token_ids=int_array(ids))


def _write_table(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    # Neighbouring stamps differ by microseconds: their differences take a quarter of the space.
    stamps = {name: "DELTA_BINARY_PACKED" for name in table.column_names if name.endswith("_ns")}
    others = [name for name in table.column_names if name not in stamps]
    _write_aside(
        path,
        lambda aside: pq.write_table(
            table, aside, compression="zstd", use_dictionary=others, column_encoding=stamps or None
        ),
    )


def write_text(path: Path, text: str) -> None:
    """Replace the file ``path`` by ``text``, whole or not at all. Raises RunError."""
    with _writing(path):
        _write_aside(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Replace ``path`` by what ``write`` makes, at once: whatever happens, it holds the old or the new, whole."""
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        _sync(aside)
        aside.replace(path)
        _sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _utc(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"{path} cannot be written ({reason}); free some space or choose another directory.") from error
