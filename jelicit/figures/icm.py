"""ICM: accuracy per method, and how searches went."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jelicit.figures.parts import (
    BLUE,
    GREEN,
    GREY,
    MARKERS,
    ORANGE,
    VERMILLION,
    chosen_rows,
    finish,
    forest,
    label_methods,
    new_figure,
    places_of,
    stack,
    style,
)
from jelicit.figures.training import accuracy_bars
from jelicit.method_names import MethodName, in_reading_order, method_of, readable
from jelicit.results import Rows

COLUMNS = 4


def accuracy_figure(rows: Rows) -> Figure:
    """Accuracy on test items of every method, a panel per set; small marks are single seeds.

    Where methods give labels, open diamonds say how many of those are right: a prompt can be right
    about test items although the labels that it shows are wrong.

    Args:
        rows: tidy rows with dataset, method, role, orientation, seed, accuracy and its interval;
            label_accuracy where labels were given.

    Raises:
        ValueError: no rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, "oracle", ["dataset", "method", "role", "seed", "accuracy"])
    sets = list(dict.fromkeys(rows["dataset"]))
    places = places_of(in_reading_order(rows["method"]))
    columns = min(COLUMNS, len(sets))
    lines = -(-len(sets) // columns)
    with style():
        figure = new_figure(height=0.5 + lines * (0.5 + 0.165 * len(places)))
        grid = stack(figure, lines, columns)
        for place, axes in enumerate(grid.ravel()):
            if place >= len(sets):
                axes.remove()
                continue
            panel = rows.loc[rows["dataset"] == sets[place]]
            forest(axes, panel, places, value="accuracy")
            _right_labels(axes, panel, places)
            axes.set_title(readable(sets[place]), fontsize=7)
            axes.set_xlabel("accuracy")
        for axes in grid[:, 0]:
            label_methods(axes, places, rows)
        finish(figure, rows, handles=_HANDLES if "label_accuracy" in rows else [])
    return figure


_RIGHT: dict[str, Any] = {
    "marker": "D",
    "color": VERMILLION,
    "markerfacecolor": "none",
    "ls": "",
    "markersize": 4,
}
_HANDLES = [
    Line2D([], [], marker="o", color=BLUE, markersize=4.2, label="right about test items"),
    Line2D([], [], label="right among its labels", **_RIGHT),
]


def _right_labels(axes: Axes, panel: pd.DataFrame, places: Mapping[str, MethodName | None]) -> None:
    """The mean share of right labels, on the line of each method that shows labels."""
    if "label_accuracy" not in panel:
        return
    heights = {key: height for height, key in enumerate(places)}
    right = {
        heights[str(method)]: float(np.mean(np.asarray(rows["label_accuracy"], float)))
        for method, rows in panel.dropna(subset="label_accuracy").groupby("method")
    }
    axes.plot(list(right.values()), list(right), zorder=5, gid="labels", **_RIGHT)


BARS = ("zero_shot", "zero_shot_chat", "golden_many_shot", "icm")
"""The methods of the figure that the paper opens with."""


def bars_figure(rows: Rows) -> Figure:
    """Accuracy of zero-shot prompts, a chat model's, golden labels and ICM, as Wen et al. draw it.

    A group of bars per set; lines are 95% intervals of the mean over test items and seeds. Bars of
    methods that the rows do not have are left out: the chat model's is there where one was asked.

    Args:
        rows: As of `accuracy_figure`.

    Raises:
        ValueError: no row of these methods, a missing column, or rows that differ in more than the
            seed.
    """
    return accuracy_bars(rows, BARS, "zero-shot, golden and ICM")


def search_figure(steps: pd.DataFrame, dataset: str) -> Figure:
    """U, and the share of right labels, over the steps of every search; a panel per start.

    U of different searches, and of steps of one search that were judged in different orders, is
    not to be compared to the digit: the order of examples moves it. A search that never had to
    judge a change, since the model predicted the labels that it began with, has no U; the panel
    says so. The line of a search in batches has a gap before every batch; both values are the
    present batch's own.

    Args:
        steps: one row per step with method, seed, step, utility (nan before a change is judged),
            accuracy, and batch where there are several.
        dataset: for the title.

    Raises:
        ValueError: there are no steps.
    """
    if steps.empty:
        raise ValueError("there are no steps to draw.")
    methods, looks = in_reading_order(steps["method"]), _looks(steps)
    with style():
        figure = new_figure(height=3.6)
        grid = np.asarray(
            figure.subplots(2, len(methods), squeeze=False, sharex="col", sharey="row")
        )
        for (above, below), method in zip(grid.T, methods, strict=True):
            mine = steps.loc[steps["method"] == method.key]
            unjudged = _curves(above, mine, "utility", looks)
            if unjudged:
                said = f"no change was judged\n({', '.join(unjudged)})"
                above.text(0.04, 0.04, said, transform=above.transAxes, va="bottom", color=GREY)
            _curves(below, mine, "accuracy", looks)
            above.set_title(method_of(method.key).name)
            below.axhline(0.5, color=GREY, lw=0.8, ls=":")
            below.set(xlabel="step", ylim=(-0.03, 1.03))
        if np.isnan(np.asarray(steps["utility"], float)).all():
            grid[0, 0].set_yticks([])  # a scale of nothing
        grid[0, 0].set_ylabel("U")
        grid[1, 0].set_ylabel("right labels")
        handles = [Line2D([], [], **look) for look in looks.values()]
        grid[0, -1].legend(handles=handles, loc="lower right")
        figure.suptitle(f"Searches: {readable(dataset)}", fontsize=9, fontweight="bold")
    return figure


def _looks(steps: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """How the line of each seed is drawn, and what it is called."""
    colors = (BLUE, VERMILLION, GREEN, ORANGE)
    return {
        seed: {
            "color": colors[place % len(colors)],
            "marker": MARKERS[place % len(MARKERS)],
            "label": f"seed {seed}",
            "lw": 0.9,
            "ms": 3,
        }
        for place, seed in enumerate(sorted(steps["seed"].unique()))
    }


def _curves(
    axes: Axes, searches: pd.DataFrame, value: str, looks: Mapping[Any, Mapping[str, Any]]
) -> list[str]:
    """A line per seed; returns the names of those that have no number to draw."""
    left_out = []
    for seed, of in searches.groupby("seed"):
        places, heights = _with_gaps(of, value)
        if np.isnan(heights).all():  # Matplotlib has no place for the markers of such a line
            left_out.append(str(looks[seed]["label"]))
        else:
            axes.plot(places, heights, markevery=0.2, **looks[seed])
    return left_out


def _with_gaps(search: pd.DataFrame, value: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a search, with nan where a batch follows another."""
    places, heights = np.asarray(search["step"], float), np.asarray(search[value], float)
    if "batch" not in search:
        return places, heights
    begins = np.flatnonzero(np.diff(np.asarray(search["batch"]))) + 1
    return np.insert(places, begins, places[begins]), np.insert(heights, begins, np.nan)
