"""Challenge 3: truth against the share of variance, and scores by source."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jelicit.figures.parts import (
    BLUE,
    GREY,
    ORANGE,
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
from jelicit.method_names import in_reading_order, method_of, readable
from jelicit.results import ItemScores, Rows

BINS = 30


def variance_figure(
    rows: Rows, dataset: str, *, balance: float = 0.5, orientation: str = "oracle"
) -> Figure:
    """Per method, AUROC on claims with a truth value, and their share of the scores' variance.

    Left, right is right about what can be known; right, it is unsure of what cannot. The dotted
    line there is where a method stands that is as sure of either sort of claim: the share of claims
    with a truth value among all. Bars are mean bootstrap intervals, small marks single seeds.

    Args:
        rows: tidy rows with auroc, variance_share, their intervals, method, role, orientation and
            seed; one dataset and layer.
        dataset: for the title.
        balance: share of the test items that have a truth value.
        orientation: which sign choice to show for methods that need one.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, orientation, [*POINT, "variance_share"])
    rows = some_rows(rows.loc[rows["role"] == "truth"], "the truth")
    places = places_of(in_reading_order(rows["method"]))
    with style():
        figure = new_figure(height=1.0 + 0.165 * len(places))
        left, right = figure.subplots(1, 2, sharey=True)
        forest(left, rows, places)
        forest(right, rows, places, value="variance_share", chance=balance)
        left.set_xlabel("AUROC on claims with a truth value")
        right.set_xlabel("their share of the scores' variance")
        label_methods(left, places, rows)
        finish(figure, rows, handles=[], title=readable(dataset))
    return figure


def histograms_figure(
    found: ItemScores, *, layer: int, orientation: str = "oracle", title: str | None = None
) -> Figure:
    """How each method's scores are spread, apart for the sets that the items come from.

    Of each method: scores over their standard deviation among all items; filled is the set with a
    truth value (its true and its false claims as two outlines), the line is the set without.

    Args:
        found: item scores of a mixture; items without a truth value have the label nan.
        layer: which layer's probes.
        orientation: which sign choice to show for methods that need one.
        title: what was mixed; None = the sets of the items.

    Raises:
        ValueError: no method was measured under these settings.
    """
    places = {
        setting["method"]: place
        for place, setting in enumerate(found.settings)
        if setting["orientation"] in (orientation, "none") and setting.get("layer", layer) == layer
    }
    if not places:
        raise ValueError(f"no method was measured at layer {layer} under {orientation!r} signs.")
    methods = in_reading_order(places)
    columns = 3
    label = found.items["label"].to_numpy(float)
    with style():
        figure = new_figure(height=0.7 + 1.25 * math.ceil(len(methods) / columns))
        grid = figure.subplots(math.ceil(len(methods) / columns), columns, squeeze=False)
        for axes, method in zip(grid.ravel(), methods, strict=False):
            _histogram(axes, found.scores[:, places[method.key]], label)
            axes.set_title(method_of(method.key).name, fontsize=7)
        for axes in grid.ravel()[len(methods) :]:
            axes.remove()
        shown = (
            ("true claims", BLUE, 6),
            ("false claims", ORANGE, 6),
            ("no truth value", GREY, 1.4),
        )
        handles = [
            Line2D([], [], color=c, lw=w, alpha=0.55 if w > 2 else 1, label=n) for n, c, w in shown
        ]
        figure.legend(handles=handles, loc="outside lower right", ncols=3)
        names = map(readable, dict.fromkeys(found.items["dataset"]))
        title = title or " and ".join(names)
        figure.suptitle(f"Truth scores: {title}", fontsize=9, fontweight="bold")
    return figure


def _histogram(axes: Axes, scores: np.ndarray, label: np.ndarray) -> None:
    known = scores[~np.isnan(scores)]
    low, high = np.quantile(known, [0.005, 0.995])
    edges = np.linspace(min(low, -0.1), max(high, 0.1), BINS + 1)
    inside = np.clip(scores, edges[0], edges[-1])
    for value, color in ((1, BLUE), (0, ORANGE)):
        axes.hist(inside[label == value], edges, color=color, alpha=0.55, linewidth=0)
    axes.hist(inside[np.isnan(label)], edges, histtype="step", color=GREY, linewidth=1.2)
    axes.axvline(0, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
