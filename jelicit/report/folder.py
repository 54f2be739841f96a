"""What a run folder holds: its record, rows, item scores and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jelicit.results import ItemScores, ItemScoreStore, Record, Results, as_frame


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder, read.

    Attributes:
        path: The folder.
        record: Its `report.json`.
        rows: The rows of all its runs; a missing feature or orientation is spelt "none".
        items: Run id -> item scores, for the runs that have any.
        figures: File name -> the bytes of the SVG, in reading order.
    """

    path: Path
    record: Record
    rows: pd.DataFrame
    items: dict[str, ItemScores]
    figures: dict[str, bytes]


def read_folder(folder: str | Path) -> RunFolder:
    """Reads all that a report shows.

    Raises:
        FileNotFoundError: the folder has no report.json, or lacks rows or a figure that it names.
        ValueError: a file is damaged, or report.json names no run.
    """
    path = Path(folder)
    record = Record.read(path)
    if not record.runs:
        raise ValueError(f"{path}: report.json names no run; run the experiment again")
    results, scores = Results(path / "rows"), ItemScoreStore(path / "items")
    return RunFolder(
        path=path,
        record=record,
        rows=as_frame(pd.concat([results.read(run) for run in record.runs], ignore_index=True)),
        items={run: scores.read(run) for run in record.runs if scores.has(run)},
        figures={name: _figure(path, name) for name in record.figures},
    )


def _figure(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.suffix != ".svg":
        raise ValueError(f"{folder}: report.json names the figure {name}; figures are SVG files")
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: report.json names the figure {name}, which is not there; "
            "run the experiment again"
        )
    return path.read_bytes()
