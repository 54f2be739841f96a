"""The item browser's tables: texts once for all panels, and per panel one score column a method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jelicit.method_names import in_reading_order, readable
from jelicit.report.packing import Columns, Fixed, columns_of
from jelicit.results import ItemScores

SCORE_STEPS = 1000
"""Steps per standard deviation that a score is kept in."""

OTHER_PREFIX = "other."
_TEXTS = ("id", "dataset", "group", "question", "choice", "choice_2", "label")
_PANEL = ("dataset", "feature", "format", "asked", "train", "model", "layer", "class_share")
_ORIENTATIONS = {"oracle": "oracle sign", "easy": "easy sign", "none": ""}


def about_items(items: Mapping[str, ItemScores], rows: pd.DataFrame) -> dict[str, Any]:
    """What the page must know of the items: panels (runs with item scores), and names of sets.

    Args:
        items: Run id -> item scores.
        rows: Rows of all runs, with `run_id`: what sets runs apart is read from them.

    Returns:
        panels: per run its name for readers, the table of its scores, and the methods (name, key,
        column) in reading order; sets: dataset -> its name for readers.
    """
    named = _panel_names(list(items), rows)
    sets = dict.fromkeys(name for found in items.values() for name in found.items["dataset"])
    panels = [
        {
            "run": run,
            "name": named[run],
            "table": f"scores {place}",
            "methods": [
                {"name": name, "key": str(settings.get("method", "")), "place": column}
                for column, name, settings in _in_order(found.settings)
            ],
        }
        for place, (run, found) in enumerate(items.items())
    ]
    return {"panels": panels, "sets": {str(name): readable(str(name)) for name in sets}}


def tables_of(items: Mapping[str, ItemScores]) -> dict[str, Columns]:
    """Table "items" (the items of all runs, one under the other) and "scores 0", "scores 1", ..."""
    if not items:
        return {}
    frames = [
        found.items.reset_index(drop=True).assign(panel=place)
        for place, found in enumerate(items.values())
    ]
    texts = columns_of(pd.concat(frames, ignore_index=True))
    columns = {name: texts[name] for name in ("panel", *_TEXTS)}
    tables: dict[str, Columns] = {"items": columns | _other_labels(texts["others"])}
    for place, found in enumerate(items.values()):
        tables[f"scores {place}"] = {
            str(k): Fixed(stepped(found.scores[:, k]), SCORE_STEPS)
            for k in range(len(found.settings))
        }
    return tables


def stepped(scores: np.ndarray) -> np.ndarray:
    """Scores in steps of 1 / `SCORE_STEPS`, rounded away from 0 so that none loses its verdict."""
    steps = np.abs(scores.astype(np.float64)) * SCORE_STEPS
    return np.sign(scores) * np.ceil(steps - 1e-6 * steps) / SCORE_STEPS


def _other_labels(others: Fixed | pd.Series) -> dict[str, Fixed | pd.Series]:
    """One column per other label: True, False or None."""
    assert isinstance(others, pd.Series)
    found = [json.loads(text) for text in others]
    names = dict.fromkeys(name for each in found for name in each)
    return {
        OTHER_PREFIX + name: pd.Series([each.get(name) for each in found], dtype=object)
        for name in names
    }


def _panel_names(runs: Sequence[str], rows: pd.DataFrame) -> dict[str, str]:
    """What sets each run apart, in as few words as do; runs that nothing sets apart have their id.

    A column counts only where it has one value per run.
    """
    columns = [name for name in _PANEL if name in rows]
    values = {
        run: {c: _only(rows.loc[rows["run_id"] == run, c].drop_duplicates()) for c in columns}
        for run in runs
    }
    said: list[str] = []
    for column in columns:
        finer = {tuple(values[run][c] for c in (*said, column)) for run in runs}
        if len(finer) > len({tuple(values[run][c] for c in said) for run in runs}):
            said.append(column)
    said = said or ["dataset"]
    words = {
        run: ", ".join(_words(c, str(values[run][c])) for c in said if values[run][c] is not None)
        for run in runs
    }
    repeated = {name for name in words.values() if list(words.values()).count(name) > 1}
    return {run: f"{n} (run {run[:6]})" if n in repeated else n for run, n in words.items()}


def _only(values: pd.Series) -> Any:
    """The one value there is, or None."""
    known = values.dropna().tolist()
    return known[0] if len(known) == 1 else None


def _words(column: str, value: str) -> str:
    if column in ("dataset", "feature"):
        return readable(value)
    words = {"asked": "asked for", "train": "trained on"}
    shown = readable(value) if column == "train" else value
    return f"{words.get(column, column.replace('_', ' '))} {shown}"


def _in_order(settings: Sequence[Mapping[str, Any]]) -> list[tuple[int, str, Mapping[str, Any]]]:
    """(column, name for readers, settings), methods in reading order.

    A name says what else sets a column apart from others of its method, and no more.
    """
    methods = in_reading_order(str(each.get("method", "")) for each in settings)
    ordered = []
    for method in methods:
        own = [(k, s) for k, s in enumerate(settings) if str(s.get("method", "")) == method.key]
        differ = [
            name
            for name in dict.fromkeys(name for _, s in own for name in s)
            if len({json.dumps(s.get(name), sort_keys=True, default=str) for _, s in own}) > 1
        ]
        for k, each in own:
            said = [_setting(name, each.get(name)) for name in differ]
            extra = ", ".join(word for word in said if word)
            ordered.append((k, f"{method.name}, {extra}" if extra else method.name, each))
    return ordered


def _setting(name: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    if name == "orientation":
        return _ORIENTATIONS.get(str(value), str(value))
    return _words(name, f"{value:g}" if isinstance(value, float) else str(value))
