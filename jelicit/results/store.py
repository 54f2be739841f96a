"""Result rows on disk: one Parquet file per run, named by everything that made it."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from jelicit.disk import open_folder
from jelicit.results.identity import plain
from jelicit.results.rows import Rows

SETTING_PREFIX = "settings."
METADATA_KEY = b"jelicit"


class Results:
    """A folder of result rows: `<run id>.parquet` per run, each written whole or not at all."""

    def __init__(self, folder: str | os.PathLike[str]):
        """The folder, or an fsspec URL such as "gs://bucket/results"; created on first write."""
        self.folder = open_folder(folder)

    def has(self, run_id: str) -> bool:
        """Whether this run's rows are there."""
        return self.folder.exists(_file_name(run_id))

    def write(
        self,
        run_id: str,
        rows: Rows,
        settings: Mapping[str, Any],
        *,
        doubts: Sequence[str] = (),
    ) -> None:
        """Writes one run's rows, replacing what this run id held before.

        Every row gets the columns `run_id` and, flattened, every setting: `settings.probe.lr`, ...
        (lists as JSON text). The settings also stand in the file's metadata, nested as they were.

        Args:
            run_id: from `run_id`.
            rows: tidy rows, one per (method, dataset, feature, target, layer, seed, ...); NumPy
                and JAX scalars are fine.
            settings: the settings that went into the run id.
            doubts: what speaks against the numbers, a line each; it stands in the metadata.

        Raises:
            ValueError: no rows, a value that is no scalar, a column of mixed types, or a column
                named like a setting's.
        """
        nested = plain(settings)
        extra = {"run_id": run_id, **_flat(nested, SETTING_PREFIX)}
        table = _table_of([{**_row(row, extra), **extra} for row in _records(rows)])
        about = {"run_id": run_id, "settings": nested}
        if doubts:
            about["doubts"] = list(doubts)
        sink = pa.BufferOutputStream()
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(about)})
        pq.write_table(table, sink, write_page_checksum=True)
        self.folder.create()
        self.folder.write(_file_name(run_id), [sink.getvalue().to_pybytes()])

    def read(self, run_id: str) -> pd.DataFrame:
        """One run's rows.

        Raises:
            FileNotFoundError: the folder has no such run.
            ValueError: the file is damaged, or holds another run.
        """
        return self._load(_file_name(run_id)).to_pandas()

    def settings(self, run_id: str) -> dict[str, Any]:
        """The settings that one run was written with, nested; tuples read back as lists."""
        return _about(self._load(_file_name(run_id)))["settings"]

    def doubts(self, run_id: str) -> list[str]:
        """What was said against the numbers of one run when it was written, a line each."""
        return _about(self._load(_file_name(run_id))).get("doubts", [])

    def table(self) -> pd.DataFrame:
        """All rows of the folder, runs in order of their id; empty when nothing was written yet.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: a file is damaged; the message names it.
        """
        there = self.folder.listing()
        if not there and (self.folder.local is None or not self.folder.local.is_dir()):
            raise FileNotFoundError(f"there is no results folder {self.folder.location}.")
        names = sorted(name for name in there if re.fullmatch(r"[^.].*\.parquet", name))
        frames = [self._load(name).to_pandas() for name in names]
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _load(self, name: str) -> pa.Table:
        try:
            data = self.folder.read(name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(
                f"there is no results file {self.folder.path(name)}."
            ) from error
        try:
            table = pq.read_table(pa.BufferReader(data), page_checksum_verification=True)
            run = _about(table)["run_id"]
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.folder.path(name)} is truncated or no results file ({error}); "
                "delete it and run its experiment again."
            ) from error
        if _file_name(run) != name:
            raise ValueError(
                f"{self.folder.path(name)} holds run {run}; a file is named by its run id, "
                "so rename or delete it."
            )
        return table


def _flat(nested: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Nested settings as columns: dots between levels, lists as JSON text."""
    columns = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            columns |= _flat(value, f"{prefix}{key}.")
        else:
            columns[prefix + key] = json.dumps(value) if isinstance(value, list) else value
    return columns


def _records(rows: Rows) -> list[dict[str, Any]]:
    records = rows.to_dict("records") if isinstance(rows, pd.DataFrame) else rows
    found = [{str(key): value for key, value in record.items()} for record in records]
    if not found:
        raise ValueError("there are no rows to write; a run without results is no result.")
    return found


def _row(record: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """One row with Python scalars; columns that the settings fill may not say otherwise."""
    row = {name: _scalar(value, name) for name, value in record.items()}
    for name in row.keys() & extra.keys():
        if row[name] != extra[name]:
            raise ValueError(
                f"column {name} is {row[name]!r} in a row but {extra[name]!r} in the settings; "
                "rename the column."
            )
    return row


def _scalar(value: Any, column: str) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "__array__"):
        value = np.asarray(value).tolist()
    if not isinstance(value, bool | int | float | str):
        raise ValueError(
            f"column {column} holds a {type(value).__name__}; a cell is one number, string, "
            "boolean or None."
        )
    return value


def _table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        if any(isinstance(cell, str) for cell in cells):  # pandas spells a missing text nan
            cells = [None if cell != cell else cell for cell in cells]
        try:
            columns[name] = pa.array(cells)
        except (pa.ArrowException, OverflowError) as error:
            raise ValueError(f"column {name} mixes types: {error}.") from error
    return pa.table(columns)


def _about(table: pa.Table) -> dict[str, Any]:
    return json.loads((table.schema.metadata or {})[METADATA_KEY])


def _file_name(run_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", run_id):
        raise ValueError(
            f"run id {run_id!r} cannot name a file; use letters, digits, '_', '.' and '-'."
        )
    return f"{run_id}.parquet"
