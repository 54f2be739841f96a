"""What became of policies' answers, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jelicit.method_names import in_reading_order, readable

COLUMNS: Mapping[str, tuple[str, str]] = {
    "Wins: start": ("win_rate_start", ".2f"),
    "Wins: ICM": ("win_rate_icm", ".2f"),
    "Wins: golden": ("win_rate_golden", ".2f"),
    "Wins: annotator": ("win_rate_human", ".2f"),
    "True": ("accuracy", ".2f"),
    "Fooled": ("fooled", ".2f"),
    "Reward": ("reward", ".2f"),
    "Gain": ("reward_gain", "+.2f"),
    "KL": ("kl", ".1f"),
    "Tokens": ("tokens", ".1f"),
}
"""Heads -> column of the rows, and how its mean is written."""

BOUNDED = ("win_rate_start", "win_rate_icm", "win_rate_golden", "win_rate_human")
"""Columns that are shown with their intervals."""


def answer_lines(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a table of one set: a line per method, means over seeds.

    Win rates have their 95% intervals over test questions, of an average seed.
    """
    heads = {
        head: (column, form)
        for head, (column, form) in COLUMNS.items()
        if column in rows and bool(rows[column].notna().any())
    }
    lines = []
    for method in in_reading_order(rows["method"]):
        mine = pd.DataFrame(rows.loc[rows["method"] == method.key])
        lines.append([method.name, *(_cell(mine, *of) for of in heads.values())])
    return ["Method", *heads], lines


def _cell(rows: pd.DataFrame, column: str, form: str) -> str:
    mean = column_mean(rows, column)
    if isnan(mean):
        return ""
    said = format(mean, form)
    if column in BOUNDED:
        low, high = (column_mean(rows, f"{column}_{end}") for end in ("low", "high"))
        said += f" ({low:.2f} to {high:.2f})"
    return said


def column_mean(rows: pd.DataFrame, column: str) -> float:
    """The mean of a column over rows that have a number there; nan without any."""
    values = np.asarray(rows[column], float)
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else nan


def print_answers(rows: pd.DataFrame, console: Console) -> None:
    """Prints a table per set: win rates, then what tells of over-optimisation."""
    for dataset, of_set in rows.groupby("dataset", sort=False):
        heads, lines = answer_lines(pd.DataFrame(of_set))
        won = [place for place, head in enumerate(heads) if head.startswith("Wins")]
        other = [place for place in range(1, len(heads)) if place not in won]
        for said, columns in (("who wins", won), ("what is won", other)):
            table = Table(title=escape(f"{readable(str(dataset))}: {said}"))
            table.add_column("Method", no_wrap=True)
            for place in columns:
                table.add_column(heads[place], justify="right")
            for line in lines:
                table.add_row(escape(line[0]), *(line[place] for place in columns))
            console.print(table)
