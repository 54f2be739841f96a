"""Assistants: who wins, what is true, what the reward model says."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from jelicit.figures.parts import (
    chosen_rows,
    finish,
    forest,
    label_methods,
    new_figure,
    places_of,
    stack,
    style,
)
from jelicit.method_names import in_reading_order, readable
from jelicit.results import Rows

PANELS = {
    "win_rate_start": "wins against the start",
    "win_rate_golden": "wins against golden",
    "win_rate_human": "wins against annotator",
    "accuracy": "true answers",
    "fooled": "wrong, rewarded as right",
}
"""What is drawn, as far as the rows have it: shares, by method."""


def assistant_figure(rows: Rows) -> Figure:
    """Shares of won comparisons, of true answers, and of wrong ones that are rewarded as right.

    A line of panels per set. Marks are means over seeds, small marks single seeds, lines 95%
    intervals over test questions.

    Args:
        rows: tidy rows with dataset, method, role, orientation, seed, and columns of `PANELS` with
            their intervals.

    Raises:
        ValueError: no rows, or a missing column.
    """
    rows = chosen_rows(rows, "oracle", ["dataset", "method", "role", "seed"])
    sets = list(dict.fromkeys(rows["dataset"]))
    shown = [name for name in PANELS if name in rows and bool(rows[name].notna().any())]
    places = places_of(in_reading_order(rows["method"]))
    with style():
        figure = new_figure(height=0.5 + len(sets) * (0.6 + 0.165 * len(places)))
        grid = stack(figure, len(sets), max(len(shown), 1))
        for line, dataset in zip(grid, sets, strict=True):
            of_set = pd.DataFrame(rows.loc[rows["dataset"] == dataset])
            for axes, value in zip(line, shown, strict=False):
                forest(axes, of_set.dropna(subset=value), places, value=value)
                axes.set_title(PANELS[value], fontsize=7)
                if len(sets) > 1:
                    axes.set_xlabel(readable(str(dataset)))
            label_methods(line[0], places, rows)
        title = readable(str(sets[0])) if len(sets) == 1 else ""
        finish(figure, rows, handles=[], title=title)
    return figure
