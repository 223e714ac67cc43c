"""Profiles on disk: ``profiles/<kind>/<cell>/`` of a run, each with a ``profile.json`` and the files that it names.

They stand apart from the run's own records: nothing that compares or gates reads them. Nothing is computed here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from enginebench.errors import RunError
from enginebench.files import write_text, writing
from enginebench.measure.records import RoundRecord
from enginebench.record.kinds import check, read_json
from enginebench.record.profile import ProfileRecord
from enginebench.store_tables import read_columns, read_rounds, write_columns, write_rounds

SCHEMA = "enginebench/profile/1"
RECORDS = "records"


@dataclass(frozen=True, slots=True)
class Profile:
    """One profiled rerun. ``data``: its profile.json."""

    kind: str
    cell_id: str
    directory: Path
    data: Mapping[str, Any]

    @property
    def taken(self) -> bool:
        """Whether there is anything in it."""
        return self.data.get("status") == "taken"

    def columns(self, name: str) -> dict[str, NDArray[Any]]:
        """The table ``name`` as arrays, unknown values NaN; empty where there is none. Raises RunError."""
        found = read_columns(self.directory / f"{name}.parquet")
        return {key: np.asarray(values) for key, values in found.items()}

    def rounds(self) -> list[RoundRecord]:
        """What the client recorded of the rerun; empty where it broke. Raises RunError."""
        directory = self.directory / RECORDS
        if not directory.is_dir():
            return []
        try:
            return read_rounds(directory)
        except (OSError, KeyError, ValueError) as error:
            raise RunError(f"The records in {directory} cannot be read ({error}); profile the cell again.") from error

    def spans(self) -> list[Mapping[str, Any]]:
        """The server's spans, a tree a request; empty where there are none. Raises RunError."""
        path = self.directory / "spans.json"
        found: list[Mapping[str, Any]] = _read(path) if path.is_file() else []
        return found


def profile_directory(run: Path, kind: str, cell_id: str) -> Path:
    """Where the profile of ``kind`` of a cell belongs in the directory ``run``."""
    return run / "profiles" / kind / cell_id


def write_profile(directory: Path, data: Mapping[str, Any]) -> None:
    """Keep what is said of a profile. Raises RunError."""
    write_json(directory / "profile.json", {"schema": SCHEMA, **data})


def write_json(path: Path, value: Any) -> None:
    """Replace ``path``, whole or not at all. Raises RunError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False))


def write_records(directory: Path, rounds: Sequence[RoundRecord]) -> None:
    """Keep what the client recorded of the rerun. Raises RunError."""
    with writing(directory):
        write_rounds(directory / RECORDS, rounds)


def write_table(directory: Path, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Keep columns of equal length; those in which nothing is known are left out. Raises RunError."""
    known = {key: values for key, values in columns.items() if any(value is not None for value in values)}
    if known:
        with writing(directory):
            write_columns(directory / f"{name}.parquet", known)


def read_profiles(run: Path) -> tuple[Profile, ...]:
    """Every profile of the run in the directory ``run``, kind by kind. Raises RunError for a damaged one."""
    root = run / "profiles"
    files = sorted(root.glob("*/**/profile.json"))
    return tuple(_profile(root, file) for file in files)


def _profile(root: Path, file: Path) -> Profile:
    kind, *cell = file.parent.relative_to(root).parts
    data = _read(file)
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise RunError(f"{file} is not a profile of the schema {SCHEMA!r}: use the enginebench that wrote it.")
    check(data, ProfileRecord, file)
    return Profile(kind, "/".join(cell), file.parent, data)


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); profile the cell again.") from error
