"""Items from a table: CSV, TSV, a JSON array, Parquet. What a table leaves in doubt is refused.

Read as they are: a cell of CSV is text ("NA", "001" and "1e5" among it), one of JSON or Parquet has
the type that it has there. Nothing is guessed from the values of a column: which column is what
follows from its name alone, and how a label is written has to be one way in the whole file.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jelicit.data.filekinds import kind_of_file
from jelicit.data.items import Item
from jelicit.data.records import question_group
from jelicit.data.shown import listed, shown

SUFFIXES = (".csv", ".tsv", ".json", ".parquet")
"""How the name of a table ends, in any case."""

CHOICE = ("statement", "claim", "text", "choice")
"""Columns that may hold the text that is judged; a table has one of them."""

LABEL = ("label", "is_true", "is_correct", "truth")
"""Columns that may hold the label; a table has one of them."""

OTHERS = ("id", "question", "choice_2", "answer", "group", "split", "dataset", "origin")
"""Columns that are fields of `Item`. Every other column goes to `Item.meta`."""

INDEX = ("", "__index_level_0__")
"""What pandas calls the row numbers that it writes along; they are left out."""

_NUMBERS = {"0": False, "0.0": False, "1": True, "1.0": True}
_WORDS = {"false": False, "true": True}
_SEPARATORS = {",": "commas", "\t": "tabs"}


@dataclass(frozen=True)
class Table:
    """The cells of a file, as they stand there.

    Attributes:
        path: The file, for messages.
        columns: Names, left to right; none twice, whatever their case.
        rows: Column -> cell; None for a cell that is not there.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        names = Counter(name.strip().lower() for name in self.columns)
        for name, times in names.items():
            if times > 1:
                raise ValueError(
                    f"{self.path}: {times} columns are called {shown(name)} (case aside); rename "
                    "or drop all but one"
                )
        if not self.rows:
            raise ValueError(f"{self.path}: no items; the table has no rows")

    def error(self, row: int, column: str, problem: str) -> ValueError:
        """An error that names file, row (from 1, the header not counted) and column."""
        return ValueError(f"{self.path}: row {row + 1}: column {shown(column)} {problem}")

    def column(self, *names: str) -> str | None:
        """The column of one of these names, in any case; None if there is none.

        Raises:
            ValueError: If there are several, which leaves in doubt what is meant.
        """
        there = [name for name in self.columns if name.strip().lower() in names]
        if len(there) > 1:
            raise ValueError(
                f"{self.path}: columns {' and '.join(map(shown, there))} may all be the "
                f"{names[0]}; keep one of {', '.join(names)}"
            )
        return there[0] if there else None

    def needed(self, *names: str) -> str:
        """The column of one of these names.

        Raises:
            ValueError: If there is none, or several.
        """
        column = self.column(*names)
        if column is None:
            raise ValueError(
                f"{self.path}: no column is called {' or '.join(names)}; the columns are: "
                f"{listed(self.columns)}"
            )
        return column

    def is_empty(self, column: str) -> bool:
        """Whether no row has anything there: then the column says nothing."""
        return all(_empty(row.get(column)) for row in self.rows)


def read_table(path: Path) -> list[Item]:
    """The rows of a table as items.

    Where no column `id` is, rows are numbered behind the file's name. Rows share a group by the
    column `group`; else by `city` (the sets of Marks and Tegmark 2023); else, if there is more than
    one question, by question; else every row is a group.

    Raises:
        ValueError: Whatever is ambiguous or missing, in one line with file, row and column.
    """
    table = _cells(path)
    choice, label = table.needed(*CHOICE), table.needed(*LABEL)
    fields = {name: column for name in OTHERS if (column := _used(table, name)) is not None}
    known = {choice, label, *(table.column(name) for name in OTHERS)}
    extra = [c for c in table.columns if c not in known and c not in INDEX]
    truths = _labels(table, label)
    items = [
        _item(table, number, {"choice": choice, **fields}, extra, truth)
        for number, truth in enumerate(truths)
    ]
    _check_ids(table, items, fields.get("id", ""))
    return items if "group" in fields else _grouped(table, items)


def _used(table: Table, name: str) -> str | None:
    column = table.column(name)
    return None if column is None or table.is_empty(column) else column


def _item(
    table: Table, number: int, fields: Mapping[str, str], extra: Sequence[str], truth: bool
) -> Item:
    """One row as an item; alternative labels and meta of the project's own schema are kept."""
    row = table.rows[number]
    texts = {name: _text(table, number, column, name) for name, column in fields.items()}
    meta, alt_labels = {}, {}
    for column in extra:
        value = row.get(column)
        if column == "alt_labels" and isinstance(value, Mapping):
            # A Parquet struct has every row's keys in every row.
            alt_labels = {name: of for name, of in value.items() if of is not None}
        elif column == "meta" and isinstance(value, Mapping):
            meta |= value
        else:
            meta[column] = _json_value(table, number, column)
    given = {"id": f"{table.path.stem}/{number:05d}", **texts}
    try:
        return Item(label=truth, alt_labels=alt_labels, meta=meta, **given)
    except ValueError as error:
        raise ValueError(f"{table.path}: row {number + 1}: {error}") from error


