"""Runs on disk: what one invocation measured, written so that an interruption loses at most the cell in flight.

A run is a directory with ``run.json`` (small: everything that tables and pages need), and a parquet file per cell for
requests and one for arrivals. Every file is written aside, synced and renamed. Nothing is computed here.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from enginebench.errors import RunError
from enginebench.files import write_text, writing
from enginebench.measure.gpu_trace import gpu_columns
from enginebench.measure.records import RoundRecord
from enginebench.record.kinds import check, read_json
from enginebench.record.run import Record
from enginebench.run_lookup import runs_directory
from enginebench.store_tables import Arrivals, read_arrivals, read_requests, read_rounds, write_columns, write_rounds

if TYPE_CHECKING:
    from enginebench.measure.telemetry import Sample

_T = TypeVar("_T")
_ROUND = re.compile(r'\{"started_ns": (\d+),')  # how a line begins that says what an engine recorded of a round

SCHEMA = "enginebench/run/1"
"""Version of run.json and of the parquet files beside it. 1: the first."""

_HEADER = ("command", "build", "attached_url", "environment", "calibration", "plan")


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
        directory = runs_directory(root) / run_id
        data = {"schema": SCHEMA, "id": run_id, "created": _utc(now), "finished": None, "interrupted": False}
        data |= {key: header[key] for key in _HEADER} | {"sessions": [], "cells": {}}
        with writing(directory):
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
            with writing(self.directory / "cells" / cell_id):
                write_rounds(self.directory / "cells" / cell_id, rounds)
        self._update(cells=self._data["cells"] | {cell_id: dict(result)})

    @property
    def cells(self) -> Mapping[str, Any]:
        """The results so far, by cell id."""
        cells: Mapping[str, Any] = self._data["cells"]
        return cells

    @property
    def sessions(self) -> Sequence[Mapping[str, Any]]:
        """The sessions so far."""
        sessions: Sequence[Mapping[str, Any]] = self._data["sessions"]
        return sessions

    def write_calibration(self, calibration: Mapping[str, Any] | None) -> None:
        """Keep the client's errors that are known so far."""
        self._update(calibration=calibration)

    def write_telemetry(self, samples: Sequence["Sample"]) -> None:
        """Keep the samples: of memory, a row per sample and owner (a role on the host, or a GPU); of GPUs, one each."""
        rows = [
            (sample.stamp_ns, kind, owner, used_bytes)
            for sample in samples
            for kind, owner, used_bytes in sample.rows()
        ]
        names = ("stamp_ns", "kind", "owner", "used_bytes")
        self.write_samples("memory", {name: [row[place] for row in rows] for place, name in enumerate(names)})
        if any(sample.gpu for sample in samples):
            self.write_samples("gpu", gpu_columns(samples))

    def write_samples(self, name: str, table: Mapping[str, Sequence[Any]]) -> None:
        """Keep columns of equal length as telemetry/``name``.parquet; one of them is ``stamp_ns``.

        Raises:
            RunError: the file cannot be written.
        """
        path = self.directory / "telemetry" / f"{name}.parquet"
        with writing(path):
            write_columns(path, table)

    def write_sessions(self, sessions: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is known of the sessions so far."""
        self._update(sessions=[dict(session) for session in sessions])

    def write_ab(self, ab: Mapping[str, Any]) -> None:
        """Keep which side of a comparison the run is: side, other run, order of blocks, discarded pairs."""
        self._update(ab=dict(ab))

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

    def rounds(self, cell_id: str) -> list[RoundRecord]:
        """The records of a cell, warm-ups included; empty for a cell that left none.

        Raises:
            RunError: the parquet files cannot be read.
        """
        return self._read(cell_id, read_rounds) or []

    def requests(self, cell_id: str) -> list[RoundRecord]:
        """The records of a cell without their arrivals; empty for a cell that left none.

        Raises:
            RunError: the parquet file cannot be read.
        """
        return self._read(cell_id, read_requests) or []

    def arrivals(self, cell_id: str) -> Iterator[Arrivals]:
        """The arrivals of a cell in their order, a bounded number at a time, never of two rounds at once.

        Raises:
            RunError: the parquet file cannot be read.
        """
        parts = self._read(cell_id, read_arrivals) or iter(())
        while (part := self._read(cell_id, lambda _: next(parts, None))) is not None:
            yield part

    def observed(self, path: str, started_ns: Collection[int]) -> dict[int, Mapping[str, Any]]:
        """What the engine of ``path`` itself recorded of the rounds that started then, as far as it did.

        Raises:
            RunError: the file cannot be read.
        """
        file = self.directory / "logs" / f"worker-{path}.engine.jsonl"
        try:
            with file.open(encoding="utf-8") as lines:
                heads = ((_ROUND.match(line), line) for line in lines)
                return {int(head[1]): json.loads(line) for head, line in heads if head and int(head[1]) in started_ns}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{file} cannot be read ({error}); measure the cell again.") from error

    def _read(self, cell_id: str, read: Callable[[Path], _T]) -> _T | None:
        directory = self.directory / "cells" / cell_id
        if not directory.is_dir():
            return None
        try:
            return read(directory)
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
        data = read_json(file)
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
    check(data, Record, file)


def _utc(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
