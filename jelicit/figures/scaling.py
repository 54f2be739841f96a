"""Methods over the sizes of models."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from jelicit.figures.parts import (
    POINT,
    chosen_rows,
    finish,
    group_handles,
    lines,
    new_figure,
    some_rows,
    stack,
    style,
)
from jelicit.method_names import readable
from jelicit.results import Rows, summarise

NEAR = 1.25
"""Sizes within this factor of each other share a tick, so that their names do not run together."""


def scaling_figure(rows: Rows, *, orientation: str = "oracle") -> Figure:
    """AUROC on the asked-for label over parameters, a line per method.

    One line of panels per (dataset, feature), one column per family of models; sizes on a
    logarithmic axis.

    Args:
        rows: tidy rows with columns parameters and family, otherwise as for `salience_figure`.
        orientation: as for `salience_figure`.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    needed = [*POINT, "dataset", "feature", "parameters", "family"]
    chosen = chosen_rows(rows, orientation, needed)
    chosen = some_rows(chosen.loc[chosen["role"] == "truth"], "the truth")
    chosen = chosen.loc[~chosen["method"].str.startswith("control_")]
    blocks = list(dict.fromkeys(zip(chosen["dataset"], chosen["feature"], strict=True)))
    families = list(dict.fromkeys(chosen["family"]))
    with style():
        figure = new_figure(height=0.6 + 2.7 * len(blocks))
        grid = stack(figure, len(blocks), len(families))
        for line, (dataset, feature) in enumerate(blocks):
            here = (chosen["dataset"] == dataset) & (chosen["feature"] == feature)
            for axes, family in zip(grid[line], families, strict=True):
                panel = chosen.loc[here & (chosen["family"] == family)]
                if panel.empty:  # this family was not asked about this set
                    axes.remove()
                    continue
                points = summarise(panel, by=["method", "parameters"], value="auroc")
                lines(axes, points.assign(x=points["parameters"]), panel)
                _sizes(axes, panel)
                place = [readable(dataset)] + ([readable(feature)] if feature != "none" else [])
                axes.set_title(", ".join(place))
                axes.set(xlabel=f"parameters of {family}", ylabel="AUROC")
        finish(figure, chosen, handles=group_handles(chosen))
    return figure


def _sizes(axes: Axes, panel: pd.DataFrame) -> None:
    """Logarithmic, with the models' own sizes as ticks."""
    sizes: list[float] = []
    for size in sorted(np.asarray(panel["parameters"], float)):
        if not sizes or size > NEAR * sizes[-1]:
            sizes.append(size)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.3, max(np.asarray(panel["parameters"], float)) * 1.3)
    axes.set_xticks(sizes, [size_name(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def size_name(parameters: float) -> str:
    """A size in words: "1.4 M", "135 M", "1.8 B"."""
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            number = parameters / unit
            return f"{number:.0f} {name}" if number >= 9.95 else f"{number:.1f} {name}"
    return f"{parameters:.0f}"
