"""Challenge 1: every method on the truth and on a spurious label."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jelicit.figures.parts import (
    GREY,
    PAGE,
    POINT,
    chosen_rows,
    finish,
    forest,
    group_handles,
    label_methods,
    lines,
    new_figure,
    places_of,
    role_handles,
    some_rows,
    spread,
    stack,
    style,
)
from jelicit.method_names import (
    in_reading_order,
    readable,
)
from jelicit.results import Rows, asked_for, summarise


def salience_figure(rows: Rows, dataset: str, *, orientation: str = "oracle") -> Figure:
    """Per method, AUROC on the truth and on the spurious label; one panel per feature.

    Panels stand in order of the feature's measured salience, lowest first (a feature without a
    measured one, such as none at all, before them); the title gives the salience of feature and
    asked-for label. Large marks are means over seeds, bars the mean bootstrap interval, small marks
    the single seeds. The dotted line at 0.5 is chance.

    Args:
        rows: tidy rows with dataset, feature, role, method, orientation, seed, auroc, and where
            known auroc_low, auroc_high, salience_feature, salience_truth. One model and one layer
            per method.
        dataset: whose rows to show.
        orientation: which sign choice to show ("oracle" or "easy") for methods that need one;
            rows with orientation "none" are always shown.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, orientation, [*POINT, "dataset", "feature"])
    rows = some_rows(rows.loc[rows["dataset"] == dataset], f"dataset {dataset!r}")
    features = by_salience(rows)
    places = places_of(in_reading_order(rows["method"]))
    columns = len(features) if len(features) <= 4 else math.ceil(len(features) / 2)
    lines = math.ceil(len(features) / columns)
    # A page is no taller: with many methods their lines move together.
    per_method = min(0.165, ((PAGE - 0.7) / lines - 0.6) / len(places))
    with style():
        figure = new_figure(height=0.7 + lines * (0.6 + per_method * len(places)))
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
        for place, axes in enumerate(grid):
            if place >= len(features):
                axes.remove()
                continue
            panel = rows.loc[rows["feature"] == features[place]]
            forest(axes, panel, places)
            axes.set_title(_salience_title(panel), fontsize=7)
            is_lowest = place + columns >= len(features)
            axes.tick_params(labelbottom=is_lowest)
            axes.set_xlabel("AUROC" if is_lowest else "")
        for axes in grid[::columns]:
            label_methods(axes, places, rows)
        finish(figure, rows, title=readable(dataset), handles=role_handles(rows))
    return figure


def salience_scatter(rows: Rows, *, orientation: str = "oracle") -> Figure:
    """AUROC on the asked-for label over the measured salience of the feature (log scale).

    One panel per dataset, one line per method. Features without a measured, positive salience
    (none added, or nan) have no place on this axis and are left out.

    Args:
        rows: tidy rows as for `salience_figure`; only role "truth" is shown.
        orientation: as for `salience_figure`.

    Raises:
        ValueError: no such rows, a missing column, or rows that differ in more than the seed.
    """
    rows = chosen_rows(rows, orientation, [*POINT, "dataset", "feature", "salience_feature"])
    rows = some_rows(rows.loc[rows["role"] == "truth"], "role 'truth'")
    rows = some_rows(rows.loc[rows["salience_feature"] > 0], "a measured salience")
    datasets = list(dict.fromkeys(rows["dataset"]))
    with style():
        figure = new_figure(height=0.6 + 2.9 * len(datasets))
        grid = stack(figure, len(datasets), 1)[:, 0]
        for axes, dataset in zip(grid, datasets, strict=True):
            panel = rows.loc[rows["dataset"] == dataset]
            salience = {str(f): _mean(x, "salience_feature") for f, x in panel.groupby("feature")}
            points = summarise(panel, by=["method", "feature"], value="auroc")
            points = points.assign(x=[salience[name] for name in points["feature"]])
            axes.set_xscale("log")
            lines(axes, points, rows)
            _mark_features(axes, salience)
            axes.set_ylabel(f"AUROC ({asked_for(panel)})")
            axes.set_title(readable(dataset))
            axes.set_xlabel("measured salience of the feature (share of variance)", labelpad=24)
        finish(figure, rows, handles=group_handles(rows))
    return figure


def by_salience(rows: pd.DataFrame) -> list[str]:
    """Features in ascending order of salience, those without one first."""
    salience = {
        str(feature): _mean(panel, "salience_feature")
        for feature, panel in rows.groupby("feature", sort=False)
    }
    return sorted(salience, key=lambda name: np.nan_to_num(salience[name], nan=-1.0))


def _salience_title(panel: pd.DataFrame) -> str:
    lines = [readable(panel["feature"].iloc[0])]
    for column, word in (("salience_feature", "feature"), ("salience_truth", asked_for(panel))):
        measured = _mean(panel, column)
        if not np.isnan(measured):
            lines.append(f"{word} salience {measured:.2g}")
    return "\n".join(lines)


def _mean(rows: pd.DataFrame, column: str) -> float:
    """Mean of what is there of a column; nan where nothing is."""
    known = rows[column].dropna().to_numpy(float) if column in rows else np.empty(0)
    return float(known.mean()) if known.size else np.nan


def _mark_features(axes: Axes, salience: Mapping[str, float]) -> None:
    """The salience axis: a tick per feature, its name and value below, moved apart if need be."""
    ordered = sorted(salience.items(), key=lambda item: item[1])
    # The lines fill most of the width, but a range of less than a quarter is not blown up.
    least, most = ordered[0][1], ordered[-1][1]
    pad = max(0.15 * math.log(most / least), (math.log(1.25) - math.log(most / least)) / 2)
    low, high = least / math.exp(pad), most * math.exp(pad)
    axes.set_xlim(low, high)
    axes.set_xticks([value for _, value in ordered], ["" for _ in ordered])
    axes.set_xticks([], minor=True)
    wanted = [math.log(value / low) / math.log(high / low) for _, value in ordered]
    gap = 0.03 + 0.0125 * max(len(readable(name)) for name in salience)
    for (name, value), tick, at in zip(ordered, wanted, spread(wanted, gap=gap), strict=True):
        frame = axes.transAxes
        axes.plot([tick, at], [0, -0.05], transform=frame, clip_on=False, color=GREY, lw=0.5)
        text = f"{readable(name)}\n{value:.2g}"
        axes.text(at, -0.06, text, transform=frame, ha="center", va="top", fontsize=7)
