"""Numbers as cells of tables: two digits, and nothing of what is not there."""

from __future__ import annotations

from typing import Any

import pandas as pd


def number(value: Any) -> str:
    """Two digits; nothing of None and nan."""
    return "" if pd.isna(value) else f"{value:.2f}"


def with_interval(row: Any, name: str, *, percent: bool = False) -> str:
    """A number of a row, and its interval in brackets where it has one.

    Args:
        row: Has `name`, and `name_low` and `name_high`.
        name: Of the number.
        percent: Write whole percents.
    """
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    form = ".0%" if percent else ".2f"
    if pd.isna(value):
        return ""
    return f"{value:{form}}" + ("" if pd.isna(low) else f" [{low:{form}}, {high:{form}}]")
