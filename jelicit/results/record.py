"""The record of a command: what it ran and found, for its report. One `report.json` per folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jelicit.disk import write_text
from jelicit.results.identity import plain

FILE = "report.json"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A finding of the paper, and whether it appears here.

    Attributes:
        claim: What the paper reports, in one sentence.
        measured: What the rows of this command say, with numbers.
        appears: Whether the two agree; None where these rows cannot tell.
    """

    claim: str
    measured: str
    appears: bool | None


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A small table as it is to be read, beside the table of rows.

    Attributes:
        title: What it says.
        heads: Of its columns.
        lines: Its cells; the first of a line names what the line is about.
        note: How to read it.
    """

    title: str
    heads: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a command ran and found.

    Attributes:
        experiment: Its name: "salience", "imbalance", ...
        title: Head of the report.
        lead: What was asked and how to read the answer, in a few plain sentences.
        command: The command line that made it.
        seconds: How long it took.
        machine: What it ran on, in words.
        versions: Name of a package -> its version.
        settings: Every option of the command.
        runs: Ids of the runs whose rows (folder `rows`) and item scores (folder `items`, for some
            of them) this command asked for.
        figures: File names, in the folder, of the figures (SVG), in reading order.
        findings: The paper's findings, checked.
        doubts: What speaks against the numbers, a line each: few rows, rows of test that were in
            train, too few items to stop training by.
        titles: Name and group of methods that are the user's own, by key: whoever reads the record
            may not have them (`method_names.own_titles`).
        tables: What is to be read beside the rows, each with a title.
    """

    experiment: str
    title: str
    lead: str
    command: str
    seconds: float
    machine: str
    versions: dict[str, str]
    settings: dict[str, Any]
    runs: tuple[str, ...]
    figures: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    doubts: tuple[str, ...] = ()
    titles: dict[str, tuple[str, str]] = field(default_factory=dict)
    tables: tuple[TextTable, ...] = ()

    def write(self, folder: str | Path) -> None:
        """Writes it as `report.json`, whole or not at all."""
        record = {**asdict(self), "settings": plain(self.settings)}
        write_text(Path(folder) / FILE, json.dumps(record, indent=1) + "\n")

    @classmethod
    def read(cls, folder: str | Path) -> Record:
        """The record of a folder.

        Raises:
            FileNotFoundError: No command has finished in this folder.
            ValueError: The file is no record.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} has no {FILE}; name the folder of an experiment that has finished, such "
                "as runs/salience"
            )
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            found["findings"] = tuple(Finding(**each) for each in found["findings"])
            found["runs"], found["figures"] = tuple(found["runs"]), tuple(found["figures"])
            found["doubts"] = tuple(map(str, found.get("doubts", ())))
            titles = found.get("titles", {})
            found["titles"] = {key: (str(name), str(of)) for key, (name, of) in titles.items()}
            found["tables"] = tuple(map(_table, found.get("tables", ())))
            return cls(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no record of a command ({error}); delete it") from error


def _table(told: dict[str, Any]) -> TextTable:
    """A table as it was written."""
    heads, lines = tuple(map(str, told["heads"])), tuple(tuple(map(str, o)) for o in told["lines"])
    return TextTable(title=str(told["title"]), heads=heads, lines=lines, note=str(told["note"]))
