"""The table of rows and the chart: which columns there are, and what each of them is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from jelicit.indicators import NAMES as INDICATORS
from jelicit.method_groups import GROUPS
from jelicit.method_names import in_reading_order, readable
from jelicit.results.rows import MEASURED
from jelicit.results.store import SETTING_PREFIX

# Columns in reading order: where, what was done, what came out. All others stand in between.
_FIRST = ("report", "dataset", "feature", "asked", "train")
_METHOD = ("layer", "class_share", "method", "orientation", "role", "target", "seed")
_LAST = ("n_train", "n_test", "model", "run_id")
_COUNTED = ("seed", "layer", "class_share", "n_train", "n_test")
_QUIET = ("target", "n_test", "run_id", "accuracy_low", "accuracy_high", *INDICATORS)
_ENDS = ("_low", "_high")

# What a column says of a method that needs no such thing: its rows belong to every choice.
NOT_NEEDED = {"orientation": "none", "train": "none"}

ROLE_NAMES = {"truth": "asked for", "spurious": "spurious"}


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, columns in reading order, without settings that only repeat a column."""
    repeated = [
        name
        for name in map(str, rows.columns)
        if (plain := name.removeprefix(SETTING_PREFIX)) != name
        and plain in rows
        and rows[plain].equals(rows[name])
    ]
    rows = rows.drop(columns=repeated)
    settings = [c for c in rows if str(c).startswith(SETTING_PREFIX)]
    measured = measured_columns(rows)
    known = {*_FIRST, *_METHOD, *_LAST, *measured, *settings}
    others = [c for c in rows if c not in known]
    order = [*_FIRST, *others, *_METHOD, *measured, *_LAST, *settings]
    return rows.loc[:, [c for c in order if c in rows]]


def measured_columns(rows: pd.DataFrame) -> list[str]:
    """Columns that say what came out: `MEASURED`, and every other column of fractions."""
    others = [
        str(name)
        for name in rows
        if not str(name).startswith(SETTING_PREFIX)
        and name not in (*MEASURED, *_COUNTED)
        and pd.api.types.is_float_dtype(rows[name])
    ]
    return [name for name in (*MEASURED, *others) if name in rows]


def about_rows(rows: pd.DataFrame) -> dict[str, Any]:
    """What the page must know of the table: quiet columns, and names for readers."""
    quiet = [c for c in rows if c in _QUIET or str(c).startswith(SETTING_PREFIX)]
    return {
        "table": "rows",
        "quiet": quiet,
        "measured": measured_columns(rows),
        "signed": [],
        "names": reader_names(rows),
        "titles": column_titles(rows),
    }


def column_titles(rows: pd.DataFrame) -> dict[str, str]:
    """Column -> its title: "auroc_low" -> "AUROC low", "settings.sweep.ccs_steps" as it is."""
    titles = {}
    for name in map(str, rows.columns):
        if name.startswith(SETTING_PREFIX):
            titles[name] = name
            continue
        what, colon, where = name.partition(": ")
        words = what.replace("auroc", "AUROC").replace("_", " ")
        titles[name] = words[:1].upper() + words[1:] + colon + where
    return titles


def reader_names(rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Column -> value -> what readers call it."""
    names: dict[str, dict[str, str]] = {}
    if "method" in rows:
        names["method"] = {m.key: m.name for m in in_reading_order(rows["method"].dropna())}
    for column in ("dataset", "feature", "train"):
        if column in rows:
            found = [v for v in rows[column].dropna().unique() if isinstance(v, str)]
            none = NOT_NEEDED.get(column)
            names[column] = {v: v if v == none else readable(v) for v in found}
    if "role" in rows:
        names["role"] = ROLE_NAMES
    return names


def about_chart(rows: pd.DataFrame, *, series: str = "role") -> dict[str, Any] | None:
    """What the chart shows; None where rows have no method or nothing measured.

    A point is the mean over the rows that share a method, a value of `series` and a choice of every
    facet: over seeds. A row whose facet is missing (a layer, for a method that reads none) or not
    needed (`NOT_NEEDED`: an orientation, for a method that knows its sign) belongs to every choice.

    Returns:
        series, facets (columns to choose by, in the order of choosing), not_needed, measures
        (columns to show), methods ([key, name, group] in reading order).
    """
    if "method" not in rows:
        return None
    facets = facets_of(rows, series=series)
    measures = [
        name
        for name in measured_columns(rows)
        if not name.endswith(_ENDS) and _differs(rows, [*facets, "role"], name)
    ]
    if not measures:
        return None
    methods = [list(method) for method in in_reading_order(rows["method"])]
    methods.sort(key=lambda m: GROUPS.index(m[2]))
    return {
        "series": series,
        "facets": facets,
        "not_needed": NOT_NEEDED,
        "measures": measures,
        "methods": methods,
    }


def facets_of(rows: pd.DataFrame, *, series: str) -> list[str]:
    """Columns to choose by: all that were set and vary, but those that every chart shows."""
    shown = {"method", "seed", "target", series, *_QUIET, "n_train", *measured_columns(rows)}
    facets = [
        name
        for name in map(str, rows.columns)
        if name not in shown
        and not name.startswith(SETTING_PREFIX)
        and len(rows[name].drop_duplicates()) > 1
    ]
    facets.sort(key=lambda name: name == "orientation")
    point = [c for c in (*facets, "method", series, "seed") if c in rows]
    # The same point measured on several labels or by several runs: there is no mean of these.
    for column in ("target", "run_id"):
        if column in rows and varies(rows, point, column):
            facets.append(column)
    return facets


def _differs(rows: pd.DataFrame, by: list[str], column: str) -> bool:
    """Whether a column says anything that its place in the chart does not say already."""
    by = [name for name in by if name in rows]
    if bool(rows[column].isna().to_numpy().all()):
        return False
    is_one_per_place = not by or not bool(rows.duplicated(by).to_numpy().any())
    return is_one_per_place or varies(rows, by, column)


def varies(rows: pd.DataFrame, by: Sequence[str], column: str) -> bool:
    """Whether rows that agree in `by` differ in a column (missing values apart)."""
    found = rows.groupby(list(by), dropna=False)[column].nunique()
    return bool((found.to_numpy() > 1).any())