def _text(table: Table, number: int, column: str, name: str) -> str | None:
    value = table.rows[number].get(column)
    if _empty(value):
        if name == "answer":  # a claim may well hold none
            return None
        raise table.error(number, column, "is empty; fill it in, or leave the row out")
    if name in ("id", "group") and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise table.error(number, column, f"is {shown(value)}; expected text")
    return value


def _json_value(table: Table, number: int, column: str) -> Any:
    value = table.rows[number].get(column)
    if isinstance(value, float) and value != value:
        return None
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise table.error(
            number,
            column,
            f"is {shown(value)}, which is no JSON; drop it or write text",
        ) from error
    return value


def _empty(value: object) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


# --- labels, ids, groups -------------------------------------------------------------------------


def _labels(table: Table, column: str) -> list[bool]:
    """The labels; all written in one way, as numbers or as words."""
    truths: list[bool] = []
    first: Mapping[str, bool] | None = None
    for number, row in enumerate(table.rows):
        value = row.get(column)
        if _empty(value):
            raise table.error(
                number, column, "is empty; rows without a truth value come as JSONL, label null"
            )
        written = str(value).strip().lower()
        ways = _WORDS if written in _WORDS else _NUMBERS
        if written not in ways:
            raise table.error(
                number,
                column,
                f"is {shown(value)}; allowed: 0 and 1, or true and false",
            )
        if first is not None and ways is not first:
            raise table.error(
                number,
                column,
                f"is {shown(value)}, and {shown(table.rows[0].get(column))} in row 1; a file "
                "writes all its labels as 0 and 1 or all as true and false",
            )
        first = ways
        truths.append(ways[written])
    return truths


def _check_ids(table: Table, items: Sequence[Item], column: str) -> None:
    first: dict[str, int] = {}
    for number, item in enumerate(items):
        # Two forms of one id look alike wherever they are printed.
        earlier = first.setdefault(unicodedata.normalize("NFC", item.id), number)
        if earlier != number:
            raise table.error(number, column, f"repeats {shown(item.id)} of row {earlier + 1}")


def _grouped(table: Table, items: list[Item]) -> list[Item]:
    """The items with groups of a table that has no column `group`."""
    city = _used(table, "city")
    if city is not None:
        names = [_text(table, n, city, "group") for n in range(len(items))]
    elif len({item.question for item in items}) > 1:
        names = [question_group(item.question) for item in items]
    else:
        return items
    return [replace(item, group=name) for item, name in zip(items, names, strict=True)]


# --- files ---------------------------------------------------------------------------------------


def _cells(path: Path) -> Table:
    kind = kind_of_file(path)
    if path.suffix.lower() == ".parquet":
        return _parquet(path, kind)
    if kind:
        raise ValueError(f"{path} is {kind}; its name says {path.suffix}, as text in UTF-8")
    try:
        if path.suffix.lower() == ".json":
            return _json(path)
        return _separated(path, "\t" if path.suffix.lower() == ".tsv" else ",")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}); save it as UTF-8") from error


def _separated(path: Path, separator: str) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Blank lines, which editors leave at the end, are no rows.
            lines = [line for line in csv.reader(file, delimiter=separator, strict=True) if line]
    except csv.Error as error:
        raise ValueError(
            f"{path}: {error}; expected are cells separated by {_SEPARATORS[separator]}, in double "
            "quotes where a cell holds one, a line break or a quote (which is doubled)"
        ) from error
    header, *rows = lines or [[]]
    for number, line in enumerate(rows, start=1):
        if len(line) != len(header):
            raise ValueError(
                f"{path}: row {number} has {len(line)} cells and the header {len(header)} columns "
                f"({listed(header)}); a cell that holds {_SEPARATORS[separator]} is quoted"
            )
    return Table(path, tuple(header), tuple(dict(zip(header, line, strict=True)) for line in rows))


def _json(path: Path) -> Table:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, times in Counter(name for name, _ in pairs).items():
            if times > 1:
                raise ValueError(f"an object has {shown(name)} {times} times")
        return dict(pairs)

    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError(f"{path}: nested too deep to hold items") from error
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON array of objects ({error})") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path}: is one JSON {type(rows).__name__}; expected an array of objects")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{path}: row {number + 1} is {shown(row)}; expected an object")
    return Table(path, tuple(dict.fromkeys(name for row in rows for name in row)), tuple(rows))


def _parquet(path: Path, kind: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind != "a Parquet file":
        raise ValueError(f"{path} is {kind or 'no Parquet file'}; its name says .parquet")
    try:
        # The file alone: read_table would add columns that the names of folders spell out.
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: the Parquet file cannot be read ({error})") from error
    names = tuple(table.column_names)
    columns = [column.to_pylist() for column in table.columns]
    rows = [dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return Table(path, names, tuple(rows))


def is_table(path: Path) -> bool:
    """Whether a file is read as a table: by its name, and .json by its first character.

    Lines of JSON are often called .json too.
    """
    if path.suffix.lower() != ".json":
        return path.suffix.lower() in SUFFIXES
    with path.open("rb") as file:
        return not file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")
