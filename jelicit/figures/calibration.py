"""How well scores do as probabilities."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jelicit.figures.parts import (
    BLUE,
    POINT,
    chosen_rows,
    finish,
    forest,
    label_methods,
    new_figure,
    places_of,
    some_rows,
    style,
)
from jelicit.figures.salience import by_salience
from jelicit.method_names import in_reading_order, readable
from jelicit.results import Rows


def calibration_figure(rows: Rows, dataset: str, *, orientation: str = "oracle") -> Figure:
    """Expected calibration error of every method, a panel per feature; small marks are seeds.

    Features stand as in `salience_figure`.

    Scores were made probabilities by Platt scaling on train rows (with the easy sign: on the easy
    set). 0 is perfect; a method that says 0.5 of everything has 0 on balanced rows as well, so read
    it beside AUROC.

    Args:
        rows: tidy rows with dataset, feature, role, method, orientation, seed and ece.
        dataset: whose rows to show.
        orientation: which sign choice to show for methods that need one.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, orientation, [*POINT, "dataset", "feature", "ece"])
    mine = (rows["dataset"] == dataset) & (rows["role"] == "truth") & rows["ece"].notna()
    rows = some_rows(rows.loc[mine], f"dataset {dataset!r} with calibration")
    features = by_salience(rows)
    places = places_of(in_reading_order(rows["method"]))
    with style():
        figure = new_figure(height=1.2 + 0.165 * len(places))
        grid = figure.subplots(1, len(features), squeeze=False, sharey=True).ravel()
        for feature, axes in zip(features, grid, strict=True):
            panel: pd.DataFrame = rows.loc[rows["feature"] == feature]
            forest(axes, panel, places, value="ece", chance=0.0)
            axes.set_title(readable(feature), fontsize=7)
            axes.set_xlabel("calibration error")
            axes.set(xlim=(-0.02, 0.54))
            axes.set_xticks([0, 0.25, 0.5], ["0", "0.25", "0.5"])
            axes.set_xticks([], minor=True)
        label_methods(grid[0], places, rows)
        handle = Line2D([], [], color=BLUE, marker="o", markersize=4.5, label="label asked for")
        finish(figure, rows, title=readable(dataset), handles=[handle])
    return figure
