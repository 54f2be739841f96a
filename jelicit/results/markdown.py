"""Result rows as Markdown tables, for pages that are written from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jelicit.method_names import MethodName, in_reading_order
from jelicit.results.rows import Rows, as_frame, need, summarise

MARKS = {"oracle": r" \*", "easy": " (easy sign)", "none": ""}
"""What stands behind a method's name: who chose the sign of its scores."""


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; pipes inside cells are escaped.

    Raises:
        ValueError: A line has more or fewer cells than the head, or there is no line.
    """
    lines = list(lines)
    if not lines:
        raise ValueError(f"a table with the columns {', '.join(head)} has no lines")
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"the line {list(line)} has {len(line)} cells, the head {len(head)}")
    rule = ["---"] * len(head)
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
        for line in (head, rule, *lines)
    )


def methods_down(
    rows: Rows,
    *,
    across: Sequence[str],
    columns: Mapping[str, tuple[Any, ...]],
    cell: Callable[[pd.DataFrame], str],
    orientations: Sequence[str] = ("none", "oracle"),
) -> str:
    """A line per method and sign, a column per situation.

    Args:
        rows: Tidy rows with method, orientation and the columns of `across`.
        across: Columns of the rows that tell situations apart. A row that has none of their values
            (all of them are missing) belongs to every situation.
        columns: Head of a column to the values of `across` in its situation.
        cell: What the rows of one method, sign and situation come to, as text.
        orientations: Which signs are shown; methods that have another one alone are left out.

    Raises:
        ValueError: A column is missing, or nothing is left to show.
    """
    frame = as_frame(rows)
    need(frame, ["method", "orientation", *across])
    situations = [_situation(frame, across, values) for values in columns.values()]
    lines = []
    for method, sign, of_line in _lines(frame, orientations):
        cells = [_cell(frame.loc[of_line & situation], cell) for situation in situations]
        if any(cells):
            lines.append([method.name + MARKS[sign], *cells])
    return markdown_table(["Method", *columns], lines)


def mean_of(rows: pd.DataFrame, value: str) -> str:
    """The mean over seeds with two digits; nothing where no row has the value.

    Where some rows lack it (nan: no number of such test rows), it says of how many the mean is.

    Raises:
        ValueError: The rows differ in more than the seed.
    """
    if value not in rows or rows[value].isna().to_numpy().all():
        return ""
    if rows.duplicated(["method", "orientation", "seed"]).to_numpy().any():
        summarise(rows, by=["method", "orientation"], value=value)  # says what differs
    counted = int(np.count_nonzero(rows[value].notna()))
    of = "" if counted == len(rows) else f" ({counted} of {len(rows)} seeds)"
    return f"{rows[value].mean():.2f}{of}"


def truth_and_spurious(rows: pd.DataFrame) -> str:
    """AUROC on the label that is asked for, and in brackets on the spurious feature, if any.

    Raises:
        ValueError: The rows of one label differ in more than the seed.
    """
    truth, spurious = (
        mean_of(rows.loc[rows["role"] == role], "auroc") for role in ("truth", "spurious")
    )
    return f"{truth} [{spurious}]" if spurious else truth


def _lines(
    rows: pd.DataFrame, orientations: Sequence[str]
) -> Iterator[tuple[MethodName, str, np.ndarray]]:
    """Every method and sign that there is, and which rows are theirs."""
    for method in in_reading_order(rows["method"]):
        of_method = (rows["method"] == method.key).to_numpy()
        for sign in orientations:
            of_line = of_method & (rows["orientation"] == sign).to_numpy()
            if of_line.any():
                yield method, sign, of_line


def _situation(rows: pd.DataFrame, across: Sequence[str], values: tuple[Any, ...]) -> np.ndarray:
    """Which rows are of a situation: those with its values, and those with none."""
    here, everywhere = np.ones((2, len(rows)), bool)
    for column, value in zip(across, values, strict=True):
        here &= (rows[column] == value).to_numpy()
        everywhere &= rows[column].isna().to_numpy()
    return here | everywhere


def _cell(rows: pd.DataFrame, cell: Callable[[pd.DataFrame], str]) -> str:
    return "" if rows.empty else cell(rows)
